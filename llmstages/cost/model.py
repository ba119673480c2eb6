"""How large a decoder is, and what training it takes: parameters and FLOPs.

This is arithmetic alone; nothing heavy is imported. Parameters are exact for the architectures of
LAYERS. FLOPs are those of matrix products: 6 N per token, and 12 L H Q T for attention (Chowdhery
et al. 2022, PaLM, appendix B; N as in Hoffmann et al. 2022, but without embeddings that are only
looked up). Memory is in memory.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# FineWeb-Edu's sample-10BT has 10 B GPT-2 tokens in 9.7 M documents.
TOKENS_PER_DOCUMENT = 1000
LAYERS = ("llama", "qwen2", "gpt2")  # architectures whose layers are known here
# What transformers takes where config.json does not say whether embeddings are tied.
TIED_BY_DEFAULT = {"llama": False, "qwen2": False, "gpt2": True}


@dataclass(frozen=True)
class Model:
    """A decoder by its sizes.

    Attributes:
        architecture: one of LAYERS.
        vocab: entries of the vocabulary.
        hidden, intermediate: widths of the residual stream and of the feed-forward layer.
        num_key_value_heads: 0 for as many as heads.
        head_size: width of one head; 0 for hidden / heads.
        positions: learned positions (gpt2).
        tied: the input and the output embedding are the same matrix.
        bias: the attention of llama has biases (attention_bias).
    """

    architecture: str
    vocab: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    num_key_value_heads: int = 0
    head_size: int = 0
    positions: int = 0
    tied: bool = True
    bias: bool = False

    @property
    def attention(self) -> int:
        """Width of all heads together."""
        return self.heads * (self.head_size or self.hidden // self.heads)

    @property
    def key_value(self) -> int:
        """Width of the keys of all their heads together, and of the values."""
        return self.attention * (self.num_key_value_heads or self.heads) // self.heads

    def linears(self) -> Iterator[tuple[int, int, bool]]:
        """(inputs, outputs, whether it has a bias) of each matrix of one layer."""
        hidden, attention, intermediate = self.hidden, self.attention, self.intermediate
        if self.architecture == "gpt2":
            yield hidden, 3 * hidden, True
            yield hidden, hidden, True
            yield hidden, intermediate, True
            yield intermediate, hidden, True
            return
        key_value = self.key_value
        has_bias = self.bias or self.architecture == "qwen2"
        yield hidden, attention, has_bias
        yield hidden, key_value, has_bias
        yield hidden, key_value, has_bias
        yield attention, hidden, self.bias and self.architecture == "llama"
        # SwiGLU: gate, up, down
        yield hidden, intermediate, False
        yield hidden, intermediate, False
        yield intermediate, hidden, False

    def parameters(self) -> int:
        """Parameters as num_parameters() of transformers counts them: tied embeddings once."""
        # There are two norms in a layer and one at the end. LayerNorm has a bias, RMSNorm has none.
        vectors_per_norm = 2 if self.architecture == "gpt2" else 1
        norm = vectors_per_norm * self.hidden
        layer = 2 * norm
        for inputs, outputs, has_bias in self.linears():
            layer += inputs * outputs
            if has_bias:
                layer += outputs
        embeddings = self.vocab * self.hidden
        if not self.tied:
            embeddings *= 2
        return embeddings + self.positions * self.hidden + self.layers * layer + norm

    def multiplied(self) -> int:
        """Parameters that a token is multiplied with: all but embeddings that are looked up."""
        looked_up = self.positions * self.hidden
        if not self.tied:
            looked_up += self.vocab * self.hidden
        return self.parameters() - looked_up

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA adapters on all matrices of the layers (Hu et al. 2021)."""
        return self.layers * sum(rank * (inputs + outputs) for inputs, outputs, _ in self.linears())

    def flops(self, length: int) -> float:
        """FLOPs of the forward and backward pass for each token of a row of ``length`` tokens.

        Attention is counted in full, as PaLM does, whether or not a mask hides half of it.
        """
        return 6 * self.multiplied() + 12 * self.layers * self.attention * length


def model_from_config(config: Mapping[str, Any]) -> Model | None:
    """The model of a config.json as transformers writes it; None if its layers are not known."""
    architecture = str(config.get("model_type"))
    has_unknown_parts = config.get("mlp_bias") or config.get("add_cross_attention")
    if architecture not in LAYERS or has_unknown_parts:
        return None
    tied = bool(config.get("tie_word_embeddings", TIED_BY_DEFAULT[architecture]))
    if architecture == "gpt2":
        return Model(
            architecture,
            vocab=config["vocab_size"],
            hidden=config["n_embd"],
            layers=config["n_layer"],
            heads=config["n_head"],
            intermediate=config.get("n_inner") or 4 * config["n_embd"],
            positions=config["n_positions"],
            tied=tied,
        )
    return Model(
        architecture,
        vocab=config["vocab_size"],
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        intermediate=config["intermediate_size"],
        num_key_value_heads=config.get("num_key_value_heads") or 0,
        head_size=config.get("head_dim") or 0,
        tied=tied,
        bias=bool(config.get("attention_bias", False)),
    )


@dataclass(frozen=True)
class Training:
    """What a stage trains, as far as it is known before it runs.

    It is the ``training`` of a stage's estimate() (core/stage.py).

    Attributes:
        max_length: tokens in a row.
        batch_size: rows in one optimizer step over all processes.
        rows: rows trained on in all, every pass counted; None: not known yet.
        micro_batch_size: rows that each process computes at once; 0: its whole part of a batch.
        eval_rows: rows evaluated at once; 0: nothing is evaluated.
        adapters: parameters that are trained, if it is not all of them.
        has_reference: a frozen model reads every row too, without training.
        has_critic: a copy of all layers is trained beside the model, whole.
        because: where ``rows`` comes from, or what it waits for.
    """

    model: Model
    max_length: int
    batch_size: int
    rows: float | None = None
    micro_batch_size: int = 0
    eval_rows: int = 0
    bf16: bool = False
    adapters: int = 0
    has_reference: bool = False
    has_critic: bool = False
    because: str = ""

    def updates(self) -> int | None:
        """Optimizer steps."""
        if self.rows is None:
            return None
        return math.ceil(self.rows / self.batch_size)

    def tokens(self) -> int | None:
        """Tokens computed in whole batches, padding included."""
        updates = self.updates()
        if updates is None:
            return None
        return updates * self.batch_size * self.max_length

    def flops(self) -> float | None:
        """FLOPs of all optimizer steps."""
        tokens = self.tokens()
        if tokens is None:
            return None
        # Forward pass, gradients of the activations, and those of the weights: a third each. With
        # adapters the last is not computed; a reference is one more forward pass.
        thirds = 2 if self.adapters else 3
        if self.has_reference:
            thirds += 1
        if self.has_critic:
            thirds += 3
        return tokens * self.model.flops(self.max_length) * thirds / 3

    def rows_at_once(self, processes: int) -> int:
        """Rows that each process computes at once."""
        return self.micro_batch_size or max(1, self.batch_size // processes)

    def trained(self) -> int:
        """Parameters that are trained."""
        critic = self.model.parameters() if self.has_critic else 0
        return (self.adapters or self.model.parameters()) + critic


def tokenizer_facts(folder: Path) -> dict[str, str]:
    """``tokenizer_folder``, if tokens can be counted with the tokenizer in a folder."""
    return {"tokenizer_folder": str(folder)} if (folder / "tokenizer.json").is_file() else {}


def bytes_per_token(tokenizer: Mapping[str, Any]) -> float:
    """Bytes of English text per token.

    As the step of the tokenizer measured it; otherwise 0.28 log2(entries), a rule of thumb (2.8 for
    1024 entries, 4.4 for 50257).
    """
    return tokenizer.get("bytes_per_token") or 0.28 * math.log2(tokenizer["vocab_size"])


def text_tokens(
    sources: Sequence[Mapping[str, Any]], weights: Mapping[str, float], tokenizer: Mapping[str, Any]
) -> tuple[float | None, str]:
    """(tokens of all sources, how they were counted), or (None, what they wait for).

    A source is counted from its ``characters`` or the ``bytes`` of its table if it has been made,
    otherwise from its ``documents``.

    Args:
        sources: facts about each source, as estimate() takes them.
        weights: name of a source -> how often it is taken.
        tokenizer: facts with ``bytes_per_token`` or ``vocab_size``.
    """
    if not sources:
        return None, "no source of text is wired in"
    total = 0.0
    reasons = []
    for facts in sources:
        name = facts["name"]
        weight = weights.get(name, 1.0)
        size = facts.get("characters") or facts.get("bytes")
        documents = facts.get("documents")
        if size:
            total += weight * size / bytes_per_token(tokenizer)
            reasons.append(f"{name} has {size / 1e6:.3g} MB")
        elif documents:
            total += weight * documents * TOKENS_PER_DOCUMENT
            reasons.append(
                f"{name} at most {documents:,} documents, of about {TOKENS_PER_DOCUMENT} tokens"
            )
        else:
            return None, f"known once {name} is made"
    return total, ", ".join(reasons)
