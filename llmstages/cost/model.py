"""How large a decoder is, and what training it takes: parameters, memory, work. Arithmetic alone, nothing heavy is imported.

Parameters are exact for the architectures of LAYERS. Work is that of matrix products, 6 N a token and 12 L H Q T for
attention (Chowdhery et al. 2022, PaLM, appendix B; N as in Hoffmann et al. 2022, but without embeddings that are only
looked up). Memory counts the tensors that PyTorch keeps for the backward pass, one by one, as Korthikanti et al. 2022
do ("Reducing Activation Recomputation", section 4.1), for the modules of transformers with sdpa attention: their norms
are made of single operations that keep more than a fused kernel would. Sharding: Rajbhandari et al. 2020, ZeRO.

Left out on purpose: the process itself (0.5 GB with torch and transformers' Trainer imported, and what a CUDA context
takes), communication, and data. benchmarks/memory.py compares the estimate with what training takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DOCUMENT = 1000  # tokens in a document of the web: FineWeb-Edu's sample-10BT has 10 B GPT-2 tokens in 9.7 M documents
LAYERS = ("llama", "qwen2", "gpt2")  # architectures whose layers are known here
TIED = {
    "llama": False,
    "qwen2": False,
    "gpt2": True,
}  # what transformers takes where config.json does not say


@dataclass(frozen=True)
class Model:
    """A decoder by its sizes. vocab: entries; hidden, intermediate: widths; num_key_value_heads: 0 for as many as heads.

    positions: learned positions (gpt2). bias: whether llama's attention has biases (attention_bias).
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

    def linears(self) -> Iterator[tuple[int, int, bool]]:
        """(inputs, outputs, has a bias) of the matrices of one layer."""
        h, wide, inner = self.hidden, self.attention, self.intermediate
        if self.architecture == "gpt2":
            yield from ((h, 3 * h, True), (h, h, True), (h, inner, True), (inner, h, True))
            return
        narrow = wide * (self.num_key_value_heads or self.heads) // self.heads
        biased = self.bias or self.architecture == "qwen2"
        yield from (
            (h, wide, biased),
            (h, narrow, biased),
            (h, narrow, biased),
            (wide, h, self.bias and self.architecture == "llama"),
        )
        yield from (
            (h, inner, False),
            (h, inner, False),
            (inner, h, False),
        )  # SwiGLU: gate, up, down

    def parameters(self) -> int:
        """As transformers' num_parameters() counts: tied embeddings once."""
        norms = (
            4 if self.architecture == "gpt2" else 2
        )  # LayerNorm has a bias, RMSNorm has none; two a layer and one at the end
        layer = sum(i * o + o * bias for i, o, bias in self.linears()) + norms * self.hidden
        return (
            self.vocab * self.hidden * (1 if self.tied else 2)
            + self.positions * self.hidden
            + self.layers * layer
            + norms // 2 * self.hidden
        )

    def multiplied(self) -> int:
        """Parameters that a token is multiplied with: all but embeddings that are only looked up."""
        return (
            self.parameters()
            - self.positions * self.hidden
            - (0 if self.tied else self.vocab * self.hidden)
        )

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA adapters on all matrices of the layers (Hu et al. 2021)."""
        return self.layers * sum(rank * (i + o) for i, o, _ in self.linears())

    def flops(self, row: int) -> float:
        """Forward and backward, for each token in a row of ``row`` tokens. Attention is counted in full, as PaLM does, mask or not."""
        return 6 * self.multiplied() + 12 * self.layers * self.attention * row


def model_from_config(config: Mapping[str, Any]) -> Model | None:
    """The model of a config.json as transformers writes it; None where its layers are not known here."""
    kind = config.get("model_type")
    if kind not in LAYERS or config.get("mlp_bias") or config.get("add_cross_attention"):
        return None
    tied = bool(config.get("tie_word_embeddings", TIED[kind]))
    if kind == "gpt2":
        inner = config.get("n_inner") or 4 * config["n_embd"]
        return Model(
            kind,
            config["vocab_size"],
            config["n_embd"],
            config["n_layer"],
            config["n_head"],
            inner,
            positions=config["n_positions"],
            tied=tied,
        )
    return Model(
        kind,
        config["vocab_size"],
        config["hidden_size"],
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["intermediate_size"],
        config.get("num_key_value_heads") or 0,
        config.get("head_dim") or 0,
        tied=tied,
        bias=bool(config.get("attention_bias", False)),
    )


@dataclass(frozen=True)
class Training:
    """What a stage trains, as far as it is known before it runs. The ``training`` of its estimate() (see stage.py).

    row: tokens in a row. rows: rows trained on in all, every pass counted; None: not known yet. batch_size: rows in one
    update over all processes, micro_batch_size: rows each process computes at once (0: its whole part). eval_rows: rows
    evaluated at once, 0 for none. adapters: parameters that are trained where it is not all of them. because: where
    ``rows`` comes from, or what it waits for.
    """

    model: Model
    row: int
    batch_size: int
    rows: float | None = None
    micro_batch_size: int = 0
    eval_rows: int = 0
    bf16: bool = False
    adapters: int = 0
    because: str = ""

    def updates(self) -> int | None:
        """Optimizer updates."""
        return None if self.rows is None else math.ceil(self.rows / self.batch_size)

    def tokens(self) -> int | None:
        """Tokens computed, padding included: whole batches."""
        updates = self.updates()
        return None if updates is None else updates * self.batch_size * self.row

    def flops(self) -> float | None:
        """FLOPs of all updates. With adapters the gradient of the weights, a third, is not computed."""
        tokens = self.tokens()
        return (
            None
            if tokens is None
            else tokens * self.model.flops(self.row) * (2 / 3 if self.adapters else 1)
        )

    def at_once(self, processes: int) -> int:
        """Rows each process computes at once."""
        return self.micro_batch_size or max(1, self.batch_size // processes)


def memory(work: Training, processes: int = 1, zero: int = 0, cpu: bool = False) -> dict[str, int]:
    """Bytes on each accelerator by purpose; ``live``, the most that tensors take at one time; ``peak``, what the process takes for them.

    zero: stage of ZeRO over ``processes``: 1 shards optimizer state, 2 gradients too, 3 weights too. Not all lives at once:
    gradients grow while activations go, unless batches accumulate, and evaluation keeps one layer only. On the CPU this
    does not help: glibc's malloc keeps freed blocks below 32 MB (mallopt(3), M_MMAP_THRESHOLD), and what one phase leaves
    does not fit the next, so there the parts add up.
    """
    model, count, trained = (
        work.model,
        work.model.parameters(),
        work.adapters or work.model.parameters(),
    )
    rows = work.at_once(processes)
    tokens, ddp = rows * work.row, processes > 1 and not zero
    # autocast's bfloat16 copies of the weights live until the backward pass has used them
    weights = 4 * count + 4 * work.adapters + (2 * model.multiplied() if work.bf16 else 0)
    made = {
        "weights": weights // (processes if zero >= 3 else 1),
        # DistributedDataParallel keeps a second copy of the gradients in its buckets
        "gradients": 4 * trained * (2 if ddp else 1) // (processes if zero >= 2 else 1),
        "optimizer": 8
        * trained
        // (processes if zero >= 1 else 1),  # AdamW's two moments in float32
        "activations": tokens
        * (
            model.layers * activation_bytes_per_layer(model, work.row, work.bf16, cpu)
            + activation_bytes_of_head(model, work.bf16)
        ),
        "logits": tokens
        * 12
        * model.vocab,  # in float32: log-softmax, and two gradients of that size
        # no gradients: logits, their float32 copy if they are bfloat16, and log-softmax; of the layers what one holds
        "evaluation": work.eval_rows
        * work.row
        * max((10 if work.bf16 else 8) * model.vocab, 12 * (model.intermediate + model.hidden)),
    }
    buckets = made["gradients"] // 2 if ddp else 0
    standing = made["gradients"] if work.batch_size > rows * processes else buckets
    lookup = (
        0 if work.adapters else 4 * model.vocab * model.hidden
    )  # gradient of the embedding, before a tied head's takes it in
    live = (
        made["weights"]
        + made["optimizer"]
        + max(
            standing + made["activations"] + made["logits"],
            made["gradients"] + lookup,
            buckets + made["evaluation"],
        )
    )
    return {**made, "live": live, "peak": sum(made.values()) if cpu else live}


def activation_bytes_per_layer(model: Model, row: int, bf16: bool, cpu: bool) -> int:
    """Bytes that one layer keeps of one token for the backward pass.

    llama and qwen2, float32: each norm its input, the normalised and the scaled copy; queries, keys and values (repeated
    to all heads), attention's result and its mask (packed documents, a row of it a token); gate, its SiLU, up, product.
    Under bfloat16 autocast the stream and the norms stay float32, and each matrix keeps a bfloat16 copy of its input.
    """
    h, wide, inner, heads = model.hidden, model.attention, model.intermediate, model.heads
    if model.architecture == "gpt2":
        # two norms (input, result); q, k, v, attention's result; NewGELU's four and its product; two dropout masks
        size = 2 if bf16 else 4
        drops = 2 * h * (size if cpu else 1)
        # with dropout the CPU has no fused attention: probabilities before and after it, and its mask, for each head
        attention = 3 * size * heads * row if cpu else size * row + 4 * heads
        return (
            (12 * h + 8 * wide + 16 * inner if bf16 else 16 * h + 16 * wide + 20 * inner)
            + drops
            + attention
            + 16
        )
    if bf16:
        return 26 * h + 8 * wide + 8 * inner + 2 * row + 4 * heads + 8
    return 24 * h + 16 * wide + 16 * inner + 4 * row + 4 * heads + 8


def activation_bytes_of_head(model: Model, bf16: bool) -> int:
    """Bytes kept of one token outside the layers: the last norm, whose result is the head's input (under autocast in bfloat16)."""
    return model.hidden * ((4 if model.architecture == "gpt2" else 8) + (2 if bf16 else 4))


def bytes_per_token(tokenizer: Mapping[str, Any]) -> float:
    """Of English text: as the tokenizer's step measured, else 0.28 log2(entries), a rule of thumb (2.8 for 1024, 4.4 for 50257)."""
    return tokenizer.get("bytes_per_token") or 0.28 * math.log2(tokenizer["vocab_size"])


def text_tokens(
    sources: Sequence[Mapping[str, Any]], weights: Mapping[str, float], tokenizer: Mapping[str, Any]
) -> tuple[float | None, str]:
    """(tokens of all sources, how they were counted), or (None, what they wait for). Sources are facts as estimate() takes them.

    Counted from ``characters`` or the ``bytes`` of its table where a source is made, else from ``documents``.
    """
    if not sources:
        return None, "no source of text is wired in"
    total, told = 0.0, []
    for facts in sources:
        held, weight = (
            facts.get("characters") or facts.get("bytes"),
            weights.get(facts["name"], 1.0),
        )
        if held:
            total += weight * held / bytes_per_token(tokenizer)
            told.append(f"{facts['name']} has {held / 1e6:.3g} MB")
        elif facts.get("documents"):
            total += weight * facts["documents"] * DOCUMENT
            told.append(
                f"{facts['name']} at most {facts['documents']:,} documents, of about {DOCUMENT} tokens"
            )
        else:
            return None, f"known once {facts['name']} is made"
    return total, ", ".join(told)
