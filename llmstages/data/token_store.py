"""The tokens of a corpus on disk: encoded once for each tokenizer, memory-mapped by every step that trains on them.

A shard is three files in the cache of the store (cache.py): ``tokens.bin``, the ids of all documents one after the other
without BOS, uint16 where the vocabulary fits and else uint32; ``starts.npy``, where each document begins, and the end;
``same.npy``, the first document of equal text. Its key is the content of the corpus, what of the tokenizer decides ids,
and FORMAT; no path and no step name enters, so any step, model or run with the same two reads the same shard.
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

FORMAT = "1"  # bump when an equal corpus and tokenizer give other files: a change below, or of ids by chat.encode_texts
BATCH = 4_000_000  # characters encoded in one call: enough for all cores, and some hundred MB of ids as Python lists


@dataclass(frozen=True, eq=False)
class Shard:
    """Document i is ids[starts[i] : starts[i + 1]]; same[i] is the first document whose text equals its own."""

    ids: Any
    starts: Any
    same: Any

    def __len__(self) -> int:
        return len(self.same)


def tokens(ctx: Context, corpus: Artifact, tokenizer: Any) -> Shard:
    """The shard of a corpus, from the cache or made now; a line says which."""
    took: list[tuple[int, float]] = []

    def make(folder: Path) -> None:
        start = time.perf_counter()
        took.append(
            (
                encode_corpus(folder, tables.load(corpus.path / "data"), tokenizer, ctx.progress),
                time.perf_counter() - start,
            )
        )

    shard = load(ctx.cached(key(corpus, tokenizer), make), wide(tokenizer))
    if took:
        ctx.say(
            f"tokens: encoded {took[0][0] / 1e6:.1f} MB of {corpus.name} in {took[0][1]:.1f} s, {_millions(shard)} (cached)"
        )
    else:
        ctx.say(
            f"tokens: reused {_millions(shard)} of {corpus.name} (cached)"
        )  # made before, or just now by another process
    return shard


def _millions(shard: Shard) -> str:
    return f"{len(shard.ids) / 1e6:.2f} M tokens"


def load(folder: Path, dtype: str) -> Shard:
    """A shard as memory maps: opening it reads nothing."""
    import numpy as np

    path = folder / "tokens.bin"
    ids = (
        np.memmap(path, dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)
    )  # nothing cannot be mapped
    return Shard(
        ids, *(np.load(folder / name, mmap_mode="r") for name in ("starts.npy", "same.npy"))
    )


def wide(tokenizer: Any) -> str:
    """The smallest of two types that holds every id."""
    return "<u2" if max(len(tokenizer), *tokenizer.get_vocab().values()) < 1 << 16 else "<u4"


def key(corpus: Artifact, tokenizer: Any) -> str:
    """Name of the shard, from all that its bytes follow from."""
    return "tokens-" + sha256(canonical([FORMAT, content(corpus), spelling(tokenizer)]))[:20]


def content(corpus: Artifact) -> list[list[Any]]:
    """[name, size, SHA-256] of the table's files: from the record where the store wrote one (gigabytes are not read again), else read.

    Not the artifact's fingerprint: that of a folder from elsewhere says where it lies, not what is in it.
    """
    files = sorted(path for path in (corpus.path / "data").rglob("*") if path.is_file())
    record, known = corpus.path / "record.json", {}
    if record.exists():
        known = json.loads(record.read_text(encoding="utf-8")).get("files", {})
    out = []
    for path in files:
        name, size = path.relative_to(corpus.path).as_posix(), path.stat().st_size
        noted = known.get(name, [None, None])
        out.append([name, size, noted[1] if noted[0] == size else sha256_file(path)])
    return out


def spelling(tokenizer: Any) -> str:
    """Digest of what decides ids: the engine with its vocabulary, our leading space, the library. Names, paths and templates stay out."""
    engine = getattr(tokenizer, "backend_tokenizer", None)
    if engine is not None:
        how: Any = json.loads(engine.to_str())
        how |= {"padding": None, "truncation": None}  # set by the last call, whatever it was
    else:  # a tokenizer in Python: its own files
        with tempfile.TemporaryDirectory() as folder:
            how = [
                [Path(path).name, sha256_file(Path(path))]
                for path in sorted(tokenizer.save_pretrained(folder))
            ]
    return sha256(
        canonical(
            [how, bool(tokenizer.init_kwargs.get("leading_space")), metadata.version("tokenizers")]
        )
    )


def encode_corpus(
    folder: Path, table: Any, tokenizer: Any, progress: Callable[[str, float | None], Any]
) -> int:
    """Write the shard of a table, batch by batch, so that memory does not grow with it; returns the bytes of text read."""
    import numpy as np

    starts, prints, size, dtype = array("q", [0]), bytearray(), 0, wide(tokenizer)
    with open(folder / "tokens.bin", "wb") as stream, progress("tokens", len(table)) as advance:
        for texts in _batches(table):
            rows = [
                np.asarray(ids, dtype)
                for ids in encode.encode_rows(tokenizer, chat_format.spaced(tokenizer, texts))
            ]
            stream.write(
                np.concatenate(rows).data
            )  # not tofile(): of a full disk it says only that bytes are missing
            for text, row in zip(texts, rows, strict=True):
                raw = text.encode("utf-8", "surrogatepass")
                size += len(raw)
                prints += blake2b(raw, digest_size=16).digest()
                starts.append(starts[-1] + len(row))
            advance(len(texts), f"{starts[-1] / 1e6:.1f} M")
    _save(folder / "starts.npy", np.frombuffer(starts, np.int64))
    _save(folder / "same.npy", _same(np.frombuffer(prints, np.uint64).reshape(-1, 2)))
    return size


def _save(path: Path, values: Any) -> None:
    """np.save, without its tofile()."""
    from numpy.lib import format as npy

    with open(path, "wb") as stream:
        npy.write_array_header_1_0(stream, npy.header_data_from_array_1_0(values))
        stream.write(values.data)


def _batches(table: Any) -> Iterator[list[str]]:
    """The texts in order, BATCH characters at a time; a longer text is a batch of its own."""
    batch, held = [], 0
    for some in table.select_columns(["text"]).iter(64):
        for text in some["text"]:
            if batch and held + len(text) > BATCH:
                yield batch
                batch, held = [], 0
            batch.append(text)
            held += len(text)
    if batch:
        yield batch


def _same(prints: Any) -> Any:
    """For each row the index of the first equal row. Prints of 128 bits: two different texts do not meet."""
    import numpy as np

    order = np.lexsort((prints[:, 1], prints[:, 0]))  # stable, so the first of equals comes first
    ordered = prints[order]
    new = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])[: len(order)]
    same = np.empty(len(order), np.int64)
    same[order] = order[new][np.cumsum(new) - 1]
    return same
