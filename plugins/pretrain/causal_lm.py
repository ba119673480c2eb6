"""pretrain.causal_lm: next-token prediction with transformers' Trainer, from scratch or continued.

Corpora are trained on in full; dialogues carry loss on answers only, as running text (rows with render = plain) or as
chat. A corpus is encoded once into memory-mapped tokens (shards.py), so it may be larger than memory; dialogues stay in
memory. Whole documents are packed into rows, each begun by BOS, and do not see each other. Reported beside the loss:
bits per byte, which compares models of different tokenizers, and the entropy of the unigram distribution, the loss of a
model that knows only how frequent each token is. ``depth`` is one dial for everything that should grow together (depth_scaling.py).
"""

from __future__ import annotations

import dataclasses as dc
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.cost.model import LAYERS, Model, Training, text_tokens
from llmstages.data.dialogues import Prepared
from llmstages.plugins.pretrain import depth_scaling, model, optimizers, samples, throughput
from llmstages.train.trainer import Optimization

EVALUATED = 16  # rows evaluated at once, on each device
SHOWN = 1000  # pieces that can be looked at before training


@dataclass(frozen=True)
class CausalLMConfig(Optimization):
    depth: int = option(
        0,
        "one dial for a compute-optimal run: layers, from which all that is 0 below follows (depth_scaling.py); 0 = off, a small model",
    )
    ratio: float = option(
        12.0,
        "training tokens for each weight of layers and head, where depth decides them (Chinchilla: 20)",
    )
    learning_rate: float = option(0.0, "peak learning rate; 0 = 0.003, or by depth")
    batch_size: int = option(
        0, "rows in one update, over all processes; 0 = 4, or by depth", renamed_from="batch_rows"
    )
    warmup_steps: int = option(50, "updates of linear warm-up", renamed_from="warmup")
    architecture: str = option("llama", "model type known to transformers' AutoConfig")
    hidden_size: int = option(0, "width of the model; 0 = 128, or by depth", renamed_from="hidden")
    num_hidden_layers: int = option(
        0, "transformer layers; 0 = 4, or the depth", renamed_from="layers"
    )
    num_attention_heads: int = option(
        0, "attention heads; 0 = 4, or by depth", renamed_from="heads"
    )
    num_key_value_heads: int = option(
        0,
        "key-value heads, fewer than heads for grouped-query attention; 0 = as many as heads",
        renamed_from="kv_heads",
    )
    intermediate_size: int = option(
        0, "width of the feed-forward layer; 0 = 384, or by depth", renamed_from="intermediate"
    )
    max_position_embeddings: int = option(
        512, "longest sequence the model can be used with", renamed_from="context"
    )
    max_length: int = option(256, "tokens in a training row", renamed_from="row")
    init: str = option(
        "copy_friendly",
        "how weights start",
        choices=("copy_friendly", "plain"),
        renamed_from="start",
    )
    epochs: float = option(
        0.0, "passes over the rows; 0 = 1, or with depth as many as its tokens need, at most 4"
    )
    max_tokens: int = option(0, "stop after this many tokens; 0 = no limit, or by depth")
    optimizer: str = option(
        "adamw", "muon: hidden matrices by Muon, the rest by AdamW", choices=("adamw", "muon")
    )
    schedule: str = option(
        "wsd",
        "the rate after the warm-up: steady then falling (wsd), a cosine, or steady to the end",
        choices=("wsd", "cosine", "constant"),
    )
    decay: float = option(0.4, "share of the run in which wsd falls linearly to a twentieth")
    z_loss: float = option(
        0.0,
        "weight of the squared log normaliser, against logits that drift (1e-4 in PaLM); in the training loss, not in validation",
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
        renamed_from="held_out",
    )
    sample_every: float = option(
        0.25, "share of the run between samples of text (samples.jsonl); 0 = none"
    )
    prompts: list[str] = option(
        help="what samples go on from; none = the first words of two held-out documents",
        factory=list,
    )

    def __post_init__(self) -> None:
        shared = {field.name: getattr(self, field.name) for field in dc.fields(Optimization)}
        Optimization(
            **shared | {name: shared[name] or 1 for name in ("learning_rate", "batch_size")}
        )  # its checks; here 0 means derived
        low = [
            name
            for name in (
                *depth_scaling.SMALL,
                "depth",
                "num_key_value_heads",
                "max_tokens",
                "z_loss",
                "sample_every",
            )
            if getattr(self, name) < 0
        ]
        if low or self.ratio <= 0 or self.sample_every > 1:
            name = low[0] if low else "ratio" if self.ratio <= 0 else "sample_every"
            raise ValueError(
                f"{name}={getattr(self, name)} must be {'between 0 and 1' if name == 'sample_every' else 'above 0' if name == 'ratio' else '0 or more'}"
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
    version: ClassVar[str] = "3"
    trains: ClassVar[bool] = True

    def run(self, config: CausalLMConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import TrainingArguments, set_seed

        from llmstages.data import packing
        from llmstages.train import checks
        from llmstages.train.trainer import (
            collate,
            load_model,
            load_tokenizer,
            run_trainer,
            save_model,
            training_arguments,
            write_log,
        )

        model.check_machine(config, ctx)
        set_seed(config.seed)
        source = ctx.maybe("tokenizer") or ctx.one("model")
        tokenizer = load_tokenizer(source.path)
        config, derived = self.settled(config, ctx, len(tokenizer))
        train, held = self.documents(config, ctx, tokenizer)
        checks.enforce(
            checks.check_rows(train, tokenizer, spoken=False), ctx, config.allow_failed_checks
        )
        rows = packing.Packed(train, config.max_length, tokenizer.pad_token_id, config.seed)
        held_rows = packing.Packed(
            held, config.max_length, tokenizer.pad_token_id, config.seed
        ).first(256)
        if rows.cut:
            ctx.say(
                f"{ctx.step}: {rows.cut} tokens cut from documents longer than max_length={config.max_length}"
            )
        net = (
            load_model(ctx.one("model"), ctx)
            if ctx.maybe("model")
            else self.fresh(config, tokenizer)
        )
        if net.config.vocab_size < len(
            tokenizer
        ):  # a model of others, with our control tokens added to its tokenizer
            net.resize_token_embeddings(len(tokenizer))
        model.prepare(net, config, ctx)
        steps = updates(config, len(rows))
        depth_scaling.write(derived, steps, config, ctx)
        watch = throughput.stopwatch()
        more = (
            [
                samples.sampler(
                    ctx,
                    tokenizer,
                    samples.prompts(config.prompts, held, tokenizer),
                    config.sample_every,
                    watch.pause,
                )
            ]
            if config.sample_every
            else []
        )
        trainer = optimizers.trainer_class(config, ctx)(
            model=net,
            train_dataset=rows,
            eval_dataset=held_rows,
            data_collator=collate,
            callbacks=[watch, *more],
            args=TrainingArguments(
                **training_arguments(
                    config,
                    ctx,
                    sharded=True,
                    max_steps=steps,
                    per_device_eval_batch_size=EVALUATED,
                    eval_strategy="steps",
                    eval_steps=max(1, steps // 10),
                    prediction_loss_only=True,
                    gradient_checkpointing=config.gradient_checkpointing,
                    torch_compile=config.compile,
                    use_liger_kernel=config.liger,
                    **optimizers.schedule(config, steps),
                )
            ),
        )
        run_trainer(trainer, config, ctx, config.batch_size * config.max_length)
        loss = trainer.evaluate()["eval_loss"]
        write_log(trainer, ctx)
        samples.write(trainer, ctx)
        save_model(net, tokenizer, ctx, trainer)
        counts = train.counts()
        tokens = int(counts.sum())
        return {
            "validation_loss": loss,
            "validation_bits_per_byte": loss / math.log(2) * tokens_per_byte(held_rows, tokenizer),
            "unigram_loss": unigram(held_rows, counts),
            "parameters": net.num_parameters(),
            "updates": steps,
            "tokens": steps * config.batch_size * config.max_length,
            "corpus_tokens": tokens,
            "rows": len(rows),
            "padding": 1 - min(1.0, tokens / (len(rows) * config.max_length)),
            "cut_tokens": rows.cut,
            **throughput.figures(watch, net, config, ctx.processes),
        }

    def prepare(self, config: CausalLMConfig, ctx: Context) -> Prepared:
        """Documents spread evenly over all that are trained on, and the gates of all."""
        from llmstages.text.render import Rendered
        from llmstages.train import checks
        from llmstages.train.trainer import load_tokenizer

        tokenizer = load_tokenizer((ctx.maybe("tokenizer") or ctx.one("model")).path)
        train, held = self.documents(self.settled(config, ctx, len(tokenizer))[0], ctx, tokenizer)
        some = range(0, len(train), max(1, len(train) // SHOWN))
        rows = [Rendered(ids.tolist(), on.tolist()) for ids, on in map(train.read, some)]
        return Prepared(
            tokenizer,
            rows,
            [f"piece {i}" for i in some],
            checks.check_rows(train, tokenizer, spoken=False),
            {"pieces of documents": len(train), "held out": len(held)},
        )

    def settled(
        self, config: CausalLMConfig, ctx: Context, vocabulary: int
    ) -> tuple[CausalLMConfig, dict[str, Any]]:
        """The config without zeros, and what the dial derived."""
        if config.depth and ctx.maybe("model"):
            raise StageError(
                f"{ctx.step}.depth={config.depth} shapes a new model, but the step goes on from {ctx.one('model').name}; "
                f"set {ctx.step}.depth=0, or steps.{ctx.step}.model=null"
            )
        config, derived = depth_scaling.settle(config, vocabulary, ctx.processes)
        if derived:
            ctx.say(f"{ctx.step}: {depth_scaling.sentence(derived)}")
        return config, derived

    def estimate(
        self, config: CausalLMConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """The model, and its rows as far as the sources tell (padding and dialogues' roles are not counted)."""
        tokenizer = next(iter([*known["tokenizer"], *known["model"]]), {})
        net, vocab = (
            (known["model"][0].get("model") if known["model"] else None),
            tokenizer.get("vocab_size"),
        )
        vocab = vocab or (net.vocab if net else None)
        if not vocab:
            return {
                "no_estimate": f"the size of the vocabulary is known once {tokenizer.get('name', 'a tokenizer')} is made"
            }
        if config.architecture not in LAYERS and not net:
            return {
                "no_estimate": f"the layers of {config.architecture} are not known to llmstages/estimate.py, only {', '.join(LAYERS)}"
            }
        config = depth_scaling.settle(config, vocab)[0]
        net = net or Model(
            config.architecture,
            vocab,
            config.hidden_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.intermediate_size,
            config.num_key_value_heads,
            positions=config.max_position_embeddings if config.architecture == "gpt2" else 0,
            bias=config.init == "copy_friendly",
        )
        tokens, because = text_tokens(
            [*known["corpus"], *known["dialogues"]],
            config.mixture_weights,
            {**tokenizer, "vocab_size": vocab},
        )
        tokens = (
            None if tokens is None else tokens * (1 - 1 / config.validation_stride) * config.epochs
        )
        if config.max_tokens and (tokens is None or tokens > config.max_tokens):
            tokens, because = config.max_tokens, f"max_tokens={config.max_tokens:,}"
        return {
            "training": Training(
                net,
                config.max_length,
                config.batch_size,
                tokens and tokens / config.max_length,
                config.micro_batch_size,
                EVALUATED,
                config.bf16,
                because=because,
            )
        }

    def fresh(self, config: CausalLMConfig, tokenizer: Any) -> Any:
        """A model of random weights."""
        return model.fresh(depth_scaling.settle(config, len(tokenizer))[0], tokenizer)

    def documents(self, config: CausalLMConfig, ctx: Context, tokenizer: Any) -> tuple[Any, Any]:
        """(pieces to train on, held-out pieces) of all sources; a document that occurs twice is never held out."""
        import numpy as np

        from llmstages.data import dialogues, packing, token_store
        from llmstages.data.dialogues import share_of
        from llmstages.train.trainer import check_names

        if config.max_length < 2:
            raise StageError(
                f"{ctx.step}.max_length={config.max_length} has no room for a token after BOS; choose 2 or more"
            )
        check_names(
            ctx,
            "weights",
            list(config.mixture_weights),
            [*ctx.many("corpus"), *ctx.many("dialogues")],
        )
        rng, train, held = random.Random(config.seed), [], []
        for source in ctx.many("corpus"):
            shard = token_store.tokens(ctx, source, tokenizer)
            used = share_of(len(shard), config.mixture_weights.get(source.name, 1.0), rng)
            often = np.bincount(shard.same[used], minlength=len(shard))[shard.same[used]]
            apart = (
                np.arange(len(used)) % config.validation_stride == config.validation_stride - 1
            ) & (often == 1)
            body = packing.Tokens(shard.ids, bos=tokenizer.bos_token_id)
            for into, chosen in ((train, used[~apart]), (held, used[apart])):
                starts = shard.starts[chosen]
                into.append(
                    packing.Segments.cut(
                        body, starts, shard.starts[chosen + 1] - starts, config.max_length - 1
                    )
                )
        train.append(
            packing.Segments.of(
                dialogues.render_dialogues(
                    tokenizer, dialogues.load(ctx.many("dialogues"), config.mixture_weights, rng)
                )
            )
        )
        all_of, kept = packing.Segments.join(train), packing.Segments.join(held)
        if not len(all_of):
            raise StageError(
                f"step {ctx.step!r} has no documents to train on; wire steps.{ctx.step}.corpus"
            )
        if not len(kept):
            ctx.say(
                f"{ctx.step}: too few documents to hold any out (validation_stride={config.validation_stride}): the validation loss is of a training document"
            )
        return all_of, kept if len(kept) else all_of.first(1)


def updates(config: CausalLMConfig, rows: int) -> int:
    """Updates of a run: the passes over the rows, or fewer where the tokens are limited."""
    passes = math.ceil(rows * config.epochs / config.batch_size)
    return (
        min(passes, math.ceil(config.max_tokens / (config.batch_size * config.max_length)))
        if config.max_tokens
        else passes
    )


def tokens_per_byte(held: Iterable[Mapping[str, Any]], tokenizer: Any) -> float:
    """Tokens that the validation loss is over, for each byte of UTF-8 they stand for: nats per token times this, over ln 2,
    are bits per byte. Control tokens stand for no byte; in WordPiece the blank before a word is one."""
    import numpy as np

    from llmstages.text.token_view import view_tokens

    labels = np.concatenate([row["labels"] for row in held])
    ids, often = np.unique(labels[labels != -100], return_counts=True)
    blank = "WordPiece" in str(
        getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", "")
    )
    tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
    sizes = [
        len(piece.raw) + (blank and not piece.control and not token.startswith("##"))
        for piece, token in zip(view_tokens(tokenizer, ids.tolist()), tokens, strict=True)
    ]
    return float(often.sum() / max(1, (often * np.array(sizes, np.int64)).sum()))


def unigram(held: Iterable[Mapping[str, Any]], counts: Any) -> float:
    """Cross-entropy in nats of the held-out tokens that the validation loss is over, under the token frequencies of training.

    counts: occurrences by token id; one is added to each (add-one smoothing).
    """
    often = dict(enumerate(counts.tolist()))
    seen = [token for row in held for token in row["labels"].tolist() if token != -100]
    total = sum(often.values()) + sum(count > 0 for count in often.values()) + 1
    return -sum(math.log((often.get(token, 0) + 1) / total) for token in seen) / max(len(seen), 1)
