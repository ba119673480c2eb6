"""tokenizer.wordpiece: longest pieces from the left, as in Bert (Schuster & Nakajima 2012).

Not lossless, by its nature: every kind and number of blanks comes back as one or none, control
characters are dropped, and a word with a character that is not a piece becomes ``[UNK]``. The
report counts both. Good for comparison and for encoders (Devlin et al. 2019); a model that is to
write code or to copy a text should have ``bpe`` or ``unigram``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import option
from llmstages.plugins.tokenizer.trained import Trained, TrainedConfig, finish
from llmstages.text import templates

UNKNOWN = "[UNK]"


@dataclass(frozen=True)
class WordPieceConfig(TrainedConfig):
    vocab_size: int = option(8192, "entries, control tokens included")
    leading_space: bool = option(
        False, "encode every text with one leading space, which Bert's words do not show"
    )
    min_frequency: int = option(2, "a pair must occur this often to be merged", ge=0)
    lowercase: bool = option(False, "drop capitals and accents, as uncased Bert does")
    alphabet: int = option(
        1000,
        "different characters kept, at least those of ASCII; words with others are unknown",
        ge=1,
    )


def build(texts: Iterable[str], config: WordPieceConfig) -> Any:
    """Train on texts; returns a PreTrainedTokenizerFast with chat template and control tokens.

    Args:
        texts: iterated over twice.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    engine: Any = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    engine.normalizer = normalizers.BertNormalizer(
        lowercase=config.lowercase, strip_accents=config.lowercase
    )
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece(cleanup=True)
    alphabet = frequent_characters(texts, engine, config.alphabet)
    # Characters inside a word get their ids here. The trainer would number them in the order of a
    # hash table, a different one in each run, and break ties by these numbers.
    inner = ["##" + character for character in alphabet if _is_inside_words(character, engine)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        special_tokens=[UNKNOWN, *templates.tokens(config.template, config.tools), *inner],
        show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    # A new tokenizer, in which the characters inside words are not special tokens.
    trained: Any = Tokenizer(models.WordPiece(engine.get_vocab(), unk_token=UNKNOWN))
    trained.normalizer = engine.normalizer
    trained.pre_tokenizer = engine.pre_tokenizer
    trained.decoder = engine.decoder
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, unk_token=UNKNOWN, leading_space=config.leading_space
    )
    return finish(tokenizer, config)


def frequent_characters(texts: Iterable[str], engine: Any, count: int) -> list[str]:
    """The most frequent characters after normalization, and all of ASCII; sorted."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(engine.normalizer.normalize_str(text))
    ascii_characters = [chr(code) for code in range(33, 127)]
    others = [c for c in counts if not c.isspace() and c not in ascii_characters]
    others.sort(key=lambda character: (-counts[character], character))
    room = max(0, count - len(ascii_characters))
    return sorted([*ascii_characters, *others[:room]])


def _is_inside_words(character: str, engine: Any) -> bool:
    """Whether a letter and this character stay one word: signs are words of their own."""
    normalized = engine.normalizer.normalize_str("a" + character)
    return len(engine.pre_tokenizer.pre_tokenize_str(normalized)) == 1


class WordPiece(Trained):
    """Train a WordPiece on the corpus; as in Bert, words are split at blanks and signs."""

    Config = WordPieceConfig
    version = "5"
    bytes_per_word: ClassVar[int] = 1300

    def minimum_vocabulary(self, config: WordPieceConfig) -> tuple[int, str]:
        control = len(templates.tokens(config.template, config.tools))
        contents = (
            f"{config.alphabet} characters (alphabet), at the start of a word and inside, "
            f"and {control} control tokens"
        )
        # One more: the unknown token.
        return 2 * config.alphabet + control + 1, contents

    @staticmethod
    def pre_tokenizer(config: WordPieceConfig) -> Any:
        from tokenizers import pre_tokenizers

        return pre_tokenizers.BertPreTokenizer()

    build = staticmethod(build)
