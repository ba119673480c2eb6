"""tokenizer.bpe: byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2) with control tokens.

Digits are split one by one, so that a sum is a sum of digits. Texts are encoded with one leading
space, so that a name has the same tokens at the start of a document and in its middle. All 256
bytes are in the vocabulary, so every text can be encoded and comes back unchanged; a separate byte
fallback is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


@dataclass(frozen=True)
class BPEConfig(PatternConfig):
    vocab_size: int = option(1024, "entries, control tokens and the 256 bytes included")
    min_frequency: int = option(2, "a pair must occur this often to be merged", ge=0)
    max_token_length: int = option(
        0, "characters (bytes as letters) of the longest token; 0 = no limit", ge=0
    )


def pre_tokenizer(config: BPEConfig) -> Any:
    """What cuts texts into words before anything is merged."""
    from tokenizers import pre_tokenizers

    if config.pattern != "gpt2":
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pattern_pre_tokenizer(config, last)
    # ByteLevel has the expression of GPT-2 itself.
    parts: list[Any] = []
    if config.split_digits:
        parts.append(pre_tokenizers.Digits(individual_digits=True))
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False))
    return pre_tokenizers.Sequence(parts)


def build(texts: Iterable[str], config: BPEConfig) -> Any:
    """Train on texts; returns a PreTrainedTokenizerFast with chat template and control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    engine: Any = Tokenizer(models.BPE(ignore_merges=config.pattern == "llama3"))
    engine.pre_tokenizer = pre_tokenizer(config)
    engine.decoder = decoders.ByteLevel()
    arguments: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "min_frequency": config.min_frequency,
        "special_tokens": list(templates.tokens(config.template, config.tools)),
        "initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet()),
        "show_progress": False,
    }
    if config.max_token_length:
        arguments["max_token_length"] = config.max_token_length
    engine.train_from_iterator(texts, trainers.BpeTrainer(**arguments))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=engine, leading_space=config.leading_space)
    return finish(tokenizer, config)


class BPE(Trained):
    """Train a byte-level BPE on the corpus."""

    Config = BPEConfig
    smoke: ClassVar[Mapping[str, Any]] = {"vocab_size": 512}
    version = "6"
    bytes_per_word: ClassVar[int] = 1300

    def minimum_vocabulary(self, config: BPEConfig) -> tuple[int, str]:
        control = len(templates.tokens(config.template, config.tools))
        return 256 + control, f"256 bytes and {control} control tokens"

    pre_tokenizer = staticmethod(pre_tokenizer)
    build = staticmethod(build)
