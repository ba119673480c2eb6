"""The weights of a Hugging Face folder, read one by one from its safetensors files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError

ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class WeightFiles:
    """Names, shapes and values of the weights of a folder; nothing is held in memory.

    Args:
        folder: with ``model.safetensors``, or several files and their index.

    Raises:
        StageError: there are no safetensors, or a file of the index is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file_of = self._find()
        self._open: dict[Path, Any] = {}

    def _find(self) -> dict[str, Path]:
        """Name of a weight -> its file."""
        if (self.folder / INDEX).is_file():
            index = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            return {name: self.folder / file for name, file in index["weight_map"].items()}
        file = self.folder / ONE_FILE
        if not file.is_file():
            raise StageError(
                f"{self.folder} has no weights in safetensors ({ONE_FILE} or {INDEX}). A folder "
                "with pytorch_model.bin becomes one with safetensors by "
                "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OTHER)"
            )
        return dict.fromkeys(opened(file).keys(), file)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        shapes = {}
        for name in self._file_of:
            shapes[name] = tuple(self._stream(name).get_slice(name).get_shape())
        return shapes

    def parameters(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    def read(self, name: str) -> Any:
        """One weight as a tensor of PyTorch."""
        return self._stream(name).get_tensor(name)

    def _stream(self, name: str) -> Any:
        file = self._file_of[name]
        if file not in self._open:
            self._open[file] = opened(file)
        return self._open[file]


def opened(file: Path) -> Any:
    """A safetensors file, of which nothing is read yet. Raises StageError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt")
    except FileNotFoundError as error:
        raise StageError(f"{file} is named by {INDEX}, but is not there") from error
    except SafetensorError as error:
        raise StageError(f"{file} cannot be read ({error}): it is damaged or truncated") from error
