"""tokenizer.wordpiece: the longest pieces from the left, as in Bert (Schuster and Nakajima 2012; Devlin et al. 2019).

Not lossless, by its nature: every kind and number of blanks comes back as one or none, control characters are dropped, and
a word with a character that is no piece becomes ``[UNK]``. The report counts both. Good for comparison and for encoders;
a model that is to write code or copy a text back should have ``bpe`` or ``unigram``.
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
    min_frequency: int = option(2, "a pair must occur this often to be merged")
    lowercase: bool = option(False, "drop capitals and accents, as uncased Bert does")
    alphabet: int = option(
        1000, "different characters kept, at least those of ASCII; words with others are unknown"
    )


def build(texts: Iterable[str], config: WordPieceConfig) -> Any:
    """Train on texts, which are gone through twice; returns a PreTrainedTokenizerFast with chat template and control tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    engine = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    engine.normalizer = normalizers.BertNormalizer(
        lowercase=config.lowercase, strip_accents=config.lowercase
    )
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece(cleanup=True)
    alphabet = characters(texts, engine, config.alphabet)
    # Inner characters get their numbers here: the trainer would number them by a hash table, another one in each run, and break ties by that.
    inner = [
        "##" + c
        for c in alphabet
        if len(engine.pre_tokenizer.pre_tokenize_str(engine.normalizer.normalize_str("a" + c))) == 1
    ]
    engine.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=config.vocab_size,
            min_frequency=config.min_frequency,
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            special_tokens=[UNKNOWN, *templates.tokens(config.template), *inner],
            show_progress=False,
        ),
    )
    made = Tokenizer(
        models.WordPiece(engine.get_vocab(), unk_token=UNKNOWN)
    )  # without the inner characters as special tokens
    made.normalizer, made.pre_tokenizer, made.decoder = (
        engine.normalizer,
        engine.pre_tokenizer,
        engine.decoder,
    )
    return finish(
        PreTrainedTokenizerFast(
            tokenizer_object=made, unk_token=UNKNOWN, leading_space=config.leading_space
        ),
        config,
    )


def characters(texts: Iterable[str], engine: Any, most: int) -> list[str]:
    """The most frequent characters, those of ASCII in any case."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(engine.normalizer.normalize_str(text))
    ascii = [chr(c) for c in range(33, 127)]
    often = sorted(
        (c for c in counts if not c.isspace() and c not in ascii), key=lambda c: (-counts[c], c)
    )
    return sorted([*ascii, *often[: max(0, most - len(ascii))]])


class WordPiece(Trained):
    """Train a WordPiece on the corpus, as Bert has it: words are split at blanks and signs, and blanks are lost."""

    Config = WordPieceConfig
    version = "4"
    word: ClassVar[int] = 1300

    def smallest(self, config: WordPieceConfig) -> tuple[int, str]:
        return (
            2 * config.alphabet + len(templates.tokens(config.template)) + 1,
            f"{config.alphabet} characters (alphabet), at the start of a word and inside, and {len(templates.tokens(config.template))} control tokens",
        )

    def words(self, config: WordPieceConfig) -> Any:
        from tokenizers import pre_tokenizers

        return pre_tokenizers.BertPreTokenizer()

    build = staticmethod(build)
