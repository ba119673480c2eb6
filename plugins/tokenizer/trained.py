"""What the trained tokenizers share: options, the run, control tokens, words before merging.

A variant only says how it builds a tokenizer from texts. What comes before (the sample, its memory,
a warning about text without blanks) and after (control tokens, the view, the measurement) is the
same for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.text import pretokenize, templates
from llmstages.train.template_checks import require_template

SAMPLE = "Hello, world! 56+48=104 <|im_start|> naïve 東京 🙂"
COMPARED = ("openai-community/gpt2", "tiktoken:cl100k_base")
COMPARE_HELP = (
    "tokenizers to compare with if they are on this machine: a folder, a hub name in the cache, or "
    "tiktoken:NAME; nothing is downloaded"
)
# Longest text that other programs are told. Training cuts at the context of the model instead.
MAX_LENGTH = 1_000_000
ROLE_REPEATS = 1000  # frequent enough that each role name becomes one token
PATTERNS = {"gpt2": pretokenize.GPT2, "gpt4": pretokenize.GPT4, "llama3": pretokenize.GPT4}


@dataclass(frozen=True)
class TrainedConfig:
    vocab_size: int = option(1024, "entries, control tokens included", ge=1)
    leading_space: bool = option(True, "encode every text with one leading space")
    sample_bytes: int = option(
        1_000_000_000,
        "train on at most this many bytes, a seeded sample of corpus and dialogues; "
        "if there is less text, all of it is used",
        ge=1,
        renamed_from="max_bytes",
    )
    seed: int = option(0, "seed of the sample", ge=0, lt=2**32)
    test_fraction: float = option(
        0.0,
        "share of the documents that are not trained on, so that the report measures on text "
        "never seen",
        ge=0,
        lt=1,
        renamed_from="held_out",
    )
    compare: tuple[str, ...] = option(COMPARED, COMPARE_HELP, identity=False)
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
    tools: list[str] = option(
        help="tools whose calls get control tokens of their own",
        factory=lambda: list(templates.DEFAULT_TOOLS),
    )


@dataclass(frozen=True)
class PatternConfig(TrainedConfig):
    pattern: str = option(
        "gpt2",
        "how words are cut before merging; gpt4 and llama3 share one expression, and llama3 takes "
        "a word that is in the vocabulary whole",
        choices=tuple(PATTERNS),
    )
    split_digits: bool = option(
        True,
        "every digit is a token of its own; off: numbers whole (gpt2) or by three digits "
        "(gpt4, llama3)",
    )


def finish(tokenizer: Any, config: Any) -> Any:
    """Add the control tokens and the chat template that the config names (``template``, ...)."""
    text = ""
    if config.template_file:
        text = templates.read(config.template_file, "template_file")
    templates.install(tokenizer, config.template, text, config.tools)
    tokenizer.padding_side = "left"
    # Where no length is set, transformers writes 10^30, which other programs cannot hold in an
    # integer.
    if tokenizer.model_max_length > 10 * MAX_LENGTH:
        tokenizer.model_max_length = MAX_LENGTH
    return tokenizer


@dataclass(frozen=True)
class TrainingTexts:
    """The texts to train on; may be iterated over again and again."""

    sample: Iterable[str]
    leading_space: bool

    def __iter__(self) -> Iterator[str]:
        prefix = " " if self.leading_space else ""
        for text in self.sample:
            yield prefix + text
        yield from [*templates.ROLES] * ROLE_REPEATS


class Trained:
    """Base of the stages that train a tokenizer on the corpus.

    Attributes:
        bytes_per_word: memory that training takes for each distinct word; measured, see
            sample.WordSurvey.
    """

    Config: ClassVar[type]
    inputs: ClassVar[Mapping[str, str]] = {"corpus": "corpus", "dialogues": "dialogues*"}
    output: ClassVar[str] = "tokenizer"
    version: ClassVar[str] = "3"
    bytes_per_word: ClassVar[int]

    def minimum_vocabulary(self, config: Any) -> tuple[int, str]:
        """(the smallest vocab_size, what has to fit into it)."""
        raise NotImplementedError

    @staticmethod
    def pre_tokenizer(config: Any) -> Any:
        """What cuts texts into words before anything is merged."""
        raise NotImplementedError

    @staticmethod
    def build(texts: Iterable[str], config: Any) -> Any:
        """A tokenizer trained on texts."""
        raise NotImplementedError

    def validate(self, config: Any, step: str) -> None:
        """Refuse a vocabulary without room for what every tokenizer of the kind has."""
        minimum, contents = self.minimum_vocabulary(config)
        if config.vocab_size < minimum:
            raise StageError(
                f"{step}.vocab_size={config.vocab_size} is below {minimum}, "
                f"the room that {contents} need"
            )

    def estimate(self, config: Any, known: Mapping[str, Any]) -> Mapping[str, float]:
        """As many entries as are asked for; a small corpus gives fewer."""
        return {"vocab_size": config.vocab_size}

    def run(self, config: Any, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables
        from llmstages.plugins.tokenizer import measure
        from llmstages.plugins.tokenizer.sample import Sample

        self.validate(config, ctx.step)
        sample = Sample(
            tables.load(ctx.one("corpus").path / "data"),
            [tables.load(source.path / "data") for source in ctx.many("dialogues")],
            sample_bytes=config.sample_bytes,
            seed=config.seed,
            test_fraction=config.test_fraction,
        )
        self._announce(sample, config, ctx)
        tokenizer = self.build(TrainingTexts(sample, config.leading_space), config)
        require_template(tokenizer, ctx.step)
        tokenizer.save_pretrained(ctx.out)
        tables.write_json(ctx.out / "view.json", measure.view_text(tokenizer, config.sample))
        if len(tokenizer) < config.vocab_size:
            ctx.say(
                f"tokenizer: the text gave only {len(tokenizer)} of the {config.vocab_size} "
                "entries asked for"
            )
        return measure.write_report(
            tokenizer,
            sample.measured_documents(),
            ctx,
            held_out=sample.held_out,
            compare=config.compare,
            sample=config.sample,
        )

    def _announce(self, sample: Any, config: Any, ctx: Context) -> None:
        """Say what is trained on and the memory that training will take, before it starts."""
        import json

        from tokenizers import Tokenizer, models

        from llmstages.plugins.tokenizer.sample import SUSPICIOUS_WORD, survey_words

        # Only a whole tokenizer can be written as JSON, so its pre-tokenizer needs one around it.
        engine = Tokenizer(models.BPE())
        engine.pre_tokenizer = self.pre_tokenizer(config)
        spec = json.loads(engine.to_str())["pre_tokenizer"]
        survey = survey_words(sample, spec, sample.bytes)
        part = "all"
        if sample.bytes != sample.total_bytes:
            part = f"a sample (sample_bytes) of {sample.total_bytes / 1e6:.1f} MB"
        memory = survey.training_memory(self.bytes_per_word)
        ctx.say(
            f"tokenizer: training on {sample.bytes / 1e6:.1f} MB of text, {part}; "
            f"about {survey.distinct:,} different words, {memory / 1e9:.1f} GB of memory"
        )
        if len(survey.longest) > SUSPICIOUS_WORD:
            ctx.say(
                f"tokenizer: the longest word before merging has {len(survey.longest):,} "
                f"characters ({survey.longest[:40]!r}...). Text without blanks (DNA, base64) makes "
                "training hang while it counts pairs: drop such documents from the corpus if this "
                "takes long"
            )


def pattern_pre_tokenizer(config: PatternConfig, last: Any) -> Any:
    """A pre-tokenizer that cuts words by the configured pattern and hands them to ``last``."""
    from tokenizers import Regex, pre_tokenizers

    parts: list[Any] = []
    if config.split_digits:
        parts.append(pre_tokenizers.Digits(individual_digits=True))
    parts.append(pre_tokenizers.Split(Regex(PATTERNS[config.pattern]), "isolated"))
    parts.append(last)
    return pre_tokenizers.Sequence(parts)
