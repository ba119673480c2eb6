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
    tools = [_parsed(schema) for schema in listed]
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


def _parsed(value: Any) -> Any:
    """A value from JSON text; None for blank text. Other values stay as they are."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidRow("tools", f"tools are not JSON ({error}): {value[:SHOWN]}") from None
