"""Templates to the page. Numbers, shares and excerpts are formatted here, so that templates hold words and tags only."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmstages.core.console import format_number, format_seconds
from llmstages.plugins.report.claims import Claim
from llmstages.plugins.report.steps import Chain


def render(
    title: str, claims: Sequence[Claim], chapters: Sequence[dict[str, Any]], chain: Chain
) -> str:
    """The whole page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    engine = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {
        "clip": clip,
        "share": share,
        "figure": figure,
        "count": count,
        "time": format_seconds,
        "visible": visible,
        "target": target,
    }
    models = chain.kind("model")
    largest = max((m.metrics.get("parameters") or 0 for m in models), default=0)
    text = engine.get_template("page.html.j2").render(
        title=title,
        claims=claims,
        met=sum(c.met for c in claims),
        missed=[c for c in claims if not c.met],
        chapters=chapters,
        models=len(models),
        steps=len(chain.steps),
        parameters=largest,
        seconds_in_all=sum(float(s.record.get("seconds") or 0) for s in chain.steps),
    )
    return clean(text)


def clean(text: Any) -> str:
    """Text without control characters and marks that turn the direction of writing, which could disguise what follows."""
    return "".join(
        c
        if c in "\n\t\u200c\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
        else "\ufffd"
        for c in str(text)
    )


def clip(text: Any, most: int = 240) -> str:
    """An excerpt: white space joined, cut at ``most`` characters."""
    joined = " ".join(str(text).split())
    return joined if len(joined) <= most else joined[: most - 1].rstrip() + "…"


def visible(text: Any) -> str:
    """A token with its white space to be seen."""
    return str(text).replace("\n", "↵").replace("\t", "⇥").replace("\ufffd", "▯") or "∅"


def share(value: Any) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{100 * value:.0f} %"


def figure(value: Any) -> str:
    """A measured value, two decimals where it is of the size of a share."""
    if value is None:
        return "not measured"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if (
        isinstance(value, int)
        or abs(value) >= 100
        or (float(value).is_integer() and abs(value) >= 10)
    ):
        return count(value)
    return (
        f"{value:.2f}" if 0.01 <= abs(value) < 100 or value == 0 else format_number(float(value), 3)
    )


def target(text: str) -> str:
    """A target as people write it."""
    return text.replace(">=", "≥ ").replace("<=", "≤ ").replace("==", "= ").replace("  ", " ")


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")
