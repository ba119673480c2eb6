"""Token ids as people can read them: the text and bytes of each, and whether it is a control token.

Supported are the tokenizer families of the hub: byte-level BPE (GPT-2, Llama 3, Qwen),
SentencePiece with byte fallback, and WordPiece. A token may contain a part of a character: its text
then shows U+FFFD, its bytes are exact.
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
    """One token.

    raw: its bytes; empty for a control token, which stands for no text, and for an unknown token,
    whose text is lost.
    """

    id: int
    text: str
    raw: bytes
    control: bool

    @property
    def hex(self) -> str:
        """The bytes as hexadecimal numbers."""
        return self.raw.hex(" ")


@cache
def byte_characters() -> dict[str, int]:
    """The printable characters by which GPT-2 writes bytes: character -> byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {chr(byte): byte for byte in printable}
    characters.update((chr(256 + index), byte) for index, byte in enumerate(others))
    return characters


def view_tokens(tokenizer: Any, ids: Sequence[int]) -> list[TokenView]:
    """The tokens of ids, in order."""
    added = tokenizer.get_added_vocab()
    added_ids = set(added.values())
    control_ids = set(tokenizer.all_special_ids)
    control_ids.update(id for token, id in added.items() if token.startswith("<"))
    byte_level = _is_byte_level(tokenizer)
    views = []
    for id, name in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True):
        token = "" if name is None else str(name)
        if id in control_ids:
            views.append(TokenView(int(id), token, b"", True))
            continue
        # An added token is stored as text, whatever the tokenizer does with the others.
        raw = token.encode() if id in added_ids else _bytes_of(token, byte_level)
        views.append(TokenView(int(id), raw.decode("utf-8", "replace"), raw, False))
    return views


def _bytes_of(token: str, byte_level: bool) -> bytes:
    characters = byte_characters()
    if byte_level and all(character in characters for character in token):
        return bytes(characters[character] for character in token)
    fallback = FALLBACK.fullmatch(token)
    if fallback:
        return bytes([int(fallback[1], 16)])
    if token.startswith("##"):
        return token[2:].encode()
    return token.replace("▁", " ").encode()


def _is_byte_level(tokenizer: Any) -> bool:
    """Whether tokens are written in GPT-2's characters for bytes.

    The decoder says it; the tokens do not, since "é" is a legal token elsewhere.
    """
    engine = getattr(tokenizer, "backend_tokenizer", None)
    return "ByteLevel" in str(getattr(engine, "decoder", "")) or hasattr(tokenizer, "byte_decoder")
