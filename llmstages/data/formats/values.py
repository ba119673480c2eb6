"""What a cell of a file may be, by one rule for all formats: missing, a text, a number, JSON."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

# Beginnings of a JSON list of turns or of an object, as spreadsheets and exports hold them.
JSON_STARTS = ("[", "{")
LOOKS_LIKE_TURNS = re.compile(
    r"""\s*(?:array\()?\[?\s*\{\s*["'](?:role|from|content|value)["']\s*:"""
)
# What other programs write into the cell of a table for nothing.
MISSING_TEXTS = ("", "none", "null", "nan", "<na>")


def is_missing(value: Any) -> bool:
    """Whether a value stands for nothing: null, or what other programs write for it (NaN)."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same mappings and lists, with ``change`` applied to all that is neither."""
    if isinstance(value, Mapping):
        return {key: map_leaves(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_leaves(item, change) for item in value]
    return change(value)


def without_missing(value: Any) -> Any:
    """The same value with null for every NaN and infinity in it."""
    return map_leaves(value, lambda leaf: None if is_missing(leaf) else leaf)


def scalar_text(value: Any) -> str | None:
    """A text, number or boolean as text, as JSON writes it; None for other values."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return None


def parsed_turns(value: Any) -> Any:
    """The list of turns that a cell holds as JSON text; any other value as it is.

    Only what is a turn by its fields is taken for one, so a text about JSON stays a text.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(JSON_STARTS):
        return value
    parsed = _parsed(value)
    listed = parsed if isinstance(parsed, list) else [parsed]
    return parsed if listed and all(map(_is_turn, listed)) else value


def _parsed(text: str) -> Any:
    """The value of a JSON text, or of Python's way to write it, as pandas does into CSV."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(_WithoutNames().visit(ast.parse(text.strip(), mode="eval")))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


class _WithoutNames(ast.NodeTransformer):
    """Puts None for ``nan`` and ``null``, which stand for nothing in what pandas writes."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        is_nothing = node.id.lower() in MISSING_TEXTS
        return ast.Constant(None) if is_nothing else node


def looks_like_turns(text: str) -> bool:
    """Whether a cell is written as turns, in whatever way: ``[{'role': ...} {'role': ...}]``."""
    return LOOKS_LIKE_TURNS.match(text) is not None


def _is_turn(value: Any) -> bool:
    return isinstance(value, Mapping) and bool({"role", "from"} & value.keys())
