"""Templates to the page. Numbers and excerpts are formatted here; templates hold words and tags."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmstages.core.console import format_number, format_seconds
from llmstages.plugins.report.chapters import Chapter
from llmstages.plugins.report.claims import Claim, holds
from llmstages.plugins.report.steps import Chain

TEMPLATES = Path(__file__).parent / "templates"
STUDIO = "http://127.0.0.1:8321"  # where `llmstages studio` listens unless told otherwise
THIN_SPACE = "\u202f"
MOST_DIGITS = 9  # of a number beside its target
# Control characters that text may hold: line feed, tab, and the joiners of Indic and Persian words.
HARMLESS = "\n\t\u200c\u200d"


def render(title: str, claims: Sequence[Claim], chapters: Sequence[Chapter], chain: Chain) -> str:
    """The whole page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Everything is escaped. A template that names a value that does not exist is an error.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clip": clip,
        "share": share,
        "figure": figure,
        "beside": beside,
        "chance": chance,
        "percent": percent,
        "count": count,
        "time": format_seconds,
        "visible": visible,
        "target": target,
    }
    models = chain.of_kind("model")
    missed = [claim for claim in claims if not claim.met]
    page = environment.get_template("page.html.j2").render(
        title=title,
        claims=claims,
        met=len(claims) - len(missed),
        certain=sum(claim.certain for claim in claims),
        studio=STUDIO,
        missed=missed,
        chapters=chapters,
        models=len(models),
        steps=len(chain.steps),
        parameters=max((model.metrics.get("parameters") or 0 for model in models), default=0),
        total_seconds=sum(float(step.record.get("seconds") or 0) for step in chain.steps),
    )
    return clean(page)


def clean(text: Any) -> str:
    """Text without control characters and direction marks, which could disguise what follows."""
    return "".join(map(_clean_character, str(text)))


def _clean_character(character: str) -> str:
    if character in HARMLESS or unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
        return character
    return "\ufffd"


def clip(text: Any, most: int = 240) -> str:
    """An excerpt: white space joined, at most ``most`` characters."""
    joined = " ".join(str(text).split())
    if len(joined) <= most:
        return joined
    return joined[: most - 1].rstrip() + "…"


def visible(text: Any) -> str:
    """A token with signs for its white space and for bytes that are not a whole character."""
    shown = str(text).replace("\n", "↵").replace("\t", "⇥").replace("\ufffd", "▯")
    return shown or "∅"


def share(value: Any) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{percent(value)} %"


def percent(value: float) -> str:
    """A share in percent, without the sign: 0 is none and 100 is all, nothing between them."""
    whole = round(100 * value)
    is_false_end = (whole == 0 and value > 0) or (whole == 100 and value < 1)
    if not is_false_end:
        return str(whole)
    fine = f"{100 * value:.1f}"
    if fine in ("0.0", "100.0"):
        return "<0.1" if whole == 0 else ">99.9"
    return fine


def beside(value: Any, text: str) -> str:
    """A measured value beside its target, with enough digits to show on which side it lies."""
    shown = figure(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return shown
    verdict = holds(text, value)
    digits = 3
    while _contradicts(shown, text, verdict) and digits <= MOST_DIGITS:
        shown = f"{value:.{digits}f}"
        digits += 1
    return shown


def _contradicts(shown: str, text: str, verdict: bool) -> bool:
    try:
        return holds(text, float(shown.replace(THIN_SPACE, ""))) != verdict
    except ValueError:
        return False


def chance(value: float) -> str:
    """A p-value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def figure(value: Any) -> str:
    """A measured value: a whole number if it is large, else two decimals or three digits."""
    if value is None:
        return "not measured"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    size = abs(value)
    if isinstance(value, int) or size >= 100 or (size >= 10 and float(value).is_integer()):
        return count(value)
    if value == 0 or size >= 0.01:
        return f"{value:.2f}"
    return format_number(float(value), 3)


def target(text: str) -> str:
    """A target as people write it."""
    return text.replace(">=", "≥ ").replace("<=", "≤ ").replace("==", "= ").replace("  ", " ")


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands."""
    return "–" if value is None else f"{value:,.0f}".replace(",", THIN_SPACE)
