"""How surprised a model is by the right answer, in bits for each byte of it.

Right and wrong say nothing of models that are right nowhere; this falls from the first thing learnt, and compares models of
different tokenizers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llmstages.text import chat_format


def bits_per_byte(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    batch: int,
    advance: Callable[[float], None],
) -> list[float]:
    """Bits per byte of each (text, how it goes on), given the text as the beginning of a document.

    The two are encoded as one, as the model would have read them; what begins in the text counts as part of it. A text too
    long for the model's context loses its beginning, not its BOS.
    """
    import torch

    limit = getattr(model.config, "max_position_embeddings", 1 << 30)
    rows = []
    for whole, ids in zip(
        chat_format.document_ids(tokenizer, [text + rest for text, rest in pairs]),
        chat_format.document_ids(tokenizer, [text for text, _ in pairs]),
        strict=True,
    ):
        shared = next(
            (i for i, (a, b) in enumerate(zip(whole, ids, strict=False)) if a != b),
            min(len(whole), len(ids)),
        )
        first = max(1, min(shared, len(whole) - 1))
        cut = max(0, len(whole) - limit)
        rows.append(([whole[0], *whole[1 + cut :]], max(1, first - cut)))
    out = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    model.eval()
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        width = max(len(rows[i][0]) for i in chosen)
        ids = torch.tensor(
            [rows[i][0] + [tokenizer.pad_token_id] * (width - len(rows[i][0])) for i in chosen],
            device=model.device,
        )
        mask = torch.tensor(
            [[1] * len(rows[i][0]) + [0] * (width - len(rows[i][0])) for i in chosen],
            device=model.device,
        )
        with torch.no_grad():
            logits = (
                model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
            )
        nats = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), ids[:, 1:], reduction="none"
        )
        for line, i in enumerate(chosen):
            sequence, first = rows[i]
            out[i] = (
                float(nats[line, first - 1 : len(sequence) - 1].sum())
                / math.log(2)
                / max(1, len(pairs[i][1].encode()))
            )
        advance(len(chosen))
    return out
