"""tokenizer.bpe: byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2) with the control tokens of chat and tools.

Digits are split one by one, so that a sum is a sum of digits. Texts are encoded with one leading space, so that a name
is the same tokens at the start of a document and in its middle. Left to later: pre-tokenizer patterns by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.stage import Context, StageError, option

SAMPLE = "Hello, world! 56+48=104 <|im_start|> naïve 東京 🙂"


@dataclass(frozen=True)
class BPEConfig:
    vocab_size: int = option(1024, "entries, control tokens and the 256 bytes included")
    min_frequency: int = option(2, "a pair must occur this often to be merged")
    split_digits: bool = option(True, "every digit is a token of its own")
    leading_space: bool = option(True, "encode every text with one leading space")
    max_characters: int = option(200_000_000, "train on at most this much text, taken from the start of the corpus")
    sample: str = option(SAMPLE, "text shown token by token in the report")


def build(texts: Any, config: BPEConfig) -> Any:
    """Train on an iterable of texts; returns a PreTrainedTokenizerFast with chat template and control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from llmstages import chat

    engine = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if config.split_digits else []
    engine.pre_tokenizer = pre_tokenizers.Sequence([*digits, byte_level])
    engine.decoder = decoders.ByteLevel()
    engine.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=config.vocab_size, min_frequency=config.min_frequency, special_tokens=list(chat.CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    return finish(PreTrainedTokenizerFast(tokenizer_object=engine, leading_space=config.leading_space))


def finish(tokenizer: Any) -> Any:
    """Name the control tokens and set the chat template."""
    from llmstages import chat

    tokenizer.add_special_tokens({"bos_token": chat.BOS, "eos_token": chat.END, "pad_token": chat.PAD,
                                  "extra_special_tokens": [t for t in chat.CONTROL if t not in (chat.BOS, chat.END, chat.PAD)]})
    tokenizer.chat_template = chat.TEMPLATE
    tokenizer.padding_side = "left"
    return tokenizer


def view(tokenizer: Any, text: str) -> dict[str, Any]:
    """The tokens of a text: id, the text piece, its bytes in hex."""
    from llmstages import chat
    from llmstages.pieces import pieces

    shown = pieces(tokenizer, chat.encode_texts(tokenizer, [text])[0])
    return {"text": text, "tokens": [{"id": p.id, "text": p.text, "bytes": p.hex} for p in shown]}


class BPE:
    """Train a byte-level BPE on the corpus."""

    Config = BPEConfig
    inputs: ClassVar[Mapping[str, str]] = {"corpus": "corpus", "dialogues": "dialogues*"}
    output: ClassVar[str] = "tokenizer"
    version: ClassVar[str] = "1"

    def run(self, config: BPEConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages import chat, tables

        if config.vocab_size < 256 + len(chat.CONTROL):
            raise StageError(f"tokenizer.vocab_size={config.vocab_size} is below 256 bytes + {len(chat.CONTROL)} control tokens")
        texts, size = [], 0
        for text in tables.load(ctx.one("corpus").path / "data")["text"]:
            texts.append(" " + text if config.leading_space else text)
            size += len(text)
            if size > config.max_characters:
                ctx.say(f"tokenizer: trained on the first {config.max_characters / 1e6:.0f} million characters (max_characters)")
                break
        space = " " if config.leading_space else ""
        spoken = [space + m["content"] for source in ctx.many("dialogues") for row in tables.load(source.path / "data")["messages"] for m in row]
        if not texts:
            raise StageError("the corpus is empty, so there is nothing to train a tokenizer on; look at `llmstages show corpus`")
        roles = [*chat.ROLES] * 1000  # the four role names become one token each
        tokenizer = build([*texts, *spoken, *roles], config)
        tokenizer.save_pretrained(ctx.out)
        tables.write_json(ctx.out / "view.json", view(tokenizer, config.sample))
        some = texts[:: max(1, len(texts) // 2000)]
        encoded = tokenizer(some, add_special_tokens=False)["input_ids"]
        tokens = sum(map(len, encoded))
        lost = sum(tokenizer.decode(ids) != text for ids, text in zip(encoded, some, strict=True))
        if len(tokenizer) < config.vocab_size:
            ctx.say(f"tokenizer: the corpus gave only {len(tokenizer)} of the {config.vocab_size} entries asked for")
        return {"vocab_size": len(tokenizer), "bytes_per_token": sum(len(t.encode()) for t in some) / max(tokens, 1),
                "round_trip_failures": lost, "sample_tokens": len(chat.encode_texts(tokenizer, [config.sample])[0])}
