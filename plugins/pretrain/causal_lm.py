"""pretrain.causal_lm: next-token prediction with transformers' Trainer, from scratch or continued.

Corpora are trained on in full; dialogues carry loss on answers only, as running text (rows with render = plain) or as
chat. A corpus is encoded once into memory-mapped tokens (shards.py), so it may be larger than memory; dialogues stay in
memory. Whole documents are packed into rows, each begun by BOS, and do not see each other. Reported beside the loss:
the entropy of the unigram distribution, the loss of a model that knows only how frequent each token is.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.estimate import LAYERS, Model, Training, text_tokens
from llmstages.plugins.pretrain import copy_friendly
from llmstages.stage import Context, StageError, option
from llmstages.training import Optimisation

EVALUATED = 16  # rows evaluated at once, on each device


@dataclass(frozen=True)
class CausalLMConfig(Optimisation):
    learning_rate: float = option(3e-3, "peak learning rate of AdamW")
    warmup: int = option(50, "updates of linear warm-up")
    architecture: str = option("llama", "model type known to transformers' AutoConfig")
    hidden: int = option(128, "width of the model")
    layers: int = option(4, "transformer layers")
    heads: int = option(4, "attention heads")
    intermediate: int = option(384, "width of the feed-forward layer")
    context: int = option(512, "longest sequence the model can be used with")
    row: int = option(256, "tokens in a training row")
    start: str = option("copy_friendly", "how weights start", choices=("copy_friendly", "plain"))
    epochs: float = option(1.0, "passes over the rows")
    max_tokens: int = option(0, "stop after this many tokens; 0 = no limit")
    decay: float = option(0.4, "share of the run in which the rate falls linearly to a twentieth")
    weights: dict[str, float] = option(help="share of a source's rows to use, by step name; default 1", factory=dict)
    held_out: int = option(60, "every n-th document is kept for validation (never a repeated one)")


class CausalLM:
    """A base model."""

    Config = CausalLMConfig
    inputs: ClassVar[Mapping[str, str]] = {"corpus": "corpus*", "tokenizer": "tokenizer?", "dialogues": "dialogues*", "model": "model?"}
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "2"
    trains: ClassVar[bool] = True

    def run(self, config: CausalLMConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import Trainer, TrainingArguments, set_seed

        from llmstages import packing, training

        set_seed(config.seed)
        source = ctx.maybe("tokenizer") or ctx.one("model")
        tokenizer = training.load_tokenizer(source.path)
        train, held = self.documents(config, ctx, tokenizer)
        training.check_rows(train, tokenizer, ctx, dialogues=False)
        rows = packing.Packed(train, config.row, tokenizer.pad_token_id, config.seed)
        held_rows = packing.Packed(held, config.row, tokenizer.pad_token_id, config.seed).first(256)
        if rows.cut:
            ctx.say(f"{ctx.step}: {rows.cut} tokens cut from documents longer than row={config.row}")
        model = training.load_model(ctx.one("model"), ctx) if ctx.maybe("model") else self.fresh(config, tokenizer)
        if model.config.vocab_size < len(tokenizer):  # a model of others, with our control tokens added to its tokenizer
            model.resize_token_embeddings(len(tokenizer))
        steps = math.ceil(len(rows) * config.epochs / config.batch_rows)
        if config.max_tokens:
            steps = min(steps, math.ceil(config.max_tokens / (config.batch_rows * config.row)))
        decay = int(steps * config.decay)
        watch = training.recorder(ctx, config.batch_rows * config.row)
        trainer = Trainer(model=model, train_dataset=rows, eval_dataset=held_rows,
                          data_collator=training.collate, callbacks=[watch],
                          args=TrainingArguments(**training.arguments(
                              config, ctx, max_steps=steps, lr_scheduler_type="warmup_stable_decay", per_device_eval_batch_size=EVALUATED,
                              lr_scheduler_kwargs={"num_decay_steps": decay, "min_lr_ratio": 0.05, "decay_type": "linear"},
                              eval_strategy="steps", eval_steps=max(1, steps // 10), prediction_loss_only=True)))
        training.quiet(trainer).train()
        loss = trainer.evaluate()["eval_loss"]
        training.write_log(trainer, ctx)
        training.save_model(model, tokenizer, ctx)
        counts = train.counts()
        tokens = int(counts.sum())
        return {"validation_loss": loss, "unigram_loss": unigram(held_rows, counts), "parameters": model.num_parameters(), "updates": steps,
                "tokens": steps * config.batch_rows * config.row, "corpus_tokens": tokens, "rows": len(rows),
                "padding": 1 - min(1.0, tokens / (len(rows) * config.row)), "cut_tokens": rows.cut,
                "tokens_per_second": steps * config.batch_rows * config.row / watch.seconds}

    def estimate(self, config: CausalLMConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]) -> Mapping[str, Any]:
        """The model, and its rows as far as the sources tell (padding and dialogues' roles are not counted)."""
        tokenizer = next(iter([*known["tokenizer"], *known["model"]]), {})
        model, vocab = (known["model"][0].get("model") if known["model"] else None), tokenizer.get("vocab_size")
        vocab = vocab or (model.vocab if model else None)
        if not vocab:
            return {"no_estimate": f"the size of the vocabulary is known once {tokenizer.get('name', 'a tokenizer')} is made"}
        if config.architecture not in LAYERS and not model:
            return {"no_estimate": f"the layers of {config.architecture} are not known to llmstages/estimate.py, only {', '.join(LAYERS)}"}
        model = model or Model(config.architecture, vocab, config.hidden, config.layers, config.heads, config.intermediate,
                               positions=config.context if config.architecture == "gpt2" else 0, bias=config.start == "copy_friendly")
        tokens, because = text_tokens([*known["corpus"], *known["dialogues"]], config.weights, {**tokenizer, "vocab_size": vocab})
        tokens = None if tokens is None else tokens * (1 - 1 / config.held_out) * config.epochs
        if config.max_tokens and (tokens is None or tokens > config.max_tokens):
            tokens, because = config.max_tokens, f"max_tokens={config.max_tokens:,}"
        return {"training": Training(model, config.row, config.batch_rows, tokens and tokens / config.row, config.micro_rows,
                                     EVALUATED, config.bf16, because=because)}

    def fresh(self, config: CausalLMConfig, tokenizer: Any) -> Any:
        """A model of random weights."""
        from transformers import AutoConfig, AutoModelForCausalLM

        friendly = config.start == "copy_friendly"
        shape = {"vocab_size": len(tokenizer), "hidden_size": config.hidden, "num_hidden_layers": config.layers,
                 "num_attention_heads": config.heads, "num_key_value_heads": config.heads, "intermediate_size": config.intermediate,
                 "max_position_embeddings": config.context, "tie_word_embeddings": True, "bos_token_id": tokenizer.bos_token_id,
                 "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
                 "attention_bias": friendly, "initializer_range": 1 / math.sqrt(config.hidden) if friendly else 0.02}
        if config.architecture == "gpt2":
            shape |= {"n_inner": config.intermediate, "n_positions": config.context}
        try:
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.architecture, **shape))
        except (ValueError, KeyError) as error:
            raise StageError(f"pretrain.architecture={config.architecture}: {str(error).splitlines()[0][:200]}. Try llama, qwen2 or gpt2.") from error
        if friendly:
            if not hasattr(model, "model") or not hasattr(model.model.layers[0], "self_attn"):
                raise StageError(f"pretrain.start=copy_friendly needs a llama-like model, not {config.architecture}; use pretrain.start=plain")
            copy_friendly.apply(model)
        return model

    def documents(self, config: CausalLMConfig, ctx: Context, tokenizer: Any) -> tuple[Any, Any]:
        """(pieces to train on, held-out pieces) of all sources; a document that occurs twice is never held out."""
        import numpy as np

        from llmstages import packing, shards, training

        if config.row < 2:
            raise StageError(f"{ctx.step}.row={config.row} has no room for a token after BOS; choose 2 or more")
        training.check_names(ctx, "weights", list(config.weights), [*ctx.many("corpus"), *ctx.many("dialogues")])
        rng, train, held = random.Random(config.seed), [], []
        for source in ctx.many("corpus"):
            shard = shards.tokens(ctx, source, tokenizer)
            used = training.share_of(len(shard), config.weights.get(source.name, 1.0), rng)
            often = np.bincount(shard.same[used], minlength=len(shard))[shard.same[used]]
            apart = (np.arange(len(used)) % config.held_out == config.held_out - 1) & (often == 1)
            body = packing.Tokens(shard.ids, bos=tokenizer.bos_token_id)
            for into, chosen in ((train, used[~apart]), (held, used[apart])):
                starts = shard.starts[chosen]
                into.append(packing.Pieces.cut(body, starts, shard.starts[chosen + 1] - starts, config.row - 1))
        train.append(packing.Pieces.of(training.dialogue_rows(ctx.many("dialogues"), config.weights, tokenizer, rng)))
        all_of, kept = packing.Pieces.join(train), packing.Pieces.join(held)
        if not len(all_of):
            raise StageError(f"step {ctx.step!r} has no documents to train on; wire steps.{ctx.step}.corpus")
        if not len(kept):
            ctx.say(f"{ctx.step}: too few documents to hold any out (held_out={config.held_out}): the validation loss is of a training document")
        return all_of, kept if len(kept) else all_of.first(1)


def unigram(held: Iterable[Mapping[str, Any]], counts: Any) -> float:
    """Cross-entropy in nats of the held-out tokens that the validation loss is over, under the token frequencies of training.

    counts: occurrences by token id; one is added to each (add-one smoothing).
    """
    often = dict(enumerate(counts.tolist()))
    seen = [token for row in held for token in row["labels"].tolist() if token != -100]
    total = sum(often.values()) + sum(count > 0 for count in often.values()) + 1
    return -sum(math.log((often.get(token, 0) + 1) / total) for token in seen) / max(len(seen), 1)
