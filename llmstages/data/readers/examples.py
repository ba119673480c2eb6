"""Rows to examples, for the stages that read dialogues, preferences and problems: what is unusable is kept with its reason."""

from __future__ import annotations

import dataclasses as dc
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.data.formats import InvalidRow, conversation, gathered
from llmstages.data.readers.record import Rejected, clean
from llmstages.data.readers.rows import rows

DROPPED = ("id", "url", "rule", "value", "limit", "excerpt")
EXCERPT = 200
Converter = Callable[[Mapping[str, Any], Counter[str]], dict[str, Any]]


def from_files(files: Iterable[Path]) -> Iterator[tuple[str, Mapping[str, Any] | Rejected]]:
    """(position, row) over several files."""
    for file in files:
        yield from rows(file)


def dialogues(
    source: Iterable[tuple[str, Mapping[str, Any] | Rejected]],
    format: str,
    ctx: Context,
    **limits: int,
) -> Examples:
    """Rows of conversations. format: one of DIALOGUES, or "detect"; limits: as in convert()."""
    form = "" if format == "detect" else format
    return convert(
        gathered(source) if form in ("", "oasst") else source,
        lambda row, left_out: conversation(row, form, left_out),
        ctx,
        **limits,
    )


@dc.dataclass
class Examples:
    """What a source gave: usable examples, dropped rows (as in ``dropped/``), parts left out of usable rows."""

    kept: list[dict[str, Any]]
    dropped: list[dict[str, str]]
    left_out: Counter[str]


def convert(
    source: Iterable[tuple[str, Mapping[str, Any] | Rejected]],
    converter: Converter,
    ctx: Context,
    *,
    limit: int = 0,
    max_characters: int = 0,
) -> Examples:
    """Examples from rows. limit: stop after this many (0: none); max_characters: drop longer examples (0: none)."""
    result = Examples([], [], Counter())
    with ctx.progress("reading", None) as tick:
        for position, row in source:
            tick(1)
            if isinstance(row, Rejected):
                result.dropped.append(row.as_dropped())
                continue
            try:
                left_out: Counter[str] = Counter()
                example = cleaned(converter(row, left_out))
                size = characters(example)
                if max_characters and size > max_characters:
                    raise InvalidRow("too_long", f"{size} characters")
            except InvalidRow as error:
                excerpt = clean(json.dumps(row, ensure_ascii=False, default=str)[:EXCERPT])
                result.dropped.append(
                    Rejected(position, str(error), error.rule).as_dropped(excerpt)
                )
                continue
            result.left_out += left_out
            result.kept.append(example)
            if limit and len(result.kept) >= limit:
                ctx.say(f"stopped after {limit} examples ({ctx.step}.limit); the rest was not read")
                break
    return result


def cleaned(value: Any) -> Any:
    """The same value with text that Arrow and tokenizers accept."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    return (
        {key: cleaned(item) for key, item in value.items()} if isinstance(value, Mapping) else value
    )


def characters(value: Any) -> int:
    """Characters of all messages in an example."""
    if isinstance(value, list):
        return sum(characters(item) for item in value)
    if isinstance(value, Mapping):
        return (
            len(value["content"])
            if "content" in value
            else sum(characters(item) for item in value.values() if isinstance(item, list))
        )
    return 0


def write(result: Examples, ctx: Context, where: str, cure: str = "") -> dict[str, float]:
    """Write data/ and dropped/, say what was left out and return the counts; StageError, with the cure, when nothing is usable."""
    reasons = Counter(row["rule"] for row in result.dropped)
    if not result.kept:
        first = (
            f"; first: {result.dropped[0]['id']}: {result.dropped[0]['value']}"
            if result.dropped
            else "; it has no rows"
        )
        cure = cure or f"Check that it is data for {ctx.step}, or name its format or columns"
        raise StageError(
            f"{where} holds no usable example ({len(result.dropped)} rows dropped{first}). {cure}"
        )
    for rule, count in sorted(reasons.items()):
        example = next(row for row in result.dropped if row["rule"] == rule)
        ctx.say(f"{count} rows dropped: {rule} (first: {example['id']}: {example['value'][:120]})")
    for name, count in sorted(result.left_out.items()):
        ctx.say(f"{count} {name} left out of usable rows")
    tables.save(result.kept, ctx.out / "data")
    tables.save(result.dropped, ctx.out / "dropped", DROPPED)
    return {
        "examples": len(result.kept),
        "dropped": len(result.dropped),
        "parts_left_out": sum(result.left_out.values()),
        **{f"dropped_{rule}": count for rule, count in sorted(reasons.items())},
        "characters": sum(map(characters, result.kept)),
    }
