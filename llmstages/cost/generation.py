"""What it takes to let models write: evaluation, probing, and the sampling of RL.

This is arithmetic alone; nothing heavy is imported. Reading or writing a token is a forward pass, a
third of the FLOPs of training on it (Kaplan et al. 2020, section 2.1: 2 N per token), at the share
of the peak that training is assumed to reach; a CPU reaches about that in batches
(benchmarks/generation.py). To this comes what Python and the dispatch of operations take for each
layer of each step, which is most of the time of small models and of GPUs. Left out: that a GPU
waits for its memory while it writes token by token. All replies are counted at their full length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.cost.model import Model

PROMPT_TOKENS = 64  # assumed of a prompt: the questions of GSM8K have about as many
# Of a layer of a llama in one step of transformers, beside its matrix products: measured on one
# core of an AMD EPYC with models of width 32 (8 and 24 layers, 1 and 8 prompts).
LAYER_SECONDS = 0.3e-3
SCORE_BYTES = 20  # of an entry of the vocabulary while a token is chosen (text/batching.py)
# Metrics and expectations that say how many rows a table of questions has, in this order
ROW_COUNTS = ("examples", "questions", "problems", "dialogues")


@dataclass(frozen=True)
class Generation:
    """What a stage lets models write, as far as it is known before it runs.

    It is the ``generation`` of a stage's estimate() (core/stage.py).

    Attributes:
        models: the models that write; each answers every prompt.
        prompts: replies of each model; every sample of a prompt counts.
        new_tokens: longest reply in tokens.
        batch: replies written at once.
        kept_bytes: weights that are kept beside the model that writes, such as a reference.
        because: where ``prompts`` comes from.
    """

    models: tuple[Model, ...]
    prompts: float
    new_tokens: int
    batch: int = 64
    kept_bytes: int = 0
    because: str = ""

    @property
    def length(self) -> int:
        """Tokens of a prompt and its reply."""
        return PROMPT_TOKENS + self.new_tokens

    def tokens(self) -> float:
        """Tokens written in all, at most."""
        return len(self.models) * self.prompts * self.new_tokens

    def flops(self) -> float:
        """FLOPs of reading all prompts and writing all replies, at most."""
        per_token = sum(model.flops(self.length) / 3 for model in self.models)
        return self.prompts * self.length * per_token

    def seconds(self, speed: float, processes: int = 1) -> float:
        """Time of all replies, at most.

        Args:
            speed: FLOP/s of one process.
            processes: the replies of a batch are shared by so many.
        """
        batches = math.ceil(self.prompts / (self.batch * processes))
        layers = sum(model.layers for model in self.models)
        dispatch = batches * self.new_tokens * layers * LAYER_SECONDS
        return self.flops() / (speed * processes) + dispatch

    def cache_bytes(self) -> int:
        """Keys, values and scores of a batch, for the model that needs most, in float32."""
        needed = [0]
        for model in self.models:
            cache = 2 * model.layers * model.key_value * self.length * 4
            needed.append(self.batch * (cache + SCORE_BYTES * model.vocab))
        return max(needed)

    def weight_bytes(self) -> int:
        """Weights of the largest model in float32; one is loaded at a time."""
        return 4 * max((model.parameters() for model in self.models), default=0)


def row_count(facts: Mapping[str, Any]) -> float | None:
    """How many rows a source has by its metrics, or None if it is not made yet."""
    for name in ROW_COUNTS:
        if facts.get(name):
            return facts[name]
    return None


def models_of(sources: Sequence[Mapping[str, Any]]) -> tuple[Model, ...] | str:
    """The models of all sources; or, where some are not known yet, what they wait for."""
    unknown = [facts["name"] for facts in sources if facts.get("model") is None]
    if unknown:
        return f"the sizes of the models are known once {', '.join(unknown)} is made"
    return tuple(facts["model"] for facts in sources)
