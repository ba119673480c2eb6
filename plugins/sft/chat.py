"""sft.chat: supervised fine-tuning on dialogues with TRL's SFTTrainer, loss on the assistant's tokens only.

Dialogues are rendered by the one renderer (chat.py), packed whole, and checked by gates before the first update.
``replay`` mixes documents of the corpus back in with full loss: without it the questions overwrite the facts that
pretraining stored (33 % instead of 90 % of facts about people no question was asked about).
"""

from __future__ import annotations

import dataclasses as dc
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.cost.model import Training, text_tokens
from llmstages.data.dialogues import POLICIES, Dialogue, Prepared
from llmstages.plugins.sft import quantized
from llmstages.plugins.sft.format_eval import looker
from llmstages.plugins.sft.new_tokens import STARTS, init_new_embeddings
from llmstages.plugins.sft.rows import apart, grouped
from llmstages.text import templates
from llmstages.train.trainer import Optimization


@dataclass(frozen=True)
class ChatConfig(Optimization):
    learning_rate: float = option(1.5e-3, "peak learning rate of AdamW, falling linearly")
    max_length: int = option(256, "tokens in a training row", renamed_from="row")
    epochs: float = option(1.0, "passes over the rows")
    replay: int = option(0, "documents of the corpus mixed in with full loss")
    mixture_weights: dict[str, float] = option(
        help="share of a source's dialogues to use, by step name; default 1, 2 takes each twice",
        factory=dict,
        renamed_from="weights",
    )
    resample_each_epoch: bool = option(
        False,
        "draw each source's share as often as there are passes, each time anew, so that in the end more of it is seen",
        renamed_from="redraw",
    )
    packing: bool = option(
        True,
        "several dialogues in a row, which do not see each other; off: one a row, rows of like length in a batch",
    )
    overlong: str = option(
        "drop",
        "dialogues longer than a row: drop them, split them between exchanges, truncate their ends, or stop with an error",
        choices=POLICIES,
        renamed_from="too_long",
    )
    loss: str = option(
        "all",
        "answers that carry loss: all of a dialogue, or only what follows its last question",
        choices=("all", "last"),
    )
    template: str = option(
        "keep",
        "chat template: keep the model's own, or give it another, with the control tokens it takes",
        choices=("keep", *templates.NAMED),
    )
    template_file: str = option("", "a chat template of your own in Jinja, instead", file=True)
    new_tokens: str = option(
        "semantic",
        "how the embeddings of new control tokens begin: as the words they spell, or as the mean of all",
        choices=STARTS,
    )
    neftune: float = option(
        0.0,
        "noise on the embeddings while training (NEFTune's alpha, Jain et al. 2023); 5 is usual, 0 none",
    )
    lora_r: int = option(
        0,
        "rank of LoRA adapters on all linear layers, merged at the end; 0 trains all weights",
        renamed_from="lora",
    )
    qlora: bool = option(
        False, "keep the model in four bits while its adapters are trained (needs bitsandbytes)"
    )
    keep_adapter: bool = option(
        False,
        "save the adapter alone too, as the folder adapter/ of the model (peft loads it on the model it began as)",
    )
    num_test: int = option(
        0,
        "dialogues kept out of training, for a held-out loss and for looks at the format",
        renamed_from="held_out",
    )
    format_eval_steps: int = option(
        0,
        "updates between looks at the format: some dialogues are answered, and what ends, is empty or repeats is counted; 0: none",
        renamed_from="look_every",
    )
    format_eval_samples: int = option(
        16,
        "dialogues answered at a look, of those held out, else of those trained on",
        renamed_from="look_at",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.qlora and not self.lora_r:
            raise ValueError(
                "qlora=true trains adapters alone: give their rank, for example lora_r=16"
            )
        if not (0 < self.epochs < math.inf) or self.max_length < 2 or self.format_eval_samples < 1:
            raise ValueError(
                f"epochs={self.epochs} must be above 0, max_length={self.max_length} 2 or more, format_eval_samples={self.format_eval_samples} 1 or more"
            )
        for name in ("replay", "neftune", "lora_r", "num_test", "format_eval_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")
        for name, share in self.mixture_weights.items():
            if not 0 <= share < math.inf:
                raise ValueError(
                    f"weights.{name}={share} must be 0 or more: 0.5 takes half of its dialogues, 2 each twice"
                )


@dataclass
class Chats(Prepared):
    """Prepared rows, and what is kept apart: held-out rows, and the dialogues whose answers are looked at. marks: control tokens of a new template."""

    held: list[Any] = field(default_factory=list)
    shown: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    passes: int = 1


class Chat:
    """A model that answers."""

    Config = ChatConfig
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 0.3, "replay": 40}
    inputs: ClassVar[Mapping[str, str]] = {
        "model": "model",
        "dialogues": "dialogues*",
        "corpus": "corpus?",
        "evaluations": "problems*?",
    }
    output: ClassVar[str] = "model"
    version: ClassVar[str] = "3"
    trains: ClassVar[bool] = True

    def run(self, config: ChatConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.data.packing import pack
        from llmstages.train import checks, distributed
        from llmstages.train.trainer import (
            ends_of,
            load_model,
            lora_adapter,
            run_trainer,
            save_model,
            sft_trainer,
            write_log,
        )

        set_seed(config.seed)
        prepared = self.prepare(config, ctx)
        checks.enforce(prepared.gates, ctx, config.allow_failed_checks)
        tokenizer, dialogues = prepared.tokenizer, prepared.rows
        replayed = self.replayed(config, ctx, tokenizer)
        rows, cut = (
            pack([*dialogues, *replayed], config.max_length, tokenizer.pad_token_id, config.seed)
            if config.packing
            else apart([*dialogues, *replayed], config.max_length)
        )
        if cut:
            ctx.say(
                f"{ctx.step}: {cut} tokens cut from replayed documents longer than max_length={config.max_length}"
            )
        steps = math.ceil(len(rows) * config.epochs / prepared.passes / config.batch_size)
        tokens = config.batch_size * (
            config.max_length
            if config.packing
            else sum(len(row["input_ids"]) for row in rows) / len(rows)
        )  # of an update
        model = (
            quantized.load(ctx.one("model"), ctx)
            if config.qlora
            else load_model(ctx.one("model"), ctx)
        )
        new = init_new_embeddings(model, tokenizer, prepared.new_tokens, config.new_tokens)
        if new:
            ctx.say(
                f"{ctx.step}: {len(new)} new control tokens ({', '.join(prepared.new_tokens)}), their embeddings begun by {config.new_tokens}"
            )
        learning = sorted({*new, *prepared.marks}) if config.lora_r else []
        weights = model.num_parameters()
        trainer = sft_trainer(
            config,
            ctx,
            model,
            tokenizer,
            rows,
            steps,
            lora_adapter(config.lora_r, model, learning),
            sharded=not config.lora_r,
            order=None if config.packing else grouped(rows, config.batch_size, steps, config.seed),
            **self.looks(config, prepared, steps),
            neftune_noise_alpha=config.neftune or None,
        )
        if config.format_eval_steps:
            trainer.add_callback(looker(ctx, tokenizer, prepared.shown, config.format_eval_steps))
        trained_weights = (
            sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
            if config.lora_r
            else weights
        )
        if config.lora_r:
            ctx.say(
                f"{ctx.step}: {trained_weights:,} weights of rank-{config.lora_r} adapters are trained beside the {weights:,} of the model"
            )
        watch = run_trainer(trainer, config, ctx, tokens)
        log = write_log(trainer, ctx)
        if config.lora_r and config.keep_adapter and distributed.first_process():
            trainer.model.save_pretrained(ctx.out / "adapter")
        if config.qlora:
            full = load_model(ctx.one("model"), ctx)
            init_new_embeddings(full, tokenizer, prepared.new_tokens, config.new_tokens)
            trained = quantized.merged(trainer.model, full, ctx.work)
        else:
            trained = trainer.model.merge_and_unload() if config.lora_r else trainer.model
        save_model(trained, tokenizer, ctx, trainer)
        first, last = ends_of(log, "loss")
        last_look = {
            name.replace("/", "_"): value
            for row in log
            for name, value in row.items()
            if name.startswith("format/")
        }
        return {
            **last_look,
            "loss_first": first,
            "loss_last": last,
            "dialogues": len(dialogues),
            "dropped_too_long": prepared.facts["dropped, too long"],
            "replayed": len(replayed),
            "new_tokens": len(new),
            "updates": steps,
            "tokens": round(steps * tokens),
            "cut_tokens": cut,
            "trained_parameters": trained_weights,
            "supervised_tokens": sum(sum(row.supervised) for row in dialogues),
            "tokens_per_second": steps * tokens / watch.seconds,
        }

    def estimate(
        self, config: ChatConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """The model that is wired in; rows by the tables of the dialogues, else at most one a dialogue, since longer ones are dropped."""
        source = known["model"][0]
        model = source.get("model")
        if model is None:
            return {
                "no_estimate": f"the sizes of the model are known once {source['name']} is made"
            }
        tokens, because = text_tokens(
            known["dialogues"], config.mixture_weights, {**source, "vocab_size": model.vocab}
        )
        rows = None if tokens is None else tokens / config.max_length
        if rows is None and all("examples" in facts for facts in known["dialogues"]):
            rows = sum(
                facts["examples"] * config.mixture_weights.get(facts["name"], 1.0)
                for facts in known["dialogues"]
            )
            because = f"at most: a row for each of {rows:,.0f} dialogues"
        return {
            "training": Training(
                model,
                config.max_length,
                config.batch_size,
                None if rows is None else (rows + config.replay) * config.epochs,
                config.micro_batch_size,
                bf16=config.bf16,
                adapters=model.adapters(config.lora_r) if config.lora_r else 0,
                because=because,
            )
        }

    def looks(self, config: ChatConfig, prepared: Chats, steps: int) -> dict[str, Any]:
        """Arguments that measure the loss on held-out rows while training."""
        from llmstages.data.packing import pack

        if not prepared.held:
            return {}
        rows, _ = pack(
            prepared.held, config.max_length, prepared.tokenizer.pad_token_id, config.seed
        )
        return {
            "held": rows,
            "eval_strategy": "steps",
            "eval_steps": config.format_eval_steps or max(1, steps // 10),
            "per_device_eval_batch_size": 8,
        }

    def prepare(self, config: ChatConfig, ctx: Context) -> Chats:
        """Rendered dialogues and their gates."""
        from llmstages.data import dialogues
        from llmstages.text import chat_format
        from llmstages.train import checks
        from llmstages.train.trainer import check_names, context_length, load_tokenizer

        check_names(ctx, "weights", list(config.mixture_weights), ctx.many("dialogues"))
        tokenizer = load_tokenizer(ctx.one("model").path)
        found = checks.check_model(ctx.one("model").path, tokenizer)
        new: list[str] = []
        marks: list[int] = []
        if config.template != "keep" or config.template_file:
            own = (
                templates.read(config.template_file, f"{ctx.step}.template_file")
                if config.template_file
                else ""
            )
            new = templates.install(
                tokenizer, templates.OWN if config.template == "keep" else config.template, own
            )
            known = chat_format.control(tokenizer)
            marks = [
                token for token in (*known.heads, known.end) if token is not None
            ]  # they may lie untrained in the model (reserved tokens of Llama)
        passes = max(1, math.ceil(config.epochs)) if config.resample_each_epoch else 1
        drawn = [
            d
            for turn in range(passes)
            for d in dialogues.load(
                ctx.many("dialogues"), config.mixture_weights, random.Random(config.seed + turn)
            )
        ]
        found += checks.check_dialogues(drawn) + checks.check_leaks(drawn, self.questions(ctx))
        checks.renderable(found, ctx)
        kept, rows, dropped = dialogues.fit_length(
            drawn, tokenizer, config.max_length, config.overlong, ctx
        )
        rows = dialogues.last_answers(kept, rows, tokenizer) if config.loss == "last" else rows
        found += [
            checks.check_left_out(dropped, len(drawn), "raise max_length, or overlong=split"),
            *checks.check_rows(
                rows,
                tokenizer,
                [d.name for d in kept],
                spoken=[not d.plain for d in kept],
                context=context_length(ctx.one("model")),
            ),
            *checks.check_dialogue_template(kept, tokenizer),
        ]
        facts = {"dialogues": len(drawn), "dropped, too long": len(dropped)}
        return self.split(
            config,
            ctx,
            kept,
            Chats(
                tokenizer,
                rows,
                [d.name for d in kept],
                found,
                facts,
                new,
                marks=marks,
                passes=passes,
            ),
        )

    def split(
        self, config: ChatConfig, ctx: Context, dialogues: Sequence[Dialogue], made: Chats
    ) -> Chats:
        """The rows without those held out, and without any that say the same; what is looked at."""
        whole = [
            name.partition("/")[0] for name in made.names
        ]  # a dialogue may be there in parts, and in several draws
        places = {name: i for i, name in reversed(list(enumerate(whole)))}
        apart = (
            [*places][:: -max(1, len(places) // config.num_test)][: config.num_test]
            if config.num_test
            else []
        )
        held = (
            [
                i
                for i, name in enumerate(whole)
                if name in set(apart) and made.names[i] not in made.names[:i]
            ]
            if apart
            else []
        )
        same = {tuple(made.rows[i].ids) for i in held}
        train = [
            i
            for i, row in enumerate(made.rows)
            if whole[i] not in set(apart) and tuple(row.ids) not in same
        ]
        if held and not train:
            raise StageError(
                f"{ctx.step}.num_test={config.num_test} leaves none of {len(places)} dialogues to train on; lower it"
            )
        spoken = [
            dialogues[i].messages for i in held or range(len(dialogues)) if not dialogues[i].plain
        ]
        facts = {**made.facts, **({"held out": len(dialogues) - len(train)} if held else {})}
        return dc.replace(
            made,
            rows=[made.rows[i] for i in train],
            names=[made.names[i] for i in train],
            held=[made.rows[i] for i in held],
            shown=spoken[:: max(1, len(spoken) // config.format_eval_samples)][
                : config.format_eval_samples
            ],
            facts=facts,
        )

    def questions(self, ctx: Context) -> list[str]:
        """What a model will be measured on: the rows of the role test where there are any, else all."""
        from llmstages.data import tables

        found = []
        for source in ctx.many("evaluations"):
            rows = list(tables.load(source.path / "data"))
            tests = [row for row in rows if row.get("role") == "test"] or rows
            found += [row["prompt"][-1]["content"] for row in tests]
        return found

    def replayed(self, config: ChatConfig, ctx: Context, tokenizer: Any) -> list[Any]:
        """Documents of the corpus, with full loss. Only those drawn are read and encoded: the corpus may be a million times as many."""
        from llmstages.data import tables
        from llmstages.text import chat_format
        from llmstages.text.render import Rendered

        corpus = ctx.maybe("corpus")
        if not config.replay or corpus is None:
            return []
        table = tables.load(corpus.path / "data")
        drawn = random.Random(config.seed).sample(range(len(table)), min(config.replay, len(table)))
        return [
            Rendered(ids, [True] * len(ids))
            for ids in chat_format.document_ids(
                tokenizer, table.select_columns(["text"])[drawn]["text"]
            )
        ]
