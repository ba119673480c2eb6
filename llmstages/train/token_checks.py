"""Checks of rendered rows: token ids, loss mask and lengths (see checks.py)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmstages.data.segments import Segments
from llmstages.text import chat_format
from llmstages.text.render import Rendered
from llmstages.text.templates import template_of
from llmstages.train.checks import NAMED_ROWS, Check, check_value

MIN_END_SUPERVISED_SHARE = 0.9


def check_rows(
    rows: Sequence[Rendered] | Segments,
    tokenizer: Any,
    names: Sequence[str] = (),
    *,
    min_supervised: float = 0.001,
    templated: bool | Sequence[bool] = True,
    context: int = 0,
    needs_bos: bool = False,
) -> list[Check]:
    """All checks that need the tokens and the loss mask of the rows.

    Args:
        rows: what a step trains on.
        tokenizer: the tokenizer of the rows.
        names: the names of the rows; a row without one is called by its number.
        min_supervised: the smallest share of tokens that carry loss.
        templated: which rows are dialogues in a chat template, in contrast to running text.
        context: the longest row in tokens that the model can take; 0 if any length will do.
        needs_bos: whether dialogues must begin with BOS, also if the template does not write it.
    """
    import numpy as np

    # Token stores on disk are Segments already; only rows in memory are converted.
    segments = rows if isinstance(rows, Segments) else Segments.of(rows)
    named = _NamedRows(segments, names)
    checks = _check_supervision(named, min_supervised)
    is_dialogue = np.broadcast_to(np.asarray(templated, bool), len(segments))
    checks.append(_check_padding(named, tokenizer))
    checks.append(_check_beginning(named, is_dialogue, tokenizer, needs_bos))
    if context:
        checks.append(_check_lengths(named, context))
    if is_dialogue.any():
        checks += _check_turns(named, is_dialogue, tokenizer)
    return checks


class _NamedRows:
    """Rows as flat arrays of tokens, and their names."""

    def __init__(self, segments: Segments, names: Sequence[str]) -> None:
        self.segments = segments
        self._names = names

    def __len__(self) -> int:
        return len(self.segments)

    def where(self, failed: Any) -> list[str]:
        """Names of the first rows at which the boolean array ``failed`` is true."""
        import numpy as np

        return [self._name(index) for index in np.flatnonzero(failed)[:NAMED_ROWS]]

    def _name(self, index: int) -> str:
        return self._names[index] if index < len(self._names) else f"row {index}"


def _check_supervision(rows: _NamedRows, min_supervised: float) -> list[Check]:
    tokens = int(rows.segments.sizes().sum())
    supervised = rows.segments.supervised()
    unsupervised = supervised == 0
    return [
        check_value(
            "row_count",
            "number of rows",
            value=len(rows),
            limit=1,
            passed=len(rows) > 0,
            fix="the inputs gave no rows: look at the steps before",
        ),
        check_value(
            "supervised_share",
            "share of tokens that carry loss",
            value=int(supervised.sum()) / max(tokens, 1),
            limit=min_supervised,
            passed=supervised.sum() >= min_supervised * tokens,
            fix="hardly any token is trained on: make sure that there are assistant turns",
        ),
        check_value(
            "rows_without_loss",
            "rows without a supervised token",
            value=unsupervised.sum(),
            limit=0,
            passed=not unsupervised.any(),
            fix="drop dialogues that have no assistant turn, or whose answer was cut off",
            rows=rows.where(unsupervised),
        ),
    ]


def _check_padding(rows: _NamedRows, tokenizer: Any) -> Check:
    """Padding inside rows, where the padding token has no other use.

    Many models pad with the token that ends turns, which belongs into every row.
    """
    import numpy as np

    pad = tokenizer.pad_token_id
    padded = np.zeros(len(rows), bool)
    if pad is not None and pad not in _written_by_template(tokenizer):
        padded = rows.segments.occurrences(pad) > 0
    return check_value(
        "padding_inside",
        "rows with padding inside",
        value=padded.sum(),
        limit=0,
        passed=not padded.any(),
        fix="padding is added when batches are made, never before: remove the padding tokens",
        rows=rows.where(padded),
    )


def _written_by_template(tokenizer: Any) -> set[int | None]:
    """Ids that stand in rows for a reason: of the chat template, and around documents."""
    ids: set[int | None] = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    if template_of(tokenizer):
        control = chat_format.control_tokens(tokenizer)
        ids |= {control.end, *control.heads}
    return ids


def _check_beginning(rows: _NamedRows, is_dialogue: Any, tokenizer: Any, needs_bos: bool) -> Check:
    """Whether rows begin as every text of every stage does.

    Dialogues begin as the chat template writes it, which check_dialogue_template compares with
    transformers; here a BOS must not stand there twice. Running text begins with one BOS.
    """
    import numpy as np

    begin = chat_format.begin_ids(tokenizer)
    wrong = np.zeros(len(rows), bool)
    if begin:
        bos = begin[0]
        occurrences = rows.segments.occurrences(bos)
        begins = rows.segments.begins_with(bos)
        # A second BOS would tell the model that another text begins.
        wrong = np.where(is_dialogue, begins & (occurrences > 1), ~begins | (occurrences != 1))
        if needs_bos or chat_format.begins_with_bos(tokenizer):
            wrong |= is_dialogue & ~begins
    return check_value(
        "bos_count",
        "rows with a BOS missing or twice",
        value=wrong.sum(),
        limit=0,
        passed=not wrong.any(),
        fix="every text of every stage begins in the same way, with BOS once where the chat "
        "template writes it: it is missing, or a text carries its own",
        rows=rows.where(wrong),
    )


def _check_lengths(rows: _NamedRows, context: int) -> Check:
    sizes = rows.segments.sizes()
    too_long = sizes > context
    return check_value(
        "row_length",
        "tokens in the longest row",
        value=sizes.max(initial=0),
        limit=context,
        passed=not too_long.any(),
        fix="the model knows no positions beyond its context: lower max_length, or split long "
        "dialogues",
        rows=rows.where(too_long),
    )


def _check_turns(rows: _NamedRows, is_dialogue: Any, tokenizer: Any) -> list[Check]:
    """Checks of the control tokens that begin and end turns."""
    end = chat_format.control_tokens(tokenizer).end
    # Running text has no turns, so it needs no end of turn either.
    ended = is_dialogue & _end_supervised(rows.segments, end)
    headers = _headers_supervised(rows.segments, is_dialogue, tokenizer)
    return [
        check_value(
            "end_of_turn_supervised",
            "share of dialogues whose end of turn carries loss",
            value=ended.sum() / is_dialogue.sum(),
            limit=MIN_END_SUPERVISED_SHARE,
            passed=ended.sum() >= MIN_END_SUPERVISED_SHARE * is_dialogue.sum(),
            fix="the end token carries no loss, so the model would never learn to stop: it must "
            "stand inside the template's {% generation %} block",
            rows=rows.where(is_dialogue & ~ended),
        ),
        check_value(
            "headers_supervised",
            "rows whose headers carry loss",
            value=headers.sum(),
            limit=0,
            passed=not headers.any(),
            fix="the loss is also computed on what the user says: correct the mask, which the "
            "template's {% generation %} block decides",
            rows=rows.where(headers),
        ),
    ]


def _end_supervised(segments: Segments, end: int | None) -> Any:
    """For each row, whether an end of turn carries loss."""
    import numpy as np

    if end is None:
        return np.zeros(len(segments), bool)
    return segments.occurrences(end, supervised=True) > 0


def _headers_supervised(segments: Segments, is_dialogue: Any, tokenizer: Any) -> Any:
    """For each row, whether a token of a turn's header carries loss."""
    import numpy as np

    count = np.zeros(len(segments), np.int64)
    for header in chat_format.control_tokens(tokenizer).heads:
        count += segments.occurrences(header, supervised=True)
    supervised = count > 0
    # Templates without control tokens in their headers: there the first token gives it away.
    for index in np.flatnonzero(is_dialogue).tolist():
        if _first_token_supervised(segments, index, tokenizer.bos_token_id):
            supervised[index] = True
    return supervised


def _first_token_supervised(segments: Segments, index: int, bos: int | None) -> bool:
    """Whether the first token after the BOS carries loss; it belongs to the header of a turn."""
    ids, supervised = segments.read(index)
    begins_with_bos = bos is not None and len(ids) > 0 and ids[0] == bos
    first = 1 if begins_with_bos else 0
    return len(ids) > first and bool(supervised[first])


def check_model(folder: Path, tokenizer: Any) -> list[Check]:
    """Check that every token has an embedding in the model in ``folder``.

    There is no check if the model's config does not say how many embeddings there are.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # The config is read instead of the weights, which can be many gigabytes.
    embeddings = config.get("vocab_size", 0)
    if not embeddings:
        return []
    return [
        check_value(
            "tokens_without_embedding",
            "tokens without an embedding",
            value=max(0, len(tokenizer) - embeddings),
            limit=0,
            passed=len(tokenizer) <= embeddings,
            fix="use the tokenizer that the model was trained with",
        )
    ]
