"""sft.chat: supervised fine-tuning on dialogues with TRL's SFTTrainer; loss on answers only.

Dialogues are rendered by the one renderer (llmstages/text/render.py), packed whole into rows, and
checked before the first update. ``replay`` mixes documents of the corpus back in with full loss.
Without it the dialogues overwrite facts of pretraining: of the facts about people whom no dialogue
asks about, a model answered 33 % instead of 90 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import Context, option
from llmstages.data.overlong import POLICIES
from llmstages.plugins.sft import dataset, estimate, quantized, rows
from llmstages.plugins.sft.dataset import PreparedChats
from llmstages.plugins.sft.format_eval import format_callback
from llmstages.plugins.sft.new_tokens import METHODS, init_new_embeddings
from llmstages.text import chat_format, templates
from llmstages.train.adapters import LoraOptions
from llmstages.train.arguments import Optimization
from llmstages.train.passes import updates_of


@dataclass(frozen=True)
class ChatConfig(LoraOptions, Optimization):
    learning_rate: float = option(1.5e-3, "peak learning rate of AdamW, falling linearly")
    max_length: int = option(256, "tokens in a training row", ge=2, renamed_from="row")
    epochs: float = option(1.0, "passes over the rows", gt=0)
    replay: int = option(0, "documents of the corpus mixed in with full loss", ge=0)
    mixture_weights: dict[str, float] = option(
        help="share of a source's dialogues to use, by step name; default 1, 2 takes each twice",
        factory=dict,
        renamed_from="weights",
    )
    resample_each_epoch: bool = option(
        False,
        "draw each source's share anew in every pass, so that more of it is seen in the end",
        renamed_from="redraw",
    )
    packing: bool = option(
        True,
        "several dialogues in one row, which do not see each other; "
        "off: one dialogue per row, and rows of similar length in a batch",
    )
    overlong: str = option(
        "drop",
        "dialogues longer than max_length: drop them, split them between exchanges, "
        "truncate their ends, or stop with an error",
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
        "chat template: keep the model's own, or install another with its control tokens",
        choices=("keep", *templates.NAMED),
    )
    template_file: str = option("", "a chat template of your own in Jinja, instead", file=True)
    new_tokens: str = option(
        "semantic",
        "how the embeddings of new control tokens are initialized: "
        "as the words in their names, or as the mean of all embeddings",
        choices=METHODS,
    )
    neftune: float = option(
        0.0,
        "noise on the embeddings while training "
        "(NEFTune's alpha, Jain et al. 2023); 5 is usual, 0 = none",
        ge=0,
    )
    qlora: bool = option(
        False, "keep the model in four bits while its adapters are trained (needs bitsandbytes)"
    )
    keep_adapter: bool = option(
        False,
        "also save the adapter alone, in the folder adapter/ of the model "
        "(peft loads it on the model that was fine-tuned)",
    )
    num_test: int = option(
        0,
        "dialogues kept out of training, for a held-out loss and for checks of the format",
        ge=0,
        renamed_from="held_out",
    )
    format_eval_steps: int = option(
        0,
        "updates between checks of the format: the model answers some dialogues, and answers that "
        "do not end, are empty or repeat themselves are counted; 0 = none",
        ge=0,
        renamed_from="look_every",
    )
    format_eval_samples: int = option(
        16,
        "dialogues answered at each check, of those held out, or else of those trained on",
        ge=1,
        renamed_from="look_at",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.qlora and not self.lora_r:
            raise ValueError(
                "qlora=true trains adapters alone: set their rank, for example lora_r=16"
            )
        for name, share in self.mixture_weights.items():
            if not 0 <= share < math.inf:
                raise ValueError(
                    f"mixture_weights.{name}={share} must be 0 or more: "
                    "0.5 takes half of its dialogues, 2 takes each twice"
                )


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
    version: ClassVar[str] = "5"
    trains: ClassVar[bool] = True

    def run(self, config: ChatConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.train import checks
        from llmstages.train.trainer import ends_of, run_trainer, write_log

        set_seed(config.seed)
        prepared = self.prepare(config, ctx)
        checks.enforce(prepared.checks, ctx, config.allow_failed_checks)
        documents = dataset.replayed_documents(
            ctx, prepared.tokenizer, config.replay, config.seed, prepared.passes
        )
        train_rows, cut = self._make_rows(config, prepared, documents)
        if cut:
            ctx.say(
                f"{ctx.step}: {cut} tokens cut from replayed documents longer than "
                f"max_length={config.max_length}"
            )
        # The rows hold the draws of all passes, so one epoch is only a part of them.
        steps = updates_of(len(train_rows), config.epochs / prepared.passes, config.batch_size)
        # A packed row is full, but for some padding.
        row_tokens: float = config.max_length
        if not config.packing:
            row_tokens = sum(len(row["input_ids"]) for row in train_rows) / len(train_rows)
        update_tokens = config.batch_size * row_tokens
        model = self._load_model(config, ctx, prepared)
        parameters = model.num_parameters()
        trainer = self._make_trainer(config, ctx, model, prepared, train_rows, steps)
        trained_parameters = parameters
        if config.lora_r:
            trained_parameters = trainer.model.num_parameters(only_trainable=True)
            ctx.say(
                f"{ctx.step}: {trained_parameters:,} weights of rank-{config.lora_r} adapters "
                f"are trained beside the {parameters:,} of the model"
            )
        recorder = run_trainer(trainer, config, ctx, update_tokens)
        log = write_log(trainer, ctx)
        self._save(config, ctx, trainer, prepared)
        first_loss, last_loss = ends_of(log, "loss")
        held_out = {}
        if prepared.held_out:
            held_out["held_out_seen"] = dataset.seen_in_training(prepared, documents)
        return {
            **_last_format_shares(log),
            **held_out,
            "loss_first": first_loss,
            "loss_last": last_loss,
            "dialogues": len(prepared.rows),
            "dropped_too_long": prepared.facts["dropped, too long"],
            "replayed": len(documents) // prepared.passes,
            "new_tokens": len(prepared.new_tokens),
            "updates": steps,
            "tokens": round(steps * update_tokens),
            "cut_tokens": cut,
            "trained_parameters": trained_parameters,
            "supervised_tokens": sum(sum(row.supervised) for row in prepared.rows),
            "tokens_per_second": recorder.updates * update_tokens / recorder.seconds,
        }

    def estimate(
        self, config: ChatConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Memory, time and cost of fine-tuning the model that is wired in."""
        return estimate.estimate(config, known)

    def prepare(self, config: ChatConfig, ctx: Context) -> PreparedChats:
        """Draw, render and check the dialogues, and hold some out."""
        from llmstages.data import dialogues, overlong
        from llmstages.train import dialogue_checks, template_checks, token_checks
        from llmstages.train.trainer import check_names, context_length, load_tokenizer

        source = ctx.one("model")
        sources = ctx.many("dialogues")
        check_names(ctx, "mixture_weights", list(config.mixture_weights), sources)
        tokenizer = load_tokenizer(source.path)
        found = token_checks.check_model(source.path, tokenizer)
        new_tokens: list[str] = []
        template_tokens: list[int] = []
        # Another template must begin as the one that the model was trained with.
        needs_bos = chat_format.begins_with_bos(tokenizer)
        if config.template != "keep" or config.template_file:
            new_tokens, template_tokens = dataset.install_template(
                tokenizer, config.template, config.template_file, f"{ctx.step}.template_file"
            )
        passes = max(1, math.ceil(config.epochs)) if config.resample_each_epoch else 1
        drawn = dataset.draw_dialogues(sources, config.mixture_weights, config.seed, passes)
        drawn = dataset.add_schemas(tokenizer, drawn, sources)
        found += dialogue_checks.check_dialogues(drawn)
        found += dialogue_checks.check_leaks(drawn, dataset.evaluation_questions(ctx))
        # Turns of an unknown role or without text have no tokens, so nothing more can be checked.
        dialogue_checks.require_renderable(found, ctx)
        trainable, divided = dialogues.one_per_answer(drawn, tokenizer)
        dataset.report_template(tokenizer, drawn, len(divided), ctx)
        kept, rendered, dropped = overlong.fit_length(
            trainable, tokenizer, config.max_length, config.overlong, ctx
        )
        dataset.report_empty_thinking(tokenizer, rendered, ctx)
        if config.loss == "last":
            rendered = dialogues.last_answers(kept, rendered, tokenizer)
        names = [dialogue.name for dialogue in kept]
        fix = "raise max_length, or overlong=split"
        found.append(dialogue_checks.check_left_out(dropped, len(drawn), fix))
        found += token_checks.check_rows(
            rendered,
            tokenizer,
            names,
            templated=[not dialogue.plain for dialogue in kept],
            context=context_length(source),
            needs_bos=needs_bos,
        )
        found += template_checks.check_dialogue_template(kept, tokenizer)
        prepared = PreparedChats(
            tokenizer,
            rendered,
            names,
            found,
            {"dialogues": len(drawn), "dropped, too long": len(dropped)},
            new_tokens,
            template_tokens=template_tokens,
            passes=passes,
        )
        return dataset.hold_out(
            prepared,
            kept,
            num_test=config.num_test,
            format_samples=config.format_eval_samples,
            step=ctx.step,
        )

    def _make_rows(
        self, config: ChatConfig, prepared: PreparedChats, documents: Sequence[Any]
    ) -> tuple[list[dict[str, Any]], int]:
        """(training rows, tokens cut from documents that are too long)."""
        from llmstages.data.packing import pack

        texts = [*prepared.rows, *documents]
        if config.packing:
            return pack(
                texts, config.max_length, chat_format.padding_id(prepared.tokenizer), config.seed
            )
        return rows.unpacked_rows(texts, config.max_length)

    def _load_model(self, config: ChatConfig, ctx: Context, prepared: PreparedChats) -> Any:
        """The model to train, with embeddings for the new control tokens."""
        from llmstages.train.trainer import load_model

        if config.qlora:
            model = quantized.load_quantized(ctx.one("model"), ctx)
        else:
            model = load_model(ctx.one("model"), ctx)
        init_new_embeddings(model, prepared.tokenizer, prepared.new_tokens, config.new_tokens)
        if prepared.new_tokens:
            ctx.say(
                f"{ctx.step}: {len(prepared.new_tokens)} new control tokens "
                f"({', '.join(prepared.new_tokens)}), with embeddings initialized by "
                f"new_tokens={config.new_tokens}"
            )
        return model

    def _make_trainer(
        self,
        config: ChatConfig,
        ctx: Context,
        model: Any,
        prepared: PreparedChats,
        train_rows: Sequence[Mapping[str, Any]],
        steps: int,
    ) -> Any:
        """TRL's SFTTrainer with adapters, held-out rows and checks of the format, where set."""
        from llmstages.train.adapters import lora_adapter
        from llmstages.train.trainer import sft_trainer

        tokenizer = prepared.tokenizer
        # Adapters leave the embeddings as they are, so these rows have to be named.
        trained_tokens: list[int] = []
        if config.lora_r:
            new_ids = tokenizer.convert_tokens_to_ids(prepared.new_tokens)
            trained_tokens = sorted({*new_ids, *prepared.template_tokens})
        order = None
        if not config.packing:
            order = rows.length_grouped_order(train_rows, config.batch_size, steps, config.seed)
        trainer = sft_trainer(
            config,
            ctx,
            model,
            tokenizer,
            train_rows,
            steps,
            lora_adapter(config, model, trained_tokens),
            sharded=not config.lora_r,
            order=order,
            **self._evaluation_arguments(config, prepared, steps),
            neftune_noise_alpha=config.neftune or None,
        )
        if config.format_eval_steps:
            callback = format_callback(
                ctx, tokenizer, prepared.format_dialogues, config.format_eval_steps
            )
            trainer.add_callback(callback)
        return trainer

    def _evaluation_arguments(
        self, config: ChatConfig, prepared: PreparedChats, steps: int
    ) -> dict[str, Any]:
        """Arguments of sft_trainer that measure the loss on held-out rows while training."""
        from llmstages.data.packing import pack

        if not prepared.held_out:
            return {}
        held_out, _ = pack(
            prepared.held_out,
            config.max_length,
            chat_format.padding_id(prepared.tokenizer),
            config.seed,
        )
        return {
            "held": held_out,
            "eval_strategy": "steps",
            "eval_steps": config.format_eval_steps or max(1, steps // 10),
            "per_device_eval_batch_size": 8,
        }

    def _save(
        self, config: ChatConfig, ctx: Context, trainer: Any, prepared: PreparedChats
    ) -> None:
        """Write the model with its adapters merged, and the adapter alone where it is kept."""
        from llmstages.train import distributed
        from llmstages.train.trainer import load_model, save_model

        if config.lora_r and config.keep_adapter and distributed.first_process():
            trainer.model.save_pretrained(ctx.out / "adapter")
        trained = trainer.model
        if config.qlora:
            # The weights in four bits are only an approximation: merge into the original ones.
            full = load_model(ctx.one("model"), ctx)
            init_new_embeddings(full, prepared.tokenizer, prepared.new_tokens, config.new_tokens)
            trained = quantized.merge_adapters(trainer.model, full, ctx.work)
        elif config.lora_r:
            trained = trainer.model.merge_and_unload()
        save_model(trained, prepared.tokenizer, ctx, trainer)


def _last_format_shares(log: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The shares of the last check of the format, as metrics."""
    shares = {}
    for entry in log:
        for name, value in entry.items():
            if name.startswith("format/"):
                shares[name.replace("/", "_")] = value
    return shares
