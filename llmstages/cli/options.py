"""What a user may set: the fields of a Config as rows of a table."""

from __future__ import annotations

import dataclasses as dc
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from llmstages.core import registry
from llmstages.core.config import allowed_range, declared, describe_range, hints, to_plain
from llmstages.pipeline.plan import short


def option_rows(
    config: type, components: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, str, str, str]]:
    """(key, default, allowed values, help text) of each field of a Config class.

    Args:
        components: field -> the components that it has by default, as a stage declares them.
    """
    for field in dc.fields(config):
        default = default_of(field)
        if declared_ones := (components or {}).get(field.name):
            default = ", ".join(registry.default_components(declared_ones))
        yield (
            field.name,
            default,
            allowed_values(config, field.name),
            help_of(config, field),
        )


def default_of(field: dc.Field) -> str:
    """The default of a field for people."""
    if field.default is not dc.MISSING:
        return short(to_plain(field.default))
    if field.default_factory is not dc.MISSING:
        return short(to_plain(field.default_factory()))
    return "(required)"


def allowed_values(config: type, name: str) -> str:
    """The choices or the range of a field for people; "" where anything of its type is allowed."""
    hint = hints(config)[name]
    literal = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    choices: tuple[Any, ...] = tuple(declared(config, name, "choices") or ()) or literal
    if choices:
        return "|".join(str(choice) for choice in choices)
    return describe_range(allowed_range(config, name))


def help_of(config: type, field: dc.Field) -> str:
    """The help text of a field, with a note if it does not enter the fingerprint."""
    text = declared(config, field.name, "help") or ""
    if not field.metadata.get("identity", True):
        text += " (not part of the fingerprint)"
    return text
