"""What the validation loss is compared with: the bytes of its text, and token frequencies.

Both count the same tokens as the loss: those of the held-out rows whose label is not -100, the
ends of documents included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.data.packing import Packed

Rows = Packed | Sequence[Mapping[str, Any]]


def tokens_per_byte(rows: Rows, tokenizer: Any, documents: int) -> float:
    """Tokens under the loss for each byte of UTF-8 text that they stand for.

    The loss in nats per token, times this, divided by ln 2, is in bits per byte. Control tokens
    stand for no byte. In WordPiece the blank before a word counts as one byte. The blank before
    the first word of a document, which the text does not have, never counts.

    Args:
        rows: the held-out rows, with ``labels``.
        tokenizer: of the rows.
        documents: number of documents in them.
    """
    import numpy as np

    from llmstages.text.token_view import view_tokens

    labels = np.concatenate([row["labels"] for row in rows])
    ids, counts = np.unique(labels[labels != -100], return_counts=True)
    engine = getattr(tokenizer, "backend_tokenizer", None)
    is_wordpiece = "WordPiece" in str(getattr(engine, "decoder", ""))
    tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
    sizes = []
    for view, token in zip(view_tokens(tokenizer, ids.tolist()), tokens, strict=True):
        begins_word = is_wordpiece and not view.control and not token.startswith("##")
        sizes.append(len(view.raw) + begins_word)
    size = (counts * np.array(sizes, np.int64)).sum()
    if is_wordpiece or tokenizer.init_kwargs.get("leading_space"):
        size -= documents
    return float(counts.sum() / max(1, size))


def unigram_loss(rows: Rows, counts: Any) -> float:
    """Cross-entropy in nats of the held-out tokens under the token frequencies of training.

    Args:
        rows: the held-out rows, with ``labels``.
        counts: occurrences in training by token id. One is added to each (add-one smoothing).
    """
    frequencies = dict(enumerate(counts.tolist()))
    tokens: list[int] = []
    for row in rows:
        tokens += [token for token in row["labels"].tolist() if token != -100]
    seen_in_training = sum(count > 0 for count in frequencies.values())
    # One more for all tokens that training has not seen.
    total = sum(frequencies.values()) + seen_in_training + 1
    log_likelihood = sum(math.log((frequencies.get(token, 0) + 1) / total) for token in tokens)
    return -log_likelihood / max(len(tokens), 1)
