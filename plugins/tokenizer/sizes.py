"""Sizes of texts in bytes, words and tokens, by which tokenizers are compared.

A word is a run of letters and digits. In scripts without blanks between words (Japanese, Chinese,
Lao, Tibetan, Burmese, Khmer) each character counts as one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

WORD = re.compile(r"[぀-ヿ㐀-鿿豈-﫿฀-໿က-႟ក-៿]|[^\W぀-ヿ㐀-鿿豈-﫿฀-໿က-႟ក-៿]+")


def text_sizes(texts: Sequence[str], encoded: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Sizes of all texts together, bytes per token, and tokens per word (fertility).

    Args:
        encoded: the token ids of each text.
    """
    size = sum(len(text.encode()) for text in texts)
    tokens = sum(map(len, encoded))
    words = sum(len(WORD.findall(text)) for text in texts)
    return {
        "bytes": size,
        "tokens": tokens,
        "words": words,
        "bytes_per_token": size / max(tokens, 1),
        "tokens_per_word": tokens / max(words, 1),
    }
