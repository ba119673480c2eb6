"""The header of a GGUF file: its metadata and its table of tensors, without any weight.

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: magic, version, counts,
then key-value pairs, then name, shape, type and offset of each tensor, then the aligned data. This
reader needs the standard library alone, so that ``llmstages plan`` can look at a file.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from llmstages.core.errors import StageError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
STRING, ARRAY = 8, 9
# Value type of the metadata -> its format in the module struct.
NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
# Limits that no real file reaches: a damaged length must not make us read gigabytes.
MAX_STRING = 64_000_000
MAX_ITEMS = 100_000_000
MAX_DIMENSIONS = 8
ROPE_FACTORS = "rope_freqs.weight"  # a table, not a parameter


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as the header describes it.

    Attributes:
        name: as in the file, such as ``blk.0.attn_q.weight``.
        shape: in the order of PyTorch (the file has the reverse).
        type: number of the ggml type; 0 is float32.
        offset: in bytes from the beginning of the data.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What stands before the weights of a GGUF file.

    Attributes:
        metadata: key -> value; an array is a list.
        tensors: name -> tensor.
        data_start: where the data begins, in bytes from the beginning of the file.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    data_start: int

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"])

    def of_architecture(self, key: str, default: Any = None) -> Any:
        """A value of the model's own section: ``context_length`` is ``llama.context_length``."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    @property
    def tokens(self) -> list[str]:
        return self.metadata.get("tokenizer.ggml.tokens", [])

    @property
    def parameters(self) -> int:
        return sum(info.elements for info in self.tensors.values() if info.name != ROPE_FACTORS)


class _Truncated(Exception):
    """The file ended inside its header."""


class _Reader:
    """Numbers and strings one after the other; the format is little-endian."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream = stream
        self._path = path

    @property
    def position(self) -> int:
        return self._stream.tell()

    def raw(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise _Truncated
        return data

    def numbers(self, kind: str, count: int = 1) -> tuple[Any, ...]:
        layout = f"<{count}{kind}"
        return struct.unpack(layout, self.raw(struct.calcsize(layout)))

    def number(self, kind: str) -> Any:
        return self.numbers(kind)[0]

    def string(self) -> str:
        length = self.number("Q")
        self._limit(length, MAX_STRING, "a string")
        return self.raw(length).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise StageError(
                f"{self._path} has metadata of type {kind}, which GGUF does not define: the file "
                "is damaged. Download it again"
            )
        item_kind, count = self.number("I"), self.number("Q")
        self._limit(count, MAX_ITEMS, "an array")
        if item_kind in NUMBERS:
            return list(self.numbers(NUMBERS[item_kind], count))
        return [self.value(item_kind) for _ in range(count)]

    def tensor(self) -> TensorInfo:
        name = self.string()
        dimensions = self.number("I")
        self._limit(dimensions, MAX_DIMENSIONS, "a shape")
        shape = tuple(reversed(self.numbers("Q", dimensions)))
        return TensorInfo(name, shape, self.number("I"), self.number("Q"))

    def _limit(self, count: int, most: int, what: str) -> None:
        if count > most:
            raise StageError(
                f"{self._path} says that {what} has {count} items: the file is damaged. "
                "Download it again"
            )


def read_header(file: Path) -> Header:
    """The header of a GGUF file.

    Raises:
        StageError: there is no such file; it is not GGUF, of an unknown version, truncated,
            damaged, or one part of a model that is split over several files.
    """
    if not file.is_file():
        raise StageError(f"there is no file {file}; a GGUF file ends in .gguf")
    try:
        with file.open("rb") as stream:
            header = _read(_Reader(stream, file), file)
    except _Truncated:
        raise StageError(_truncated(file, "its header is incomplete")) from None
    _refuse_parts(header)
    size = file.stat().st_size
    last = max((info.offset for info in header.tensors.values()), default=0)
    if header.data_start + last >= size:
        raise StageError(_truncated(file, f"its weights begin after its {size} bytes"))
    return header


def _read(reader: _Reader, file: Path) -> Header:
    if reader.raw(len(MAGIC)) != MAGIC:
        raise StageError(
            f"{file} is not a GGUF file: it does not begin with {MAGIC.decode()}. A Hugging Face "
            "model is given as its folder"
        )
    version = reader.number("I")
    if version not in VERSIONS:
        raise StageError(
            f"{file} has GGUF version {version}; versions {VERSIONS[0]} and {VERSIONS[1]} "
            "(little-endian) can be read. Convert the original model again with a current "
            "llama.cpp"
        )
    tensor_count, value_count = reader.numbers("Q", 2)
    metadata: dict[str, Any] = {}
    for _ in range(value_count):
        key = reader.string()
        metadata[key] = reader.value(reader.number("I"))
    tensors: dict[str, TensorInfo] = {}
    for _ in range(tensor_count):
        info = reader.tensor()
        tensors[info.name] = info
    if "general.architecture" not in metadata:
        raise StageError(
            f"{file} does not say its architecture (general.architecture): it is not a model, or "
            "it was written by a program that leaves this out"
        )
    alignment = metadata.get("general.alignment") or DEFAULT_ALIGNMENT
    data_start = math.ceil(reader.position / alignment) * alignment
    return Header(file, metadata, tensors, data_start)


def _refuse_parts(header: Header) -> None:
    parts = header.metadata.get("split.count", 0)
    if parts > 1:
        raise StageError(
            f"{header.path} is one of {parts} files of a model. Join them first: "
            f"llama-gguf-split --merge {header.path.name} MODEL.gguf (a program of llama.cpp), "
            "with the first file as the argument"
        )
    if not header.tensors:
        raise StageError(f"{header.path} contains no weights, only a vocabulary")


def _truncated(file: Path, what: str) -> str:
    return f"{file} is truncated: {what}. Download it again"


def gguf_facts(file: Path) -> dict[str, Any]:
    """What the header of a GGUF file says about its model. Light: no weight is read, no torch.

    Returns:
        architecture (llama, qwen2, ...), parameters (number of weights), context (longest sequence
        in tokens, 0 if the file does not say), vocab_size (entries), chat_template (whether there
        is one).

    Raises:
        StageError: as read_header().
    """
    header = read_header(file)
    vocab_size = header.of_architecture("vocab_size") or len(header.tokens)
    return {
        "architecture": header.architecture,
        "parameters": header.parameters,
        "context": int(header.of_architecture("context_length", 0)),
        "vocab_size": int(vocab_size),
        "chat_template": bool(header.metadata.get("tokenizer.chat_template")),
    }
