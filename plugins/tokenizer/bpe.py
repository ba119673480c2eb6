"""tokenizer.bpe: byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2) with the control tokens of chat and tools.

Digits are split one by one, so that a sum is a sum of digits. Texts are encoded with one leading space, so that a name
is the same tokens at the start of a document and in its middle. All 256 bytes are in the vocabulary, so there is no text
that it cannot write, and none that does not come back: a separate byte fallback is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.stage import option
from llmstages.plugins.tokenizer.trained import PatternConfig, Trained, cut_by, finish, view
from llmstages.text import templates

__all__ = ["BPE", "BPEConfig", "build", "finish", "view"]


@dataclass(frozen=True)
class BPEConfig(PatternConfig):
    vocab_size: int = option(1024, "entries, control tokens and the 256 bytes included")
    min_frequency: int = option(2, "a pair must occur this often to be merged")
    max_token_length: int = option(
        0, "characters (bytes as letters) of the longest token; 0: no limit"
    )


def words(config: BPEConfig) -> Any:
    """The pre-tokenizer."""
    from tokenizers import pre_tokenizers

    if config.pattern != "gpt2":
        return cut_by(config, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    digits = [pre_tokenizers.Digits(individual_digits=True)] if config.split_digits else []
    return pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def build(texts: Iterable[str], config: BPEConfig) -> Any:
    """Train on texts; returns a PreTrainedTokenizerFast with chat template and control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    engine = Tokenizer(models.BPE(ignore_merges=config.pattern == "llama3"))
    engine.pre_tokenizer = words(config)
    engine.decoder = decoders.ByteLevel()
    limit = {"max_token_length": config.max_token_length} if config.max_token_length else {}
    engine.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            min_frequency=config.min_frequency,
            special_tokens=list(templates.tokens(config.template)),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
            **limit,
        ),
    )
    return finish(
        PreTrainedTokenizerFast(tokenizer_object=engine, leading_space=config.leading_space), config
    )


class BPE(Trained):
    """Train a byte-level BPE on the corpus."""

    Config = BPEConfig
    smoke: ClassVar[Mapping[str, Any]] = {"vocab_size": 512}
    version = "5"
    word: ClassVar[int] = 1300

    def smallest(self, config: BPEConfig) -> tuple[int, str]:
        return 256 + len(
            templates.tokens(config.template)
        ), f"256 bytes and {len(templates.tokens(config.template))} control tokens"

    words = staticmethod(words)
    build = staticmethod(build)
