"""tokenizer.unigram: each word in its likeliest pieces (Kudo 2018), blanks written as ``▁``.

A character that is not a piece is written as its UTF-8 bytes (``<0xE6>``), so nothing is lost but
one thing: a ``▁`` in the text comes back as a blank. Two flaws of the library are corrected here.
The trainer gives rare characters scores in the order of a hash table, so they are set again in the
order of the characters. The model would read the pieces ``<0x41>`` and ``<unk>`` in a text that
spells them, so they score worse than any other pieces, and control tokens stay out of the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import option
from llmstages.plugins.tokenizer.trained import (
    PatternConfig,
    Trained,
    finish,
    pattern_pre_tokenizer,
)
from llmstages.text import templates

UNKNOWN = "<unk>"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# Always pieces, so that a text that spells a byte piece has no unknown character.
LETTERS = "".join(map(chr, range(33, 127)))
NEVER = -1e6  # score of pieces that no text may be cut into
RARE_STEP = 1e-4  # distance of the scores that the trainer gives rare characters


@dataclass(frozen=True)
class UnigramConfig(PatternConfig):
    vocab_size: int = option(8192, "entries, control tokens and the 256 bytes included")
    max_token_length: int = option(16, "characters of the longest piece", ge=1)


def pre_tokenizer(config: UnigramConfig) -> Any:
    """What cuts texts into words before pieces are found."""
    from tokenizers import pre_tokenizers

    return pattern_pre_tokenizer(config, pre_tokenizers.Metaspace(prepend_scheme="never"))


def build(texts: Iterable[str], config: UnigramConfig) -> Any:
    """Train on texts; returns a PreTrainedTokenizerFast with chat template and control tokens."""
    from tokenizers import Tokenizer, decoders, models, trainers
    from transformers import PreTrainedTokenizerFast

    engine: Any = Tokenizer(models.Unigram())
    engine.pre_tokenizer = pre_tokenizer(config)
    trainer = trainers.UnigramTrainer(
        # Bytes and control tokens are added after training.
        vocab_size=config.vocab_size
        - len(BYTES)
        - len(templates.tokens(config.template, config.tools)),
        special_tokens=[UNKNOWN],
        unk_token=UNKNOWN,
        initial_alphabet=["▁", *LETTERS],
        max_piece_length=config.max_token_length,
        show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    vocabulary = json.loads(engine.to_str())["model"]["vocab"]
    learned = [(piece, score) for piece, score in vocabulary if piece != UNKNOWN]
    never = [(piece, NEVER) for piece in (UNKNOWN, *BYTES)]
    engine.model = models.Unigram([*never, *stable_scores(learned)], unk_id=0, byte_fallback=True)
    engine.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=engine, unk_token=UNKNOWN, leading_space=config.leading_space
    )
    return finish(tokenizer, config)


def stable_scores(vocabulary: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The same pieces, with scores and an order that do not depend on a hash table.

    The trainer gives characters that it has dropped in training the lowest score, each one
    RARE_STEP more than the one before.
    """
    lowest = min(score for _, score in vocabulary)

    def is_rare(piece: str, score: float) -> bool:
        steps = (score - lowest) / RARE_STEP
        is_on_a_step = abs(steps - round(steps)) < 1e-6
        return len(piece) == 1 and is_on_a_step and steps < len(vocabulary)

    scores = []
    for piece, score in vocabulary:
        scores.append((piece, round(lowest if is_rare(piece, score) else score, 6)))
    return sorted(scores, key=lambda entry: (-entry[1], entry[0]))


class Unigram(Trained):
    """Train a Unigram model with byte fallback on the corpus."""

    Config = UnigramConfig
    version = "5"
    bytes_per_word: ClassVar[int] = 2200

    def minimum_vocabulary(self, config: UnigramConfig) -> tuple[int, str]:
        control = len(templates.tokens(config.template, config.tools))
        contents = f"256 bytes, {len(LETTERS)} letters and signs, and {control} control tokens"
        # Two more: the unknown token and the blank.
        return 256 + control + len(LETTERS) + 2, contents

    pre_tokenizer = staticmethod(pre_tokenizer)
    build = staticmethod(build)
