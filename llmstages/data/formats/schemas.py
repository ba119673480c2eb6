"""Schemas of the tools an assistant could call, as one JSON text.

As text, because Arrow gives the structs of a column the fields of all rows: {"a": 1} beside {"b": 2} comes back as {"a": 1, "b": null},
and a model would be shown arguments that its tool does not have. The order of the keys is kept: templates show it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmstages.data.formats.turns import SHOWN, InvalidRow


def schemas(value: Any) -> str:
    """JSON text of a list of schemas, "" of none. value: such a list, its JSON text, a list of JSON texts, or one schema."""
    found = _parsed(value)
    found = (
        [_parsed(one) for one in (found if isinstance(found, list) else [found])] if found else []
    )
    for one in found:
        inner = one.get("function", one) if isinstance(one, Mapping) else None
        if not isinstance(inner, Mapping) or not inner.get("name"):
            raise InvalidRow(
                "tools", f"tools hold what is no schema of a named tool: {str(one)[:SHOWN]}"
            )
    try:
        return json.dumps(found, ensure_ascii=False, allow_nan=False) if found else ""
    except (TypeError, ValueError) as error:
        raise InvalidRow("tools", f"tools hold what JSON cannot say: {error}") from None


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidRow("tools", f"tools are not JSON ({error}): {value[:SHOWN]}") from None
