"""pretrain.causal_lm: next-token prediction with transformers' Trainer, from scratch or continued.

Corpora carry loss on every token. Dialogues carry loss on answers only, as running text (rows with
render=plain) or as chat. Whole documents are packed into rows; each begins with BOS, and they do
not see each other. Beside the loss two figures are reported: bits per byte, which compares models
of different tokenizers, and the entropy of the unigram distribution, the loss of a model that only
knows how frequent each token is. ``depth`` sets everything that should grow together
(depth_scaling.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.data.dialogues import Prepared
from llmstages.data.overlap import seen_share
from llmstages.plugins.pretrain import (
    depth_scaling,
    documents,
    estimate,
    model,
    optimizers,
    requirements,
    samples,
    throughput,
    validation,
)
from llmstages.train.arguments import Optimization
from llmstages.train.isolation import require_isolation
from llmstages.train.passes import OrderedRows, row_order, updates_of

VALIDATION_ROWS = 256  # at most; more would change the loss little and cost time at each evaluation
MAX_INSPECTED = 1000  # segments that `llmstages inspect` can show


@dataclass(frozen=True)
class CausalLMConfig(Optimization):
    depth: int = option(
        0,
        "number of layers of a compute-optimal run: all that is 0 or null below follows from it "
        "(depth_scaling.py); 0 = off, a small model",
        ge=0,
    )
    ratio: float = option(
        12.0,
        "training tokens for each weight of layers and head, where depth decides them "
        "(Chinchilla: 20)",
        gt=0,
    )
    # For these two 0 is allowed here, though not in Optimization.
    learning_rate: float = option(0.0, "peak learning rate; 0 = 0.003, or by depth", ge=0)
    batch_size: int = option(
        0,
        "rows in one update, over all processes; 0 = 4, or by depth",
        ge=0,
        renamed_from="batch_rows",
    )
    warmup_steps: int = option(50, "updates of linear warm-up", ge=0, renamed_from="warmup")
    architecture: str = option("llama", "model type known to transformers' AutoConfig")
    hidden_size: int | None = option(
        None, "width of the model; null: 128, or by depth", ge=1, renamed_from="hidden"
    )
    num_hidden_layers: int | None = option(
        None, "transformer layers; null: 4, or the depth", ge=1, renamed_from="layers"
    )
    num_attention_heads: int | None = option(
        None, "attention heads; null: 4, or by depth", ge=1, renamed_from="heads"
    )
    num_key_value_heads: int | None = option(
        None,
        "key-value heads, fewer than heads for grouped-query attention; null: as many as heads",
        ge=1,
        renamed_from="kv_heads",
    )
    intermediate_size: int | None = option(
        None,
        "width of the feed-forward layer; null: 384, or by depth",
        ge=1,
        renamed_from="intermediate",
    )
    max_position_embeddings: int = option(
        512, "longest sequence the model can be used with, in tokens", ge=1, renamed_from="context"
    )
    max_length: int = option(
        256, "tokens in a training row, its BOS included", ge=2, renamed_from="row"
    )
    init: str = option(
        "copy_friendly",
        "how weights are initialized: so that copying from the context is learned early, or plain",
        choices=("copy_friendly", "plain"),
        renamed_from="start",
    )
    dropout: float = option(
        0.0,
        "share of activations dropped while training, where the architecture has dropout",
        ge=0,
        lt=1,
    )
    epochs: float = option(
        0.0,
        "passes over the rows; 0 = 1, or with depth as many as its tokens need, at most 4",
        ge=0,
    )
    max_tokens: int = option(0, "stop after this many tokens; 0 = no limit, or by depth", ge=0)
    optimizer: str = option(
        "adamw", "muon: hidden matrices by Muon, the rest by AdamW", choices=("adamw", "muon")
    )
    schedule: str = option(
        "wsd",
        "the rate after the warm-up: steady then falling (wsd), a cosine, or steady to the end",
        choices=("wsd", "cosine", "constant"),
    )
    decay: float = option(
        0.4, "share of the run in which wsd falls linearly to a twentieth", ge=0, le=1
    )
    z_loss: float = option(
        0.0,
        "weight of the squared log normalizer, against logits that drift "
        "(1e-4 in PaLM); in the training loss, not in validation",
        ge=0,
    )
    attention: str = option(
        "sdpa",
        "how attention is computed",
        choices=("sdpa", "eager", "flash_attention_2"),
        identity=False,
    )
    gradient_checkpointing: bool = option(
        False,
        "recompute activations in the backward pass: less memory, a third more time",
        identity=False,
    )
    compile: bool = option(
        False, "torch.compile: faster after some minutes of compiling", identity=False
    )
    liger: bool = option(
        False, "Liger's fused kernels: less memory for large vocabularies, GPU only", identity=False
    )
    mixture_weights: dict[str, float] = option(
        help="share of a source's rows to use, by step name; default 1",
        factory=dict,
        renamed_from="weights",
    )
    validation_stride: int = option(
        60,
        "every n-th document is kept for validation (never a repeated one)",
        ge=1,
        renamed_from="held_out",
    )
    sample_every: float = option(
        0.25, "share of the run between samples of text (samples.jsonl); 0 = none", ge=0, le=1
    )
    prompts: list[str] = option(
        help="texts that samples continue; none = the first words of two held-out documents",
        factory=list,
    )

    def __post_init__(self) -> None:
        for name, share in self.mixture_weights.items():
            if not 0 <= share < math.inf:
                raise ValueError(
                    f"mixture_weights.{name}={share} must be 0 or more: "
                    "0.5 takes half of its rows, 2 takes each twice"
                )


class CausalLM:
    """A base model."""

    Config = CausalLMConfig
    smoke: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_tokens": 20000,
        "warmup_steps": 5,
    }
    inputs: ClassVar[Mapping[str, str]] = {
        "corpus": "corpus*",
        "tokenizer": "tokenizer?",
        "dialogues": "dialogues*",
        "model": "model?",
    }
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "5"
    trains: ClassVar[bool] = True

    def run(self, config: CausalLMConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.data import packing
        from llmstages.text import chat_format
        from llmstages.train import checks, token_checks
        from llmstages.train.trainer import run_trainer, save_model, write_log

        model.check_machine(config, ctx)
        set_seed(config.seed)
        tokenizer = self._load_tokenizer(ctx)
        config, derived = self._resolve(config, ctx, len(tokenizer))
        train, held_out = documents.load_documents(config, ctx, tokenizer)
        found = token_checks.check_rows(train, tokenizer, templated=False)
        checks.enforce(found, ctx, config.allow_failed_checks)
        pad = chat_format.padding_id(tokenizer)
        rows = packing.Packed(train, config.max_length, pad, config.seed)
        eval_rows = packing.Packed(held_out, config.max_length, pad, config.seed)
        eval_rows = eval_rows.first(VALIDATION_ROWS)
        if rows.cut:
            where = f"documents longer than max_length={config.max_length}"
            ctx.say(f"{ctx.step}: {rows.cut} tokens cut from {where}")
        net = self._make_model(config, ctx, tokenizer)
        advice = f"Try {ctx.step}.architecture=llama, qwen2 or gpt2."
        require_isolation(net, ctx.step, advice, model.in_one_row(config))
        steps = updates(config, len(rows))
        tokens = steps * config.batch_size * config.max_length
        depth_scaling.write_derived(derived, steps, tokens, config, ctx)
        stopwatch = throughput.stopwatch()
        callbacks = [stopwatch]
        if config.sample_every:
            prompts = samples.make_prompts(config.prompts, held_out, tokenizer)
            callbacks.append(
                samples.sampler(ctx, tokenizer, prompts, config.sample_every, stopwatch.pause)
            )
        trainer = self._make_trainer(config, ctx, net, rows, eval_rows, callbacks, steps)
        run_trainer(trainer, config, ctx, config.batch_size * config.max_length)
        loss = trainer.evaluate()["eval_loss"]
        write_log(trainer, ctx)
        samples.write(trainer, ctx)
        save_model(net, tokenizer, ctx, trainer)
        counts = train.counts()
        corpus_tokens = int(counts.sum())
        ratio = validation.tokens_per_byte(eval_rows, tokenizer, eval_rows.documents())
        return {
            "validation_loss": loss,
            "validation_bits_per_byte": loss / math.log(2) * ratio,
            "validation_seen": seen_share(held_out, train),
            "unigram_loss": validation.unigram_loss(eval_rows, counts),
            "parameters": net.num_parameters(),
            "updates": steps,
            "tokens": tokens,
            "corpus_tokens": corpus_tokens,
            "rows": len(rows),
            "padding": 1 - min(1.0, corpus_tokens / (len(rows) * config.max_length)),
            "cut_tokens": rows.cut,
            **throughput.speed_metrics(stopwatch, net, config, ctx.processes),
        }

    def prepare(self, config: CausalLMConfig, ctx: Context) -> Prepared:
        """Segments spread evenly over all that are trained on, and the checks of all of them."""
        from llmstages.text.render import Rendered
        from llmstages.train import token_checks

        tokenizer = self._load_tokenizer(ctx)
        config, _ = self._resolve(config, ctx, len(tokenizer))
        train, held_out = documents.load_documents(config, ctx, tokenizer)
        inspected = range(0, len(train), max(1, len(train) // MAX_INSPECTED))
        rows = []
        for index in inspected:
            ids, supervised = train.read(index)
            rows.append(Rendered(ids.tolist(), supervised.tolist()))
        return Prepared(
            tokenizer,
            rows,
            [f"segment {index}" for index in inspected],
            token_checks.check_rows(train, tokenizer, templated=False),
            {"segments of documents": len(train), "held out": len(held_out)},
        )

    def estimate(
        self, config: CausalLMConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Memory, time and cost of the model and its rows."""
        return estimate.estimate(config, known)

    def fresh(self, config: CausalLMConfig, tokenizer: Any) -> Any:
        """A model with random weights."""
        return model.fresh(depth_scaling.resolve(config, len(tokenizer))[0], tokenizer)

    def _load_tokenizer(self, ctx: Context) -> Any:
        """The tokenizer that is wired in, or else that of the model. They must fit together."""
        from llmstages.train.trainer import load_tokenizer

        source = ctx.maybe("tokenizer") or ctx.one("model")
        tokenizer = load_tokenizer(source.path)
        if ctx.maybe("tokenizer") and ctx.maybe("model"):
            requirements.require_same_tokens(tokenizer, load_tokenizer(ctx.one("model").path), ctx)
        return tokenizer

    def _resolve(
        self, config: CausalLMConfig, ctx: Context, vocab_size: int
    ) -> tuple[CausalLMConfig, dict[str, Any]]:
        """(the config without zeros, the values derived from ``depth``)."""
        if config.depth and ctx.maybe("model"):
            raise StageError(
                f"{ctx.step}.depth={config.depth} shapes a new model, but the step continues from "
                f"{ctx.one('model').name}; "
                f"set {ctx.step}.depth=0, or steps.{ctx.step}.model=null"
            )
        config, derived = depth_scaling.resolve(config, vocab_size, ctx.processes)
        if derived:
            ctx.say(f"{ctx.step}: {depth_scaling.describe(derived)}")
        requirements.require_positions(config, ctx)
        return config, derived

    def _make_model(self, config: CausalLMConfig, ctx: Context, tokenizer: Any) -> Any:
        """The model to train: the one that is wired in, or a new one."""
        from llmstages.train.trainer import load_model

        if ctx.maybe("model"):
            net = load_model(ctx.one("model"), ctx)
        else:
            net = self.fresh(config, tokenizer)
        # A model of another project, to whose tokenizer our control tokens were added.
        if net.config.vocab_size < len(tokenizer):
            net.resize_token_embeddings(len(tokenizer))
        model.stop_at_document_end(net, tokenizer)
        model.prepare(net, config, ctx)
        return net

    def _make_trainer(
        self,
        config: CausalLMConfig,
        ctx: Context,
        net: Any,
        rows: Any,
        eval_rows: Any,
        callbacks: list[Any],
        steps: int,
    ) -> Any:
        """The Trainer of the chosen optimizer and schedule."""
        from transformers import TrainingArguments

        from llmstages.train.arguments import training_arguments
        from llmstages.train.batches import collate

        arguments = training_arguments(
            config,
            ctx,
            sharded=True,
            max_steps=steps,
            per_device_eval_batch_size=estimate.EVAL_BATCH_SIZE,
            eval_strategy="steps",
            eval_steps=max(1, steps // 10),
            prediction_loss_only=True,
            gradient_checkpointing=config.gradient_checkpointing,
            torch_compile=config.compile,
            use_liger_kernel=config.liger,
        )
        arguments |= optimizers.schedule(config, steps, arguments["warmup_steps"])
        order = row_order(len(rows), steps, config.batch_size, config.seed)
        return optimizers.trainer_class(config, ctx)(
            model=net,
            train_dataset=OrderedRows(rows, order),
            eval_dataset=eval_rows,
            data_collator=partial(collate, one_row=model.in_one_row(config)),
            callbacks=callbacks,
            args=TrainingArguments(**arguments),
        )


def updates(config: CausalLMConfig, rows: int) -> int:
    """Updates of a run: the passes over the rows, or fewer where the tokens are limited."""
    most_rows = math.ceil(config.max_tokens / config.max_length)
    return updates_of(rows, config.epochs, config.batch_size, most_rows)
