"""Shards: tokens are encoded once, found again by content, mapped, and made again if damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from llmstages.core.stage import Artifact, Context
from llmstages.data import tables, token_store
from llmstages.text import chat_format, encode
from tests.tiny import TEXTS, saved, tiny_tokenizer

WORDS = [*TEXTS, "", "naïve 東京 🙂", "a" * 300, "", TEXTS[0]]


@pytest.fixture
def calls(monkeypatch):
    """The texts that were given to the tokenizer."""
    seen = []
    encode_rows = encode.encode_rows

    def recorded(tokenizer, texts):
        seen.extend(texts)
        return encode_rows(tokenizer, texts)

    monkeypatch.setattr(encode, "encode_rows", recorded)
    return seen


def corpus_of(folder: Path, texts=WORDS, name="corpus") -> Artifact:
    saved(folder, "corpus", [{"id": str(i), "url": "u", "text": t} for i, t in enumerate(texts)])
    return Artifact(name, "corpus", folder, "same for all")


def context(tmp_path) -> tuple[Context, list[str]]:
    log: list[str] = []
    cache = tmp_path / "cache"
    return Context("pretrain", tmp_path, tmp_path, {}, cache=cache, say=log.append), log


def test_a_shard_holds_every_document_as_it_is_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr(token_store, "BATCH", 500)
    ctx, log = context(tmp_path)
    shard = token_store.tokens(ctx, corpus_of(tmp_path / "c"), tiny_tokenizer())
    read = [shard.ids[start:end].tolist() for start, end in pairwise(shard.starts)]
    assert read == chat_format.encode_texts(tiny_tokenizer(), WORDS)
    assert len(shard) == len(WORDS)
    assert shard.same.tolist() == [WORDS.index(text) for text in WORDS]
    assert isinstance(shard.ids, np.memmap)
    assert isinstance(shard.starts, np.memmap)
    assert shard.ids.dtype == np.uint16
    assert log
    assert all(line.startswith("tokens: encoded 0.0 MB of corpus in ") for line in log)
    assert all(line.endswith("(cached)") for line in log)


def test_the_second_time_the_tokenizer_is_not_asked(tmp_path, calls):
    ctx, log = context(tmp_path)
    corpus = corpus_of(tmp_path / "c")
    first = token_store.tokens(ctx, corpus, tiny_tokenizer())
    assert len(calls) == len(WORDS)
    # The same content in another place.
    moved = Artifact("elsewhere", "corpus", corpus_of(tmp_path / "moved").path, "other")
    tiny_tokenizer().save_pretrained(tmp_path / "t")
    from llmstages.train.trainer import load_tokenizer

    copy = load_tokenizer(tmp_path / "t")
    # Leaves its settings in the engine.
    copy(["a", "b c"], padding=True, truncation=True, max_length=5)
    again = token_store.tokens(ctx, moved, copy)
    assert len(calls) == len(WORDS)
    assert log[-1].startswith("tokens: reused ")
    assert "of elsewhere" in log[-1]
    assert again.ids.tolist() == first.ids.tolist()


def test_another_corpus_or_tokenizer_is_another_shard(tmp_path):
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build

    tokenizer = tiny_tokenizer()
    bare = build(
        [*TEXTS, *["user", "assistant", "system", "tool"] * 50],
        BPEConfig(vocab_size=400, leading_space=False),
    )
    one = corpus_of(tmp_path / "a")
    keys = {
        token_store.key(one, tokenizer),
        token_store.key(corpus_of(tmp_path / "b", [*WORDS[:-1], "changed"]), tokenizer),
        token_store.key(one, bare),
        token_store.key(one, build(TEXTS, BPEConfig(vocab_size=380))),
    }
    assert len(keys) == 4
    corpus_of(tmp_path / "a", [*WORDS[:-1], "changed"])  # in place: the same path and fingerprint
    assert token_store.key(one, tokenizer) == token_store.key(
        Artifact("b", "corpus", tmp_path / "b", ""), tokenizer
    )


def test_digests_of_the_record_are_used_where_they_fit(tmp_path):
    corpus = corpus_of(tmp_path / "c")
    read = token_store.corpus_digests(corpus)
    noted = {name: [size, "noted"] for name, size, _ in read}
    record = {"key": corpus.path.name, "files": noted}
    tables.write_json(corpus.path / "record.json", record)
    assert all(digest == "noted" for _, _, digest in token_store.corpus_digests(corpus))
    tables.write_json(
        corpus.path / "record.json",
        record | {"files": {name: [size + 1, "noted"] for name, size, _ in read}},
    )
    assert token_store.corpus_digests(corpus) == read
    # A copy of a folder of the store may have been edited since.
    tables.write_json(corpus.path / "record.json", record | {"key": "corpus-0123456789"})
    assert token_store.corpus_digests(corpus) == read


@pytest.mark.parametrize(
    "harm, why",
    [
        (lambda data: data[:-3], "bytes, recorded"),
        (lambda data: bytes([data[0] ^ 4]) + data[1:], "SHA-256 differs"),
    ],
)
def test_a_damaged_shard_is_named_and_made_again(tmp_path, calls, harm, why):
    ctx, log = context(tmp_path)
    corpus = corpus_of(tmp_path / "c")
    ids = token_store.tokens(ctx, corpus, tiny_tokenizer()).ids.tolist()
    path = next((tmp_path / "cache").glob("tokens-*/tokens.bin"))
    path.write_bytes(harm(path.read_bytes()))
    assert token_store.tokens(ctx, corpus, tiny_tokenizer()).ids.tolist() == ids
    assert len(calls) == 2 * len(WORDS)
    assert log[1].startswith(f"cache: {path.parent.name}/tokens.bin")
    assert why in log[1]
    assert log[1].endswith("made again")
    assert "encoded" in log[2]


def test_large_vocabularies_take_four_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(token_store, "id_type", lambda tokenizer: "<u4")
    ctx, _ = context(tmp_path)
    shard = token_store.tokens(ctx, corpus_of(tmp_path / "c"), tiny_tokenizer())
    assert shard.ids.dtype == np.uint32
    assert shard.ids.tolist() == [
        t for ids in chat_format.encode_texts(tiny_tokenizer(), WORDS) for t in ids
    ]
    monkeypatch.undo()

    class Large:
        def __len__(self):
            return 10

        def get_vocab(self):
            return {"far": 1 << 16}

    assert token_store.id_type(Large()) == "<u4"
    assert token_store.id_type(tiny_tokenizer()) == "<u2"


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_nothing_is_a_shard_too(tmp_path, texts):
    ctx, _ = context(tmp_path)
    folder = tmp_path / "c"
    folder.mkdir()
    tables.save(
        [{"id": "i", "url": "u", "text": t} for t in texts], folder / "data", ("id", "url", "text")
    )
    tokenizer = tiny_tokenizer()
    shard = token_store.tokens(ctx, Artifact("corpus", "corpus", folder, ""), tokenizer)
    assert len(shard) == len(texts)
    assert not len(shard.ids)
    assert shard.starts.tolist() == [0] * (len(texts) + 1)


MEASURE = """
import sys
from itertools import pairwise
from pathlib import Path
from llmstages.core.stage import Artifact, Context
from llmstages.data import token_store
from llmstages.train.trainer import load_tokenizer

def peak():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024

folder = Path(sys.argv[1])
tokenizer = load_tokenizer(folder / "tokenizer")
corpus = Artifact("corpus", "corpus", folder / "corpus", "")
before = peak()
token_store.tokens(Context("pretrain", folder, folder, {}), corpus, tokenizer)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_stays_flat_over_a_corpus_of_200_mb(tmp_path):
    import datasets
    import pyarrow as pa

    long = " ".join(TEXTS)
    texts = [f"{i} {long[: 500 + i * 37 % 20_000]}" for i in range(200_000) if i % 8 == 0]
    texts = texts * (1 + 200_000_000 // sum(map(len, texts)))
    total = 0
    used = []
    for text in texts:
        total += len(text)
        used.append(text)
        if total >= 200_000_000:
            break
    tables.save(
        datasets.Dataset(pa.table({"text": pa.array(used, "large_string")})),
        tmp_path / "corpus" / "data",
    )
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-500:]
    # The text is mapped, so it counts although the system may take it back. Lists of the ids
    # would take 5 GB and more.
    assert total >= 200_000_000
    assert int(done.stdout.split()[-1]) < 200 + 900
