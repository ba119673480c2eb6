"""Weights between Hugging Face and GGUF: names, the order of rotary rows, Llama 3's rope factors.

llama.cpp rotates neighboring rows of q and k for the architecture llama, transformers rows that are
half a head apart. So the rows of q and k, of weights and of biases, are reordered. Architectures
without this (qwen2, qwen3) are only renamed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError

# Architecture of GGUF -> whether the rows of q and k are reordered. Every weight of these is known
# here, so that their values can be compared.
KNOWN = {"llama": True, "qwen2": False, "qwen3": False}
INSTALL = "pip install 'llmstages[gguf]'"


def require_gguf() -> Any:
    """The package gguf.

    Raises:
        StageError: it is not installed.
    """
    try:
        import gguf
    except ModuleNotFoundError:
        raise StageError(
            f"the weights of a GGUF file need the package gguf, which is not installed: {INSTALL}"
        ) from None
    return gguf


def hf_names(architecture: str, layers: int, names: Any) -> dict[str, str]:
    """Name in a GGUF file -> name in transformers, for the given names of transformers.

    Raises:
        StageError: the architecture has no place for one of the names.
    """
    gguf = require_gguf()
    arch = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    table = gguf.get_tensor_name_map(arch, layers)
    mapped = {}
    unknown = []
    for name in names:
        gguf_name = table.get_name(name, try_suffixes=(".weight", ".bias"))
        if gguf_name is None:
            unknown.append(name)
        else:
            mapped[gguf_name] = name
    if unknown:
        raise StageError(
            f"GGUF's architecture {architecture} has no place for {len(unknown)} weights: "
            f"{', '.join(unknown[:5])}"
        )
    return mapped


def rotary_heads(architecture: str, name: str, config: Any) -> int:
    """The heads whose rows are reordered in a weight of this name of transformers; 0 for none."""
    if not KNOWN[architecture]:
        return 0
    if ".q_proj." in name:
        return config.num_attention_heads
    if ".k_proj." in name:
        return config.num_key_value_heads
    return 0


def to_pairs(weight: Any, heads: int) -> Any:
    """Rows of q or k in the order of llama.cpp: the halves of each head interleaved."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def to_halves(weight: Any, heads: int) -> Any:
    """The reverse of to_pairs()."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, half, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


@dataclass(frozen=True)
class Llama3Rope:
    """The scaling of Llama 3.1's rotary frequencies (transformers' rope_type "llama3")."""

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def parameters(self) -> dict[str, Any]:
        """As in ``config.rope_parameters``."""
        return {"rope_type": "llama3", **vars(self)}

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Llama3Rope:
        """From ``config.rope_parameters``."""
        names = cls.__dataclass_fields__
        return cls(**{name: parameters[name] for name in names if name in parameters})

    def factors(self, theta: float, head_dim: int) -> list[float]:
        """What each frequency is divided by: head_dim / 2 numbers.

        Long waves by ``factor``, short ones by 1, those between by a mixture
        (transformers.modeling_rope_utils._compute_llama3_parameters; the table ``rope_freqs`` of
        llama.cpp).
        """
        context = self.original_max_position_embeddings
        longest = context / self.low_freq_factor
        shortest = context / self.high_freq_factor
        factors = []
        for index in range(0, head_dim, 2):
            wavelength = 2 * math.pi * theta ** (index / head_dim)
            if wavelength < shortest:
                factors.append(1.0)
            elif wavelength > longest:
                factors.append(self.factor)
            else:
                span = self.high_freq_factor - self.low_freq_factor
                smooth = (context / wavelength - self.low_freq_factor) / span
                factors.append(1 / ((1 - smooth) / self.factor + smooth))
        return factors
