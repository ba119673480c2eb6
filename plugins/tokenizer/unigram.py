"""tokenizer.unigram: pieces of the likeliest cut of each word (Kudo 2018), blanks written as ``▁``, bytes for what is unknown.

A character that is no piece is written as its UTF-8 bytes (``<0xE6>``), so nothing is lost but one thing: a ``▁`` in the text
comes back as a blank. Two flaws of the trainer and the model are mended here. The scores of rare characters follow the
order of a hash table, so they are set again by the character; and the model would read the pieces ``<0x41>`` and ``<unk>``
in a text that spells them, so they score worse than any other way, and the control tokens stay out of the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import option
from llmstages.plugins.tokenizer.trained import PatternConfig, Trained, cut_by, finish
from llmstages.text import templates

UNKNOWN = "<unk>"
BYTES = [f"<0x{b:02X}>" for b in range(256)]
LETTERS = "".join(
    map(chr, range(33, 127))
)  # always pieces, so that a text that spells a byte piece is never unknown
NEVER = -1e6  # score of what no text may be cut into
STEP = 1e-4  # by which the trainer sets rare characters apart


@dataclass(frozen=True)
class UnigramConfig(PatternConfig):
    vocab_size: int = option(8192, "entries, control tokens and the 256 bytes included")
    max_token_length: int = option(16, "characters of the longest piece")


def words(config: UnigramConfig) -> Any:
    """The pre-tokenizer."""
    from tokenizers import pre_tokenizers

    return cut_by(config, pre_tokenizers.Metaspace(prepend_scheme="never"))


def build(texts: Iterable[str], config: UnigramConfig) -> Any:
    """Train on texts; returns a PreTrainedTokenizerFast with chat template and control tokens."""
    from tokenizers import Tokenizer, decoders, models, trainers
    from transformers import PreTrainedTokenizerFast

    engine = Tokenizer(models.Unigram())
    engine.pre_tokenizer = words(config)
    engine.train_from_iterator(
        texts,
        trainers.UnigramTrainer(
            vocab_size=config.vocab_size - len(BYTES) - len(templates.tokens(config.template)),
            special_tokens=[UNKNOWN],
            unk_token=UNKNOWN,
            initial_alphabet=["▁", *LETTERS],
            max_piece_length=config.max_token_length,
            show_progress=False,
        ),
    )
    trained = steady(
        [
            (piece, score)
            for piece, score in json.loads(engine.to_str())["model"]["vocab"]
            if piece != UNKNOWN
        ]
    )
    engine.model = models.Unigram(
        [(UNKNOWN, NEVER), *((piece, NEVER) for piece in BYTES), *trained],
        unk_id=0,
        byte_fallback=True,
    )
    engine.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return finish(
        PreTrainedTokenizerFast(
            tokenizer_object=engine, unk_token=UNKNOWN, leading_space=config.leading_space
        ),
        config,
    )


def steady(vocabulary: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The same pieces, with scores and an order that do not depend on a hash table.

    The trainer gives characters that training has dropped the least score, each one STEP more than the one before.
    """
    least = min(score for _, score in vocabulary)
    rare = {
        piece
        for piece, score in vocabulary
        if len(piece) == 1
        and abs((score - least) / STEP - round((score - least) / STEP)) < 1e-6
        and (score - least) / STEP < len(vocabulary)
    }
    scores = [(piece, least if piece in rare else score) for piece, score in vocabulary]
    return sorted(
        ((piece, round(score, 6)) for piece, score in scores), key=lambda one: (-one[1], one[0])
    )


class Unigram(Trained):
    """Train a Unigram model with byte fallback on the corpus."""

    Config = UnigramConfig
    version = "4"
    word: ClassVar[int] = 2200

    def smallest(self, config: UnigramConfig) -> tuple[int, str]:
        return (
            256 + len(templates.tokens(config.template)) + len(LETTERS) + 2,
            f"256 bytes, {len(LETTERS)} letters and signs, and {len(templates.tokens(config.template))} control tokens",
        )

    words = staticmethod(words)
    build = staticmethod(build)
