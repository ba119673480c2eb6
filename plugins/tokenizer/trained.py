"""What the trained tokenizers share: their settings, the run, the control tokens, the words before merging.

A variant says how it builds a tokenizer from texts; everything before (the sample, its memory, a warning of words that are
none) and after (control tokens, the view, the measurement) is the same for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.text import pretokenize, templates
from llmstages.train.checks import require_template

SAMPLE = "Hello, world! 56+48=104 <|im_start|> naïve 東京 🙂"
AT_HAND = ("openai-community/gpt2", "tiktoken:cl100k_base")
LONGEST = 1_000_000  # tokens that other programs are told a text may have; what cuts in training is the context of the model
PATTERNS = {"gpt2": pretokenize.GPT2, "gpt4": pretokenize.GPT4, "llama3": pretokenize.GPT4}


@dataclass(frozen=True)
class TrainedConfig:
    vocab_size: int = option(1024, "entries, control tokens included")
    leading_space: bool = option(True, "encode every text with one leading space")
    sample_bytes: int = option(
        1_000_000_000,
        "train on at most this many bytes, a seeded sample of corpus and dialogues; of less, all is used",
        renamed_from="max_bytes",
    )
    seed: int = option(0, "of the sample")
    test_fraction: float = option(
        0.0,
        "share of the documents that are not trained on, so that the report measures on text never seen",
        renamed_from="held_out",
    )
    compare: tuple[str, ...] = option(
        AT_HAND,
        "tokenizers to compare with where they are at hand: a folder, a hub name in the cache, or tiktoken:NAME; "
        "nothing is downloaded",
        identity=False,
    )
    sample: str = option(SAMPLE, "text shown token by token in the report")
    template: str = option(
        templates.DEFAULT,
        "chat template; its control tokens become entries",
        choices=tuple(templates.NAMED),
    )
    template_file: str = option(
        "",
        "a chat template of your own in Jinja, with the control tokens of ``template``",
        file=True,
    )


@dataclass(frozen=True)
class PatternConfig(TrainedConfig):
    pattern: str = option(
        "gpt2",
        "how words are cut before merging; gpt4 and llama3 share one expression, and llama3 takes a word that "
        "is in the vocabulary whole",
        choices=tuple(PATTERNS),
    )
    split_digits: bool = option(
        True,
        "every digit is a token of its own; off: numbers whole (gpt2) or by three digits (gpt4, llama3)",
    )


def finish(tokenizer: Any, config: Any) -> Any:
    """Name the control tokens and set the chat template of the settings (``template``, ``template_file``)."""
    templates.install(
        tokenizer,
        config.template,
        templates.read(config.template_file, "template_file") if config.template_file else "",
    )
    tokenizer.padding_side = "left"
    if (
        tokenizer.model_max_length > 10 * LONGEST
    ):  # unset is 10^30, which other programs cannot hold in an integer
        tokenizer.model_max_length = LONGEST
    return tokenizer


def view(tokenizer: Any, text: str) -> dict[str, Any]:
    """The tokens of a text: id, the text piece, its bytes in hex."""
    from llmstages.text import chat_format
    from llmstages.text.token_view import view_tokens

    shown = view_tokens(tokenizer, chat_format.encode_texts(tokenizer, [text])[0])
    return {"text": text, "tokens": [{"id": p.id, "text": p.text, "bytes": p.hex} for p in shown]}


@dataclass(frozen=True)
class Texts:
    """What is trained on; may be gone through again and again."""

    sample: Iterable[str]
    space: str

    def __iter__(self) -> Iterator[str]:
        yield from (self.space + text for text in self.sample)
        yield from [*templates.ROLES] * 1000  # the four role names become one token each


class Trained:
    """Base of the stages that train a tokenizer on the corpus."""

    Config: ClassVar[type]
    inputs: ClassVar[Mapping[str, str]] = {"corpus": "corpus", "dialogues": "dialogues*"}
    output: ClassVar[str] = "tokenizer"
    version: ClassVar[str] = "2"
    word: ClassVar[
        int
    ]  # bytes of memory that training takes for each different word; measured, see sample.Words

    def smallest(self, config: Any) -> tuple[int, str]:
        """The least vocabulary, and what must fit into it."""
        raise NotImplementedError

    def words(self, config: Any) -> Any:
        """The pre-tokenizer."""
        raise NotImplementedError

    def build(self, texts: Iterable[str], config: Any) -> Any:
        """A tokenizer trained on texts."""
        raise NotImplementedError

    def estimate(self, config: Any, known: Mapping[str, Any]) -> Mapping[str, float]:
        """As many entries as are asked for; a small corpus gives fewer."""
        return {"vocab_size": config.vocab_size}

    def run(self, config: Any, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables
        from llmstages.plugins.tokenizer import measure
        from llmstages.plugins.tokenizer.sample import Sample

        least, why = self.smallest(config)
        if config.vocab_size < least:
            raise StageError(
                f"{ctx.step}.vocab_size={config.vocab_size} is below {least}, the room that {why} need"
            )
        sample = Sample(
            tables.load(ctx.one("corpus").path / "data"),
            [tables.load(d.path / "data") for d in ctx.many("dialogues")],
            sample_bytes=config.sample_bytes,
            seed=config.seed,
            test_fraction=config.test_fraction,
        )
        self.announce(sample, config, ctx)
        tokenizer = self.build(Texts(sample, " " if config.leading_space else ""), config)
        require_template(tokenizer, ctx.step)
        tokenizer.save_pretrained(ctx.out)
        tables.write_json(ctx.out / "view.json", view(tokenizer, config.sample))
        if len(tokenizer) < config.vocab_size:
            ctx.say(
                f"tokenizer: the text gave only {len(tokenizer)} of the {config.vocab_size} entries asked for"
            )
        return measure.write(
            tokenizer,
            sample.measured(),
            ctx,
            held_out=sample.held_out,
            compare=config.compare,
            sample=config.sample,
        )

    def announce(self, sample: Any, config: Any, ctx: Context) -> None:
        """Say what is trained on and the memory it will take, before it takes it."""
        import json

        from tokenizers import Tokenizer, models

        from llmstages.plugins.tokenizer.sample import ABSURD, words

        engine = Tokenizer(models.BPE())
        engine.pre_tokenizer = self.words(config)
        found = words(sample, json.loads(engine.to_str())["pre_tokenizer"], sample.bytes)
        part = (
            "all"
            if sample.bytes == sample.total
            else f"a sample (max_bytes) of {sample.total / 1e6:.1f} MB"
        )
        ctx.say(
            f"tokenizer: training on {sample.bytes / 1e6:.1f} MB of text, {part}; about {found.different:,} different words, "
            f"{found.memory(self.word) / 1e9:.1f} GB of memory"
        )
        if len(found.longest) > ABSURD:
            ctx.say(
                f"tokenizer: the longest word before merging has {len(found.longest):,} characters ({found.longest[:40]!r}...). Text without "
                "blanks (DNA, base64) makes training hang while it counts pairs: drop such documents from the corpus if this takes long"
            )


def cut_by(config: Any, last: Any) -> Any:
    """A pre-tokenizer that cuts words by the pattern of the settings and hands them to ``last``."""
    from tokenizers import Regex, pre_tokenizers

    digits = [pre_tokenizers.Digits(individual_digits=True)] if config.split_digits else []
    return pre_tokenizers.Sequence(
        [*digits, pre_tokenizers.Split(Regex(PATTERNS[config.pattern]), "isolated"), last]
    )
