"""pretrain.causal_lm: next-token prediction with transformers' Trainer, from scratch or continued.

Corpora are trained on in full; dialogues carry loss on answers only, as running text (rows with render = plain) or as
chat. A corpus is encoded once into memory-mapped tokens (shards.py), so it may be larger than memory; dialogues stay in
memory. Whole documents are packed into rows, each begun by BOS, and do not see each other. Reported beside the loss:
bits per byte, which compares models of different tokenizers, and the entropy of the unigram distribution, the loss of a
model that knows only how frequent each token is. ``depth`` is one dial for everything that should grow together (dial.py).
"""

from __future__ import annotations

import dataclasses as dc
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.dialogues import Prepared
from llmstages.estimate import LAYERS, Model, Training, text_tokens
from llmstages.plugins.pretrain import dial, model, optimizing, samples, speed
from llmstages.stage import Context, StageError, option
from llmstages.training import Optimisation

EVALUATED = 16  # rows evaluated at once, on each device
SHOWN = 1000  # pieces that can be looked at before training


@dataclass(frozen=True)
class CausalLMConfig(Optimisation):
    depth: int = option(0, "one dial for a compute-optimal run: layers, from which all that is 0 below follows (dial.py); 0 = off, a small model")
    ratio: float = option(12.0, "training tokens for each weight of layers and head, where depth decides them (Chinchilla: 20)")
    learning_rate: float = option(0.0, "peak learning rate; 0 = 0.003, or by depth")
    batch_rows: int = option(0, "rows in one update, over all processes; 0 = 4, or by depth")
    warmup: int = option(50, "updates of linear warm-up")
    architecture: str = option("llama", "model type known to transformers' AutoConfig")
    hidden: int = option(0, "width of the model; 0 = 128, or by depth")
    layers: int = option(0, "transformer layers; 0 = 4, or the depth")
    heads: int = option(0, "attention heads; 0 = 4, or by depth")
    kv_heads: int = option(0, "key-value heads, fewer than heads for grouped-query attention; 0 = as many as heads")
    intermediate: int = option(0, "width of the feed-forward layer; 0 = 384, or by depth")
    context: int = option(512, "longest sequence the model can be used with")
    row: int = option(256, "tokens in a training row")
    start: str = option("copy_friendly", "how weights start", choices=("copy_friendly", "plain"))
    epochs: float = option(0.0, "passes over the rows; 0 = 1, or with depth as many as its tokens need, at most 4")
    max_tokens: int = option(0, "stop after this many tokens; 0 = no limit, or by depth")
    optimizer: str = option("adamw", "muon: hidden matrices by Muon, the rest by AdamW", choices=("adamw", "muon"))
    schedule: str = option("wsd", "the rate after the warm-up: steady then falling (wsd), a cosine, or steady to the end", choices=("wsd", "cosine", "constant"))
    decay: float = option(0.4, "share of the run in which wsd falls linearly to a twentieth")
    z_loss: float = option(0.0, "weight of the squared log normaliser, against logits that drift (1e-4 in PaLM); in the training loss, not in validation")
    attention: str = option("sdpa", "how attention is computed", choices=("sdpa", "eager", "flash_attention_2"), identity=False)
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass: less memory, a third more time", identity=False)
    compile: bool = option(False, "torch.compile: faster after some minutes of compiling", identity=False)
    liger: bool = option(False, "Liger's fused kernels: less memory for large vocabularies, GPU only", identity=False)
    weights: dict[str, float] = option(help="share of a source's rows to use, by step name; default 1", factory=dict)
    held_out: int = option(60, "every n-th document is kept for validation (never a repeated one)")
    sample_every: float = option(0.25, "share of the run between samples of text (samples.jsonl); 0 = none")
    prompts: list[str] = option(help="what samples go on from; none = the first words of two held-out documents", factory=list)

    def __post_init__(self) -> None:
        shared = {field.name: getattr(self, field.name) for field in dc.fields(Optimisation)}
        Optimisation(**shared | {name: shared[name] or 1 for name in ("learning_rate", "batch_rows")})  # its checks; here 0 means derived
        low = [name for name in (*dial.SMALL, "depth", "kv_heads", "max_tokens", "z_loss", "sample_every") if getattr(self, name) < 0]
        if low or self.ratio <= 0 or self.sample_every > 1:
            name = low[0] if low else "ratio" if self.ratio <= 0 else "sample_every"
            raise ValueError(f"{name}={getattr(self, name)} must be {'between 0 and 1' if name == 'sample_every' else 'above 0' if name == 'ratio' else '0 or more'}")


class CausalLM:
    """A base model."""

    Config = CausalLMConfig
    inputs: ClassVar[Mapping[str, str]] = {"corpus": "corpus*", "tokenizer": "tokenizer?", "dialogues": "dialogues*", "model": "model?"}
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "3"
    trains: ClassVar[bool] = True

    def run(self, config: CausalLMConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import TrainingArguments, set_seed

        from llmstages import gates, packing, training

        model.check_machine(config, ctx)
        set_seed(config.seed)
        source = ctx.maybe("tokenizer") or ctx.one("model")
        tokenizer = training.load_tokenizer(source.path)
        config, derived = self.settled(config, ctx, len(tokenizer))
        train, held = self.documents(config, ctx, tokenizer)
        gates.settle(gates.of_rows(train, tokenizer, spoken=False), ctx, config.allow)
        rows = packing.Packed(train, config.row, tokenizer.pad_token_id, config.seed)
        held_rows = packing.Packed(held, config.row, tokenizer.pad_token_id, config.seed).first(256)
        if rows.cut:
            ctx.say(f"{ctx.step}: {rows.cut} tokens cut from documents longer than row={config.row}")
        net = training.load_model(ctx.one("model"), ctx) if ctx.maybe("model") else self.fresh(config, tokenizer)
        if net.config.vocab_size < len(tokenizer):  # a model of others, with our control tokens added to its tokenizer
            net.resize_token_embeddings(len(tokenizer))
        model.prepare(net, config, ctx)
        steps = updates(config, len(rows))
        dial.write(derived, steps, config, ctx)
        watch = speed.stopwatch()
        more = [samples.sampler(ctx, tokenizer, samples.prompts(config.prompts, held, tokenizer), config.sample_every, watch.pause)] if config.sample_every else []
        trainer = optimizing.trainer_class(config, ctx)(
            model=net, train_dataset=rows, eval_dataset=held_rows, data_collator=training.collate, callbacks=[watch, *more],
            args=TrainingArguments(**training.arguments(
                config, ctx, sharded=True, max_steps=steps, per_device_eval_batch_size=EVALUATED, eval_strategy="steps", eval_steps=max(1, steps // 10),
                prediction_loss_only=True, gradient_checkpointing=config.gradient_checkpointing, torch_compile=config.compile,
                use_liger_kernel=config.liger, **optimizing.schedule(config, steps))))
        training.train(trainer, config, ctx, config.batch_rows * config.row)
        loss = trainer.evaluate()["eval_loss"]
        training.write_log(trainer, ctx)
        samples.write(trainer, ctx)
        training.save_model(net, tokenizer, ctx, trainer)
        counts = train.counts()
        tokens = int(counts.sum())
        return {"validation_loss": loss, "validation_bits_per_byte": loss / math.log(2) * tokens_per_byte(held_rows, tokenizer),
                "unigram_loss": unigram(held_rows, counts), "parameters": net.num_parameters(), "updates": steps,
                "tokens": steps * config.batch_rows * config.row, "corpus_tokens": tokens, "rows": len(rows),
                "padding": 1 - min(1.0, tokens / (len(rows) * config.row)), "cut_tokens": rows.cut, **speed.figures(watch, net, config, ctx.processes)}

    def prepare(self, config: CausalLMConfig, ctx: Context) -> Prepared:
        """Documents spread evenly over all that are trained on, and the gates of all."""
        from llmstages import chat, gates, training

        tokenizer = training.load_tokenizer((ctx.maybe("tokenizer") or ctx.one("model")).path)
        train, held = self.documents(self.settled(config, ctx, len(tokenizer))[0], ctx, tokenizer)
        some = range(0, len(train), max(1, len(train) // SHOWN))
        rows = [chat.Rendered(ids.tolist(), on.tolist()) for ids, on in map(train.read, some)]
        return Prepared(tokenizer, rows, [f"piece {i}" for i in some], gates.of_rows(train, tokenizer, spoken=False),
                        {"pieces of documents": len(train), "held out": len(held)})

    def settled(self, config: CausalLMConfig, ctx: Context, vocabulary: int) -> tuple[CausalLMConfig, dict[str, Any]]:
        """The config without zeros, and what the dial derived."""
        if config.depth and ctx.maybe("model"):
            raise StageError(f"{ctx.step}.depth={config.depth} shapes a new model, but the step goes on from {ctx.one('model').name}; "
                             f"set {ctx.step}.depth=0, or steps.{ctx.step}.model=null")
        config, derived = dial.settle(config, vocabulary, ctx.processes)
        if derived:
            ctx.say(f"{ctx.step}: {dial.sentence(derived)}")
        return config, derived

    def estimate(self, config: CausalLMConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]) -> Mapping[str, Any]:
        """The model, and its rows as far as the sources tell (padding and dialogues' roles are not counted)."""
        tokenizer = next(iter([*known["tokenizer"], *known["model"]]), {})
        net, vocab = (known["model"][0].get("model") if known["model"] else None), tokenizer.get("vocab_size")
        vocab = vocab or (net.vocab if net else None)
        if not vocab:
            return {"no_estimate": f"the size of the vocabulary is known once {tokenizer.get('name', 'a tokenizer')} is made"}
        if config.architecture not in LAYERS and not net:
            return {"no_estimate": f"the layers of {config.architecture} are not known to llmstages/estimate.py, only {', '.join(LAYERS)}"}
        config = dial.settle(config, vocab)[0]
        net = net or Model(config.architecture, vocab, config.hidden, config.layers, config.heads, config.intermediate, config.kv_heads,
                           positions=config.context if config.architecture == "gpt2" else 0, bias=config.start == "copy_friendly")
        tokens, because = text_tokens([*known["corpus"], *known["dialogues"]], config.weights, {**tokenizer, "vocab_size": vocab})
        tokens = None if tokens is None else tokens * (1 - 1 / config.held_out) * config.epochs
        if config.max_tokens and (tokens is None or tokens > config.max_tokens):
            tokens, because = config.max_tokens, f"max_tokens={config.max_tokens:,}"
        return {"training": Training(net, config.row, config.batch_rows, tokens and tokens / config.row, config.micro_rows,
                                     EVALUATED, config.bf16, because=because)}

    def fresh(self, config: CausalLMConfig, tokenizer: Any) -> Any:
        """A model of random weights."""
        return model.fresh(dial.settle(config, len(tokenizer))[0], tokenizer)

    def documents(self, config: CausalLMConfig, ctx: Context, tokenizer: Any) -> tuple[Any, Any]:
        """(pieces to train on, held-out pieces) of all sources; a document that occurs twice is never held out."""
        import numpy as np

        from llmstages import dialogues, packing, shards, training

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
        train.append(packing.Pieces.of(dialogues.render(tokenizer, dialogues.load(ctx.many("dialogues"), config.weights, rng))))
        all_of, kept = packing.Pieces.join(train), packing.Pieces.join(held)
        if not len(all_of):
            raise StageError(f"step {ctx.step!r} has no documents to train on; wire steps.{ctx.step}.corpus")
        if not len(kept):
            ctx.say(f"{ctx.step}: too few documents to hold any out (held_out={config.held_out}): the validation loss is of a training document")
        return all_of, kept if len(kept) else all_of.first(1)


def updates(config: CausalLMConfig, rows: int) -> int:
    """Updates of a run: the passes over the rows, or fewer where the tokens are limited."""
    passes = math.ceil(rows * config.epochs / config.batch_rows)
    return min(passes, math.ceil(config.max_tokens / (config.batch_rows * config.row))) if config.max_tokens else passes


def tokens_per_byte(held: Iterable[Mapping[str, Any]], tokenizer: Any) -> float:
    """Tokens that the validation loss is over, for each byte of UTF-8 they stand for: nats per token times this, over ln 2,
    are bits per byte. Control tokens stand for no byte; in WordPiece the blank before a word is one."""
    import numpy as np

    from llmstages.pieces import pieces

    labels = np.concatenate([row["labels"] for row in held])
    ids, often = np.unique(labels[labels != -100], return_counts=True)
    blank = "WordPiece" in str(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", ""))
    tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
    sizes = [len(piece.raw) + (blank and not piece.control and not token.startswith("##"))
             for piece, token in zip(pieces(tokenizer, ids.tolist()), tokens, strict=True)]
    return float(often.sum() / max(1, (often * np.array(sizes, np.int64)).sum()))


def unigram(held: Iterable[Mapping[str, Any]], counts: Any) -> float:
    """Cross-entropy in nats of the held-out tokens that the validation loss is over, under the token frequencies of training.

    counts: occurrences by token id; one is added to each (add-one smoothing).
    """
    often = dict(enumerate(counts.tolist()))
    seen = [token for row in held for token in row["labels"].tolist() if token != -100]
    total = sum(often.values()) + sum(count > 0 for count in often.values()) + 1
    return -sum(math.log((often.get(token, 0) + 1) / total) for token in seen) / max(len(seen), 1)
