"""evaluate.memorization: what a base model has kept of its corpus, whatever text that is.

Does it recite passages, by how often they occur (Carlini et al. 2023, "Quantifying Memorization")?
Does it know names, by how often they are mentioned (Kandpal et al. 2023)? Does it see a pattern
from examples (Brown et al. 2020)? How much of what it writes freely stands in the corpus word for
word?

The questions are made from the text itself (passages.py) and saved beside the scores, in
questions.jsonl. Each is scored by what the model writes (``right``, and ``share``: of the words
before the first other one) and by how surprised the model is by the answer (``bits_per_byte``).
They are in the words of the corpus, most of which the model was trained on: they say what it
keeps, not how good it is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.train.inference import dtype_option

EXTRA_TOKENS = 8  # beyond answer_tokens, since an answer may be written in more tokens
EXAMPLE_TOKENS = 1_000_000  # of the corpus, from which common words are taken


@dataclass(frozen=True)
class MemorizationConfig:
    prompt_tokens: int = option(16, "tokens of a passage that are shown", ge=1)
    answer_tokens: int = option(24, "tokens that must follow word for word", ge=1)
    per_group: int = option(50, "questions in each group of passages and names", ge=0)
    per_shots: int = option(48, "lists for each number of examples", ge=0)
    texts: int = option(32, "texts that the model writes freely, at temperature 1", ge=0)
    text_tokens: int = option(96, "tokens of each of these texts", ge=1)
    copied: int = option(12, "tokens in a row from the corpus that make a text a copy", ge=1)
    most_tokens: int = option(
        100_000_000, "tokens of the corpus that are read, from its beginning", ge=1
    )
    batch: int = option(64, "prompts generated together (the texts depend on it)", ge=1)
    seed: int = option(0, "seed of the questions and of the texts", ge=0, lt=2**32)
    dtype: str = dtype_option()


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

    def estimate(
        self, config: MemorizationConfig, known: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Time and memory of all continuations, if the corpus has every question asked for."""
        from llmstages.cost.generation import Generation, models_of
        from llmstages.plugins.evaluate.passages import COPIES, MENTIONS, SHOTS

        models = models_of(known["models"])
        if isinstance(models, str):
            return {"no_estimate": models}
        groups = len(COPIES) + len(MENTIONS)
        number = groups * config.per_group + len(SHOTS) * config.per_shots
        generation = Generation(
            models,
            number + config.texts,
            max(config.answer_tokens + EXTRA_TOKENS, config.text_tokens),
            config.batch,
            because=f"{number} questions and {config.texts} texts at most, {len(models)} models",
        )
        return {"questions": number, "generation": generation}

    def run(self, config: MemorizationConfig, ctx: Context) -> Mapping[str, float]:
        from transformers import set_seed

        from llmstages.data import tables, token_store
        from llmstages.train.inference import load_for_inference
        from llmstages.train.trainer import load_tokenizer

        models = ctx.many("models")
        if not models:
            raise StageError(
                f"step {ctx.step!r} has no model to ask; wire steps.{ctx.step}.models=[pretrain]"
            )
        # It decides what a passage is. Each model is asked in its own tokens.
        tokenizer = load_tokenizer(models[0].path)
        shard = token_store.tokens(ctx, ctx.one("corpus"), tokenizer)
        questions = self.questions(config, ctx, shard, tokenizer)
        scores: dict[str, Any] = {}
        answers: list[dict[str, Any]] = []
        metrics: dict[str, float] = {"questions": len(questions)}
        for artifact in models:
            set_seed(config.seed)
            model = load_for_inference(artifact, ctx, config.dtype)
            own_tokenizer = load_tokenizer(artifact.path)
            total = 2 * len(questions) + config.texts
            with ctx.progress(f"{ctx.step} {artifact.name}", total) as advance:
                options = {"batch": config.batch, "advance": advance}
                model_scores, rows = self.ask(config, model, own_tokenizer, questions, options)
                texts = self.write_texts(config, model, own_tokenizer, options)
            if texts:
                text_scores, text_rows = self.copied_texts(config, shard, tokenizer, texts)
                model_scores["copied text"] = {"written freely": text_scores}
                rows += text_rows
            answers += [{"model": artifact.name, **row} for row in rows]
            for task, groups in model_scores.items():
                for group, values in groups.items():
                    scores.setdefault(task, {}).setdefault(group, {})[artifact.name] = values
        for task, groups in scores.items():
            for group, by_model in groups.items():
                for name, values in by_model.items():
                    for metric, value in values.items():
                        metrics[f"{task}/{group}/{name}/{metric}"] = value
        tables.write_json(ctx.out / "scores.json", scores)
        tables.write_lines(ctx.out / "answers.jsonl", answers)
        tables.write_lines(ctx.out / "questions.jsonl", questions)
        return metrics

    def questions(
        self, config: MemorizationConfig, ctx: Context, shard: Any, tokenizer: Any
    ) -> list[dict[str, Any]]:
        """All questions.

        A message says which kinds the corpus has nothing for, and that it was not read whole.
        """
        from llmstages.plugins.evaluate import passages

        if len(shard.ids) > config.most_tokens:
            ctx.say(
                f"{ctx.step}: reads the first {config.most_tokens / 1e6:.0f} of "
                f"{len(shard.ids) / 1e6:.0f} M tokens (most_tokens)"
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
                documents(ctx, shard, min(config.most_tokens, EXAMPLE_TOKENS)),
                config.per_shots,
                random.Random(f"examples {config.seed}"),
            ),
        }
        for kind, rows in kinds.items():
            if not rows:
                ctx.say(
                    f"{ctx.step}: the corpus has nothing to ask for {kind} (too short, or without "
                    "capitals or blanks)"
                )
        return [row for rows in kinds.values() for row in rows]

    def ask(
        self,
        config: MemorizationConfig,
        model: Any,
        tokenizer: Any,
        questions: Sequence[dict[str, Any]],
        options: Mapping[str, Any],
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Put the questions to a model: (task -> group -> metric, rows of answers.jsonl)."""
        from llmstages.plugins.evaluate.answers import average, continue_texts
        from llmstages.plugins.evaluate.likelihood import bits_per_byte
        from llmstages.train.trainer import read_meta

        longest = config.answer_tokens + EXTRA_TOKENS
        marks, rows = continue_texts(
            model, tokenizer, questions, {"max_new_tokens": longest, **options}
        )
        pairs = [
            (row["prompt"][0]["content"], read_meta(row)["between"] + row["answer"])
            for row in questions
        ]
        surprise = bits_per_byte(model, tokenizer, pairs, options["batch"], options["advance"])
        for mark, row, bits in zip(marks, rows, surprise, strict=True):
            mark["share"] = recited_share(row["answer"], row["wanted"])
            mark["bits_per_byte"] = bits
        return average(questions, marks), rows

    def write_texts(
        self, config: MemorizationConfig, model: Any, tokenizer: Any, options: Mapping[str, Any]
    ) -> list[str]:
        """Texts that a model writes after nothing but BOS."""
        from llmstages.text import chat_format, generate

        if not config.texts:
            return []
        prompt = chat_format.begin_ids(tokenizer) or [tokenizer.eos_token_id]
        texts, _ = generate.generate(
            model,
            tokenizer,
            [prompt] * config.texts,
            temperature=1.0,
            max_new_tokens=config.text_tokens,
            **options,
        )
        return [chat_format.decode(tokenizer, ids) for ids in texts]

    def copied_texts(
        self, config: MemorizationConfig, shard: Any, tokenizer: Any, texts: Sequence[str]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """How much of each text stands in the corpus: (metrics, rows of answers.jsonl)."""
        from llmstages.plugins.evaluate import ngram_index
        from llmstages.text import chat_format

        ids = chat_format.encode_texts(tokenizer, texts)
        lengths = ngram_index.longest(shard, ids, config.most_tokens)
        sizes = [len(tokens) for tokens in ids]
        shares = [length / max(1, size) for length, size in zip(lengths, sizes, strict=True)]
        rows = [
            {
                "task": "copied text",
                "group": "written freely",
                "prompt": "",
                "wanted": "",
                "answer": text,
                "longest": length,
                "tokens": size,
            }
            for text, length, size in zip(texts, lengths, sizes, strict=True)
        ]
        metrics = {
            "copied": sum(length >= config.copied for length in lengths) / len(lengths),
            "longest_mean": sum(lengths) / len(lengths),
            "longest_most": max(lengths),
            "longest_share": sum(shares) / len(shares),
            "n": len(lengths),
        }
        return metrics, rows


def recited_share(answer: str, wanted: str) -> float:
    """Share of the wanted words that the answer has before its first other word."""
    wanted_words, words = wanted.split(), answer.split()
    same = 0
    for wanted_word, word in zip(wanted_words, words, strict=False):
        if wanted_word != word:
            break
        same += 1
    # A comma may follow the last wanted word.
    if same == len(wanted_words) - 1 and same < len(words):
        last = re.escape(wanted_words[-1]) + r"\W.*"
        if re.fullmatch(last, words[same]):
            same += 1
    return same / max(1, len(wanted_words))


def documents(ctx: Context, shard: Any, most: int) -> Iterator[str]:
    """The texts of the corpus, as far as its first ``most`` tokens reach."""
    from llmstages.data import tables

    table = tables.load(ctx.one("corpus").path / "data").select_columns(["text"])
    for index in range(len(table)):
        if shard.starts[index] >= most:
            return
        yield table[index]["text"]
