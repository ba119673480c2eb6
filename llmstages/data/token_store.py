"""The tokens of a corpus on disk, encoded once per tokenizer and memory-mapped by every step.

A shard is three files in the cache of the store (core/cache.py):

- ``tokens.bin``: the ids of all documents, one after the other, without BOS; uint16 if the
  vocabulary fits, else uint32;
- ``starts.npy``: where each document begins, and the end of the last one;
- ``same.npy``: for each document the first document with equal text.

Its key follows from the content of the corpus, from everything in the tokenizer that decides ids,
and from FORMAT. It holds no path and no step name, so all steps, models and runs with the same
corpus and tokenizer share one shard.
"""

from __future__ import annotations

import json
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any

from llmstages.core.digest import canonical, sha256, sha256_file
from llmstages.core.stage import Artifact, Context
from llmstages.data import tables
from llmstages.text import chat_format, encode

# Raise it when an equal corpus and tokenizer give other files: after a change in this module, or
# of the ids that chat_format.encode_texts gives.
FORMAT = "1"

# Characters encoded in one call: enough work for all cores. The ids of a batch are Python lists
# and take some hundred megabytes.
BATCH = 4_000_000


@dataclass(frozen=True, eq=False)
class Shard:
    """The tokens of a corpus. Document i is ``ids[starts[i] : starts[i + 1]]``.

    ``same[i]`` is the index of the first document whose text equals that of document i.
    """

    ids: Any
    starts: Any
    same: Any

    def __len__(self) -> int:
        return len(self.same)


def tokens(ctx: Context, corpus: Artifact, tokenizer: Any) -> Shard:
    """The shard of a corpus, from the cache or encoded now; a message says which."""
    encoded: list[str] = []

    def make(folder: Path) -> None:
        start = time.perf_counter()
        table = tables.load(corpus.path / "data")
        size = encode_corpus(folder, table, tokenizer, ctx.progress)
        seconds = time.perf_counter() - start
        encoded.append(f"encoded {size / 1e6:.1f} MB of {corpus.name} in {seconds:.1f} s,")

    folder = ctx.cached(key(corpus, tokenizer), make)
    shard = load(folder, id_type(tokenizer))
    count = f"{len(shard.ids) / 1e6:.2f} M tokens"
    if encoded:
        ctx.say(f"tokens: {encoded[0]} {count} (cached)")
    else:
        # Encoded in an earlier run, or by another process while this one waited.
        ctx.say(f"tokens: reused {count} of {corpus.name} (cached)")
    return shard


def load(folder: Path, dtype: str) -> Shard:
    """A shard as memory maps. Opening it reads no tokens."""
    import numpy as np

    path = folder / "tokens.bin"
    if path.stat().st_size:
        ids = np.memmap(path, dtype, mode="r")
    else:
        # An empty file cannot be mapped.
        ids = np.zeros(0, dtype)
    starts = np.load(folder / "starts.npy", mmap_mode="r")
    same = np.load(folder / "same.npy", mmap_mode="r")
    return Shard(ids, starts, same)


def id_type(tokenizer: Any) -> str:
    """The smaller of two integer types that holds every id of a tokenizer, as numpy spells it."""
    largest = max(len(tokenizer), *tokenizer.get_vocab().values())
    return "<u2" if largest < 1 << 16 else "<u4"


def key(corpus: Artifact, tokenizer: Any) -> str:
    """The name of a shard: a digest of everything that its bytes follow from."""
    parts = [FORMAT, corpus_digests(corpus), tokenizer_digest(tokenizer)]
    return "tokens-" + sha256(canonical(parts))[:20]


def corpus_digests(corpus: Artifact) -> list[list[Any]]:
    """[name, size in bytes, SHA-256] of each file of the corpus table.

    The digests come from the record where the folder lies in the store under its own key, so that
    gigabytes are not read again. A copy of such a folder may have been edited since. The
    fingerprint of the artifact does not help: that of a folder from outside the store names its
    place, not its content.
    """
    recorded = {}
    record_file = corpus.path / "record.json"
    if record_file.exists():
        record = json.loads(record_file.read_text(encoding="utf-8"))
        if record.get("key") == corpus.path.resolve().name:
            recorded = record.get("files", {})
    digests = []
    for path in sorted((corpus.path / "data").rglob("*")):
        if not path.is_file():
            continue
        name = path.relative_to(corpus.path).as_posix()
        size = path.stat().st_size
        recorded_size, digest = recorded.get(name, [None, None])
        if recorded_size != size:
            digest = sha256_file(path)
        digests.append([name, size, digest])
    return digests


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of what decides ids: engine, vocabulary, leading space and library version.

    Names, paths and chat templates do not enter.
    """
    engine = getattr(tokenizer, "backend_tokenizer", None)
    if engine is not None:
        definition: Any = json.loads(engine.to_str())
        # The last call of the tokenizer leaves its padding and truncation in the engine.
        definition |= {"padding": None, "truncation": None}
    else:
        # A tokenizer written in Python has no engine; its own files define it.
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(path) for path in sorted(tokenizer.save_pretrained(folder))]
            definition = [[path.name, sha256_file(path)] for path in paths]
    leading_space = "each text" if tokenizer.init_kwargs.get("leading_space") else ""
    return sha256(canonical([definition, leading_space, metadata.version("tokenizers")]))


def encode_corpus(
    folder: Path, table: Any, tokenizer: Any, progress: Callable[[str, float | None], Any]
) -> int:
    """Write the shard of a table and return the bytes of text that were read.

    Works batch by batch: memory grows by 24 bytes per document, not with its tokens.
    """
    import numpy as np

    dtype = id_type(tokenizer)
    starts = array("q", [0])
    digests = bytearray()
    size = 0
    with (folder / "tokens.bin").open("wb") as stream, progress("tokens", len(table)) as advance:
        for texts in _batches(table):
            spaced = chat_format.spaced(tokenizer, texts)
            rows = [np.asarray(ids, dtype) for ids in encode.encode_rows(tokenizer, spaced)]
            # Not tofile(): on a full disk it reports only that bytes are missing.
            stream.write(np.concatenate(rows).data)
            for text, row in zip(texts, rows, strict=True):
                raw = text.encode("utf-8", "surrogatepass")
                size += len(raw)
                digests += blake2b(raw, digest_size=16).digest()
                starts.append(starts[-1] + len(row))
            advance(len(texts), f"{starts[-1] / 1e6:.1f} M")
    _save_array(folder / "starts.npy", np.frombuffer(starts, np.int64))
    same = _first_equal(np.frombuffer(digests, np.uint64).reshape(-1, 2))
    _save_array(folder / "same.npy", same)
    return size


def _save_array(path: Path, values: Any) -> None:
    """np.save without its tofile(); see encode_corpus."""
    from numpy.lib import format as npy

    with path.open("wb") as stream:
        npy.write_array_header_1_0(stream, npy.header_data_from_array_1_0(values))
        stream.write(values.data)


def _batches(table: Any) -> Iterator[list[str]]:
    """The texts in order, BATCH characters at a time. A longer text is a batch of its own."""
    batch: list[str] = []
    characters = 0
    for rows in table.select_columns(["text"]).iter(64):
        for text in rows["text"]:
            if batch and characters + len(text) > BATCH:
                yield batch
                batch = []
                characters = 0
            batch.append(text)
            characters += len(text)
    if batch:
        yield batch


def _first_equal(digests: Any) -> Any:
    """For each row the index of the first equal row.

    digests: (n, 2) uint64, 128 bits per text, so two different texts do not collide.
    """
    import numpy as np

    # lexsort is stable, so the first of equal rows comes first.
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    differs = (ordered[1:] != ordered[:-1]).any(axis=1)
    is_first = np.concatenate([[True], differs])[: len(order)]
    group = np.cumsum(is_first) - 1
    same = np.empty(len(order), np.int64)
    same[order] = order[is_first][group]
    return same
