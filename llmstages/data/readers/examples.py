"""Rows to examples, for the stages that read dialogues, preferences and problems.

Rows that cannot be used are kept with the reason, as rows of the ``dropped/`` table.
"""

from __future__ import annotations

import dataclasses as dc
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.data.dialogues import mark_test_rows
from llmstages.data.formats import InvalidRow, conversation, gather_trees, treat_reasoning
from llmstages.data.formats.values import map_leaves, without_missing
from llmstages.data.readers.record import SURROGATES, Rejected, clean
from llmstages.data.readers.rows import rows

STRAY_BYTE = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8, as surrogateescape reads it
MOST_STRAY = 0.5  # of the characters of a text in a western language
REPLACED = "characters that are not Unicode replaced by U+FFFD (is the file in another encoding?)"
NULS = "NUL characters left out, which no tokenizer has"
WINDOWS = "bytes that are not UTF-8 read as Windows-1252"
EXCERPT = 200  # characters of a dropped row that are kept

# (position, row), as rows() and hub_rows() yield them.
PositionedRow = tuple[str, Mapping[str, Any] | Rejected]

# (row, counts of what is left out of it) -> example; raises InvalidRow.
Converter = Callable[[Mapping[str, Any], Counter[str]], dict[str, Any]]


def from_files(files: Iterable[Path]) -> Iterator[PositionedRow]:
    """(position, row) over several files."""
    for file in files:
        yield from rows(file)


@dc.dataclass
class Examples:
    """What a source gave.

    Attributes:
        kept: the usable examples.
        dropped: rows of the ``dropped/`` table.
        left_out: counts of what was left out of usable rows, by name.
        characters: REPLACED and WINDOWS, each with how many characters there were.
    """

    kept: list[dict[str, Any]]
    dropped: list[dict[str, str]]
    left_out: Counter[str]
    characters: Counter[str] = dc.field(default_factory=Counter)


def convert_dialogues(
    source: Iterable[PositionedRow],
    format: str,
    ctx: Context,
    *,
    reasoning: str = "keep",
    **limits: int,
) -> Examples:
    """Conversations from rows.

    format: one of DIALOGUES, or "detect"; reasoning: one of REASONING; limits: as in convert().
    """
    row_format = "" if format == "detect" else format
    if row_format in ("", "oasst"):
        source = gather_trees(source)

    def converter(row: Mapping[str, Any], left_out: Counter[str]) -> dict[str, Any]:
        example = conversation(row, row_format, left_out)
        example["messages"] = treat_reasoning(example["messages"], reasoning, left_out)
        return example

    return convert(source, converter, ctx, **limits)


def convert(
    source: Iterable[PositionedRow],
    converter: Converter,
    ctx: Context,
    *,
    limit: int = 0,
    max_characters: int = 0,
) -> Examples:
    """Examples from rows.

    Args:
        source: (position, row).
        converter: makes an example of a row.
        ctx: for progress and messages.
        limit: stop after so many examples; 0: read all.
        max_characters: drop examples with longer texts; 0: keep all.
    """
    result = Examples([], [], Counter())
    with ctx.progress("reading", None) as tick:
        for position, row in source:
            tick(1)
            if isinstance(row, Rejected):
                result.dropped.append(row.as_dropped())
                continue
            left_out: Counter[str] = Counter()
            try:
                readable = decoded_values(without_missing(row), result.characters)
                example = clean_values(converter(readable, left_out))
                size = count_characters(example)
                if max_characters and size > max_characters:
                    raise InvalidRow("too_long", f"{size} characters")
            except InvalidRow as error:
                rejected = Rejected(position, str(error), error.rule)
                excerpt = json.dumps(row, ensure_ascii=False, default=str)[:EXCERPT]
                result.dropped.append(rejected.as_dropped(clean(excerpt)))
                continue
            result.left_out += left_out
            result.kept.append(example)
            if limit and len(result.kept) >= limit:
                ctx.say(f"stopped after {limit} examples ({ctx.step}.limit); the rest was not read")
                break
    return result


def write_dialogues(
    result: Examples, test_fraction: float, ctx: Context, where: str
) -> dict[str, float]:
    """Write conversations as ``write`` does, a share of them marked as kept out of training."""
    if not test_fraction or not result.kept:
        return write(result, ctx, where)
    tests = mark_test_rows(result.kept, test_fraction)
    return {**write(result, ctx, where), "test": tests}


def decoded_values(value: Any, counts: Counter[str]) -> Any:
    """The same value, with a character for every byte in its texts that is not UTF-8."""

    def change(leaf: Any) -> Any:
        is_readable = not isinstance(leaf, str) or (leaf.isascii() and "\0" not in leaf)
        return leaf if is_readable else _decoded(leaf, counts)

    return map_leaves(value, change)


def _decoded(text: str, counts: Counter[str]) -> str:
    """A text with its stray bytes as Windows-1252, which spreadsheets write, or as U+FFFD.

    Among characters that are valid UTF-8 a stray byte is damage, and so are many of them.
    """
    counts[NULS] += text.count("\0")
    stray = STRAY_BYTE.findall(text)
    others = SURROGATES.sub("", text)
    counts[REPLACED] += len(text) - len(others) - len(stray)
    if not stray:
        return text
    is_windows = others.isascii() and len(stray) <= MOST_STRAY * len(text)
    if not is_windows:
        counts[REPLACED] += len(stray)
        return text
    counts[WINDOWS] += len(stray)
    return STRAY_BYTE.sub(
        lambda match: bytes([ord(match[0]) - 0xDC00]).decode("cp1252", "replace"), text
    )


def clean_values(value: Any) -> Any:
    """The same value, with every text in it as Arrow and tokenizers accept it."""
    return map_leaves(value, lambda leaf: clean(leaf) if isinstance(leaf, str) else leaf)


def count_characters(value: Any) -> int:
    """The characters of all messages in an example."""
    if isinstance(value, list):
        return sum(map(count_characters, value))
    if not isinstance(value, Mapping):
        return 0
    if "content" in value:
        return len(value["content"])
    return sum(count_characters(item) for item in value.values() if isinstance(item, list))


def write(result: Examples, ctx: Context, where: str, advice: str = "") -> dict[str, float]:
    """Write data/ and dropped/, report what was left out, and return the counts.

    Raises StageError if there is no usable example. where: names the source in this message;
    advice: what to do about it, as a sentence.
    """
    if not result.kept:
        if result.dropped:
            first = result.dropped[0]
            detail = f"; first: {first['id']}: {first['value']}"
        else:
            detail = "; it has no rows"
        if not advice:
            advice = f"Check that it is data for {ctx.step}, or name its format or columns"
        raise StageError(
            f"{where} holds no usable example ({len(result.dropped)} rows dropped{detail}). "
            f"{advice}"
        )
    reasons: Counter[str] = Counter()
    first_dropped: dict[str, dict[str, str]] = {}
    for row in result.dropped:
        reasons[row["rule"]] += 1
        first_dropped.setdefault(row["rule"], row)
    for rule, count in sorted(reasons.items()):
        first = first_dropped[rule]
        ctx.say(f"{count} rows dropped: {rule} (first: {first['id']}: {first['value'][:120]})")
    for name, count in sorted(result.left_out.items()):
        ctx.say(f"{count} {name} left out of usable rows")
    for name, count in sorted(result.characters.items()):
        if count:
            ctx.say(f"{count} {name}")
    tables.save(result.kept, ctx.out / "data")
    tables.save(result.dropped, ctx.out / "dropped", tables.DROPPED_COLUMNS)
    metrics: dict[str, float] = {
        "examples": len(result.kept),
        "dropped": len(result.dropped),
        "parts_left_out": sum(result.left_out.values()),
    }
    for rule, count in sorted(reasons.items()):
        metrics[f"dropped_{rule}"] = count
    metrics["replaced"] = result.characters[REPLACED]
    metrics["characters"] = sum(map(count_characters, result.kept))
    return metrics
