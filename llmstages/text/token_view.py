"""Token ids as people can read them: the text and bytes of each, and whether it is a control token.

Works for the tokenizer families of the hub: byte-level BPE (GPT-2, Llama 3, Qwen), SentencePiece with byte fallback, and
WordPiece. A token need not be whole characters: its text then shows U+FFFD, its bytes are exact.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class TokenView:
    """One token. raw is empty for a control token, which stands for no text, and for an unknown one, whose text is lost."""

    id: int
    text: str
    raw: bytes
    control: bool

    @property
    def hex(self) -> str:
        return self.raw.hex(" ")


@cache
def byte_characters() -> dict[str, int]:
    """GPT-2's printable stand-in -> byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return {**{chr(b): b for b in shown}, **{chr(256 + i): b for i, b in enumerate(hidden)}}


def view_tokens(tokenizer: Any, ids: Sequence[int]) -> list[TokenView]:
    """The pieces of ids, in order."""
    added = tokenizer.get_added_vocab()
    control = {
        *tokenizer.all_special_ids,
        *(i for token, i in added.items() if token.startswith("<")),
    }
    plain = {i: token for token, i in added.items()}
    byte_level = _byte_level(tokenizer)
    out = []
    for index, (id, token) in enumerate(
        zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True)
    ):
        token = "" if token is None else str(token)
        if id in control:
            out.append(TokenView(int(id), token, b"", True))
            continue
        raw = token.encode() if id in plain else _bytes(token, byte_level, first=index == 0)
        out.append(TokenView(int(id), raw.decode("utf-8", "replace"), raw, False))
    return out


def _bytes(token: str, byte_level: bool, first: bool) -> bytes:
    table = byte_characters()
    if byte_level and all(c in table for c in token):
        return bytes(table[c] for c in token)
    if match := FALLBACK.fullmatch(token):
        return bytes([int(match[1], 16)])
    if token.startswith("##"):
        return token[2:].encode()
    return token.replace("▁", " ").encode()


def _byte_level(tokenizer: Any) -> bool:
    """Whether tokens are spelt in GPT-2's stand-ins; asked of the decoder, since "é" is a legal token elsewhere."""
    engine = getattr(tokenizer, "backend_tokenizer", None)
    return "ByteLevel" in str(getattr(engine, "decoder", "")) or hasattr(tokenizer, "byte_decoder")
