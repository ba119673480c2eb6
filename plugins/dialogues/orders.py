"""Orders for dialogues: which documents they are about, and what the user asks for."""

from __future__ import annotations

import dataclasses as dc
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context

REQUEST_TYPES = (
    "a question about one fact",
    "a question of how or why",
    "a request to explain something to a beginner",
    "a request for a short summary of a subject",
)


@dc.dataclass(frozen=True)
class Order:
    """One dialogue to be written.

    Attributes:
        id: ``DOCUMENT#NUMBER``, unique also where two documents share an id.
        document: the id of the document.
        url: the address of the document.
        text: the text of the document as it is shown to the writer.
        ask: what the user is to ask for (a request type).
    """

    id: str
    document: str
    url: str
    text: str
    ask: str


def take_orders(
    ctx: Context,
    *,
    seed: int,
    documents: int,
    dialogues_per_document: int,
    characters: int,
    request_types: Sequence[str],
) -> list[Order]:
    """The orders for documents drawn by the seed, in the order of the corpus.

    Documents without text are passed over, long ones are cut; both are counted in a message. The
    arguments are the fields of SynthesizeConfig.

    Raises:
        StageError: no document can be shown.
    """
    from llmstages.data import tables

    rng = random.Random(seed)
    source = ctx.one("corpus")
    table = tables.load(source.path / "data")
    chosen = list(range(len(table)))
    if 0 < documents < len(table):
        chosen = sorted(rng.sample(range(len(table)), documents))
    orders: list[Order] = []
    passed_over: Counter[str] = Counter()
    cut = 0
    numbers: Counter[str] = Counter()  # of the dialogues about documents with this id
    for row in table.select(chosen):
        text = _text_of(row)
        if reason := _reason_to_pass_over(row, text):
            passed_over[reason] += 1
            continue
        if len(text) > characters:
            cut += 1
        for _ in range(dialogues_per_document):
            numbers[row["id"]] += 1
            order_id = f"{row['id']}#{numbers[row['id']]}"
            request_type = rng.choice(request_types)
            orders.append(Order(order_id, row["id"], row["url"], text[:characters], request_type))
    for reason, count in passed_over.items():
        ctx.say(f"{ctx.step}: {count} of {len(chosen)} documents passed over: {reason}")
    if cut:
        ctx.say(
            f"{ctx.step}: {cut} documents shown without what follows their first {characters} "
            f"characters ({ctx.step}.characters)"
        )
    if not orders:
        raise StageError(
            f"{ctx.step}: {source.name} holds no document to write about ({len(table)} in all); "
            f"wire a corpus with texts: steps.{ctx.step}.corpus=STEP"
        )
    return orders


def _text_of(row: Mapping[str, Any]) -> str:
    if "text" in row:
        return row["text"]
    return row["body"].decode("utf-8", "replace")


def _reason_to_pass_over(row: Mapping[str, Any], text: str) -> str:
    """Why nothing can be written about a document, or ""."""
    if not text.strip():
        return "no text"
    if row.get("media", "text/plain") != "text/plain":
        return "HTML (wire a corpus step, which extracts the text)"
    return ""
