"""Schemas of the tools that an assistant could call, as one JSON text.

They are kept as text because Arrow gives each struct of a column the fields of all rows:
{"a": 1} beside {"b": 2} comes back as {"a": 1, "b": null}, and a model would be shown arguments
that its tool does not have. The order of the keys is kept, because templates show it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmstages.data.formats.errors import SHOWN, InvalidRow
from llmstages.data.formats.values import MISSING_TEXTS

MAY_BE_NULL = ("default", "const")


def schemas(value: Any) -> str:
    """The JSON text of a list of schemas, "" for none.

    Args:
        value: a list of schemas, its JSON text, a list of JSON texts, or one schema.

    Raises InvalidRow if a schema names no tool or is not JSON.
    """
    parsed = _parsed(value)
    if not parsed:
        return ""
    listed = parsed if isinstance(parsed, list) else [parsed]
    tools = [_without_empty(_parsed(schema)) for schema in listed]
    for schema in tools:
        function = schema.get("function", schema) if isinstance(schema, Mapping) else None
        if not isinstance(function, Mapping) or not function.get("name"):
            raise InvalidRow(
                "tools",
                f"tools hold what is not the schema of a named tool: {str(schema)[:SHOWN]}",
            )
    try:
        return json.dumps(tools, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidRow("tools", f"tools hold what JSON cannot express: {error}") from None


def _without_empty(value: Any) -> Any:
    """The same schema without keys that hold null, which mean nothing but for a default.

    Arrow gives the struct of each row the fields of all rows: {"city": {...}, "zone": null}.
    """
    if isinstance(value, Mapping):
        return {
            key: _without_empty(item)
            for key, item in value.items()
            if item is not None or key in MAY_BE_NULL
        }
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value


def _parsed(value: Any) -> Any:
    """A value from JSON text; None for blank text. Other values stay as they are."""
    if not isinstance(value, str):
        return value
    if value.strip().lower() in MISSING_TEXTS:
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidRow("tools", f"tools are not JSON ({error}): {value[:SHOWN]}") from None
