"""evaluate.memorization: what a base model has taken from its corpus, whatever text that is.

Does it recite passages, by how often they occur (Carlini et al. 2023, "Quantifying Memorization")? Does it know names, by
how often they are mentioned (Kandpal et al. 2023)? Does it see a pattern from examples (Brown et al. 2020)? And how much of
what it writes freely stands in the corpus word for word? Questions are made from the text itself (passages.py) and go
beside the scores, in questions.jsonl; each is scored by what the model writes (right, and the share of the words before the
first other one) and by how surprised it is by the answer (bits_per_byte). They are in the words of the corpus, most of which
the model was trained on: they say what it keeps, not how good it is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option


@dataclass(frozen=True)
class MemorizationConfig:
    prompt_tokens: int = option(16, "tokens of a passage that are shown")
    answer_tokens: int = option(24, "tokens that must follow word for word")
    per_group: int = option(50, "questions in each group of passages and names")
    per_shots: int = option(48, "lists for each number of examples")
    texts: int = option(32, "texts that the model writes freely, at temperature 1")
    text_tokens: int = option(96, "tokens of each")
    copied: int = option(12, "tokens in a row from the corpus that make a text a copy")
    most_tokens: int = option(
        100_000_000, "tokens of the corpus that are looked at, from its beginning"
    )
    batch: int = option(64, "prompts generated together (the texts depend on it)")
    seed: int = option(0, "seed of what is asked, and of the texts")

    def __post_init__(self) -> None:
        for name in (
            "prompt_tokens",
            "answer_tokens",
            "text_tokens",
            "copied",
            "most_tokens",
            "batch",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more")


class Memorization:
    """Recitation, names, patterns and copied text of base models, on any corpus."""

    Config = MemorizationConfig
    smoke: ClassVar[Mapping[str, Any]] = {
        "per_group": 4,
        "per_shots": 3,
        "texts": 4,
        "text_tokens": 16,
        "answer_tokens": 8,
    }
    inputs: ClassVar[Mapping[str, str]] = {"models": "model*", "corpus": "corpus"}
    output: ClassVar[str] = "scores"
    version: ClassVar[str] = "1"

    def run(self, config: MemorizationConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.data import tables, token_store
        from llmstages.plugins.evaluate.answers import average, continued
        from llmstages.plugins.evaluate.likelihood import bits_per_byte
        from llmstages.train.trainer import compute_device, load_model, load_tokenizer, read_meta

        models = ctx.many("models")
        if not models:
            raise StageError(
                f"step {ctx.step!r} has no model to ask; wire steps.{ctx.step}.models=[pretrain]"
            )
        tokenizer = load_tokenizer(
            models[0].path
        )  # decides what a passage is; each model is asked in its own tokens
        shard = token_store.tokens(ctx, ctx.one("corpus"), tokenizer)
        questions = self.questions(config, ctx, shard, tokenizer)
        scores: dict[str, Any] = {}
        answers: list[dict[str, Any]] = []
        for artifact in models:
            set_seed(config.seed)
            model, own = (
                load_model(artifact, ctx).to(compute_device()),
                load_tokenizer(artifact.path),
            )
            with ctx.progress(
                f"{ctx.step} {artifact.name}", 2 * len(questions) + config.texts
            ) as advance:
                how = {
                    "max_new_tokens": config.answer_tokens + 8,
                    "batch": config.batch,
                    "advance": advance,
                }
                marks, said = continued(model, own, questions, how)
                pairs = [
                    (q["prompt"][0]["content"], read_meta(q)["between"] + q["answer"])
                    for q in questions
                ]
                for one, row, bits in zip(
                    marks,
                    said,
                    bits_per_byte(model, own, pairs, config.batch, advance),
                    strict=True,
                ):
                    one |= {"share": kept(row["answer"], row["wanted"]), "bits_per_byte": bits}
                found = average(questions, marks)
                texts, copies = self.texts(config, shard, tokenizer, model, own, how)
            for task, groups in {**found, **copies}.items():
                for group, values in groups.items():
                    scores.setdefault(task, {}).setdefault(group, {})[artifact.name] = values
            answers += [{"model": artifact.name, **row} for row in (*said, *texts)]
        tables.write_json(ctx.out / "scores.json", scores)
        tables.write_lines(ctx.out / "answers.jsonl", answers)
        tables.write_lines(ctx.out / "questions.jsonl", questions)
        return {"questions": len(questions)} | {
            f"{task}/{group}/{name}/{metric}": value
            for task, groups in scores.items()
            for group, by in groups.items()
            for name, values in by.items()
            for metric, value in values.items()
        }

    def questions(
        self, config: MemorizationConfig, ctx: Context, shard: Any, tokenizer: Any
    ) -> list[dict[str, Any]]:
        """All questions; a line says which kinds the corpus has nothing for, and that it was not read whole."""
        from llmstages.plugins.evaluate import passages

        if len(shard.ids) > config.most_tokens:
            ctx.say(
                f"{ctx.step}: looks at the first {config.most_tokens / 1e6:.0f} of {len(shard.ids) / 1e6:.0f} M tokens (most_tokens)"
            )
        kinds = {
            "recitation": passages.recitations(
                shard,
                tokenizer,
                config.prompt_tokens,
                config.answer_tokens,
                config.per_group,
                config.most_tokens,
                random.Random(f"recitation {config.seed}"),
            ),
            "names": passages.names(
                documents(ctx, shard, config.most_tokens),
                config.per_group,
                random.Random(f"names {config.seed}"),
            ),
            "examples": passages.examples(
                documents(ctx, shard, min(config.most_tokens, 1_000_000)),
                config.per_shots,
                random.Random(f"examples {config.seed}"),
            ),
        }
        for kind, rows in kinds.items():
            if not rows:
                ctx.say(
                    f"{ctx.step}: the corpus has nothing to ask for {kind} (too short, or without capitals or blanks)"
                )
        return [row for rows in kinds.values() for row in rows]

    def texts(
        self,
        config: MemorizationConfig,
        shard: Any,
        tokenizer: Any,
        model: Any,
        own: Any,
        how: dict[str, Any],
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Texts written from nothing but BOS: (rows for answers.jsonl, {task: {group: metrics}})."""
        from llmstages.plugins.evaluate import ngram_index
        from llmstages.text import chat_format, generate

        if not config.texts:
            return [], {}
        made, _ = generate.generate(
            model,
            own,
            [chat_format.begin_ids(own) or [own.eos_token_id]] * config.texts,
            temperature=1.0,
            **how | {"max_new_tokens": config.text_tokens},
        )
        written = [chat_format.decode(own, ids) for ids in made]
        ids = chat_format.encode_texts(tokenizer, written)
        lengths = ngram_index.longest(shard, ids, config.most_tokens)
        rows = [
            {
                "task": "copied text",
                "group": "written freely",
                "prompt": "",
                "wanted": "",
                "answer": text,
                "longest": length,
                "tokens": len(tokens),
            }
            for text, length, tokens in zip(written, lengths, ids, strict=True)
        ]
        shared = [length / max(1, len(tokens)) for length, tokens in zip(lengths, ids, strict=True)]
        return rows, {
            "copied text": {
                "written freely": {
                    "copied": sum(length >= config.copied for length in lengths) / len(lengths),
                    "longest_mean": sum(lengths) / len(lengths),
                    "longest_most": max(lengths),
                    "longest_share": sum(shared) / len(shared),
                    "n": len(lengths),
                }
            }
        }


def kept(said: str, wanted: str) -> float:
    """Share of the wanted words that were said before the first other one."""
    words, answer = wanted.split(), said.split()
    same = next(
        (i for i, (a, b) in enumerate(zip(words, answer, strict=False)) if a != b),
        min(len(words), len(answer)),
    )
    if same == len(words) - 1 < len(answer) and re.fullmatch(
        re.escape(words[-1]) + r"\W.*", answer[same]
    ):
        same += 1  # a comma may follow the last one
    return same / max(1, len(words))


def documents(ctx: Context, shard: Any, most: int) -> Iterator[str]:
    """The texts of the corpus, as far as its first ``most`` tokens go."""
    from llmstages.data import tables

    table = tables.load(ctx.one("corpus").path / "data").select_columns(["text"])
    for index in range(len(table)):
        if shard.starts[index] >= most:
            return
        yield table[index]["text"]
