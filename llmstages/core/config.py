"""A stage's Config, seen from outside: as a schema for Hydra, and back from plain values to the typed instance.

OmegaConf wants mutable dataclasses and knows no tuples, Mappings or Literals, so the schema is a copy of the Config
with the nearest types it does know. build() goes the other way and checks what the types cannot say (``choices``).
Left out on purpose: range checks, which belong in the Config's own ``__post_init__``.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses as dc
import math
import operator
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from llmstages.core.errors import StageError, near

MISSING = "???"
PLAIN = (bool, int, float, str)


@cache
def hints(config: type) -> dict[str, Any]:
    """Field name -> resolved type."""
    return typing.get_type_hints(config)


def make_schema(
    config: type, key: str, value: str, parts: Mapping[str, Mapping[str, str]] | None = None
) -> type:
    """A mutable copy of a Config for OmegaConf, with one more key (``stage: rl.grpo``) and a defaults list for its parts.

    A field called ``seed`` takes the run's ``seed`` unless it is set.
    """
    fields: list[tuple[str, Any, Any]] = [(key, str, dc.field(default=value))]
    for field in dc.fields(config):
        if field.name in (parts or {}):
            fields.append((field.name, dict[str, Any], dc.field(default_factory=dict)))
        elif field.name == "seed":
            fields.append(("seed", int, dc.field(default="${seed}")))
        else:
            fields.append((field.name, _annotation(hints(config)[field.name]), _default(field)))
    if parts:
        chosen = [
            {f"/{group}@{group}.{member}": name}
            for group, members in parts.items()
            for member, name in members.items()
        ]
        fields.append(
            ("defaults", list[Any], dc.field(default_factory=lambda: ["_self_", *chosen]))
        )
    return dc.make_dataclass(
        config.__qualname__.replace(".", "_"), fields, init=False, repr=False, eq=False
    )  # read, never made


def _annotation(hint: Any) -> Any:
    """The nearest type OmegaConf knows."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return type(args[0])
    if origin in (tuple, list, abc.Sequence):
        return list[_annotation(args[0])]
    if origin in (dict, abc.Mapping):
        return dict[str, _annotation(args[1])]
    if origin in (typing.Union, types.UnionType):
        inner = [_annotation(arg) for arg in args if arg is not types.NoneType]
        optional = len(inner) < len(args)
        if len(inner) > 1 and not all(kind in PLAIN for kind in inner):
            return Any  # OmegaConf has no unions of containers; build() still checks what it can
        union = typing.Union[tuple(inner)]
        return typing.Optional[union] if optional else union
    if dc.is_dataclass(hint):
        return _nested(hint)
    return {tuple: list, list: list, dict: dict, abc.Mapping: dict, abc.Sequence: list}.get(
        hint, hint
    )


@cache
def _nested(config: type) -> type:
    """The mutable copy of a dataclass used as a field's type; the same one each time, or defaults would not fit it."""
    return dc.make_dataclass(
        config.__name__,
        [(f.name, _annotation(hints(config)[f.name]), _default(f)) for f in dc.fields(config)],
    )


def _default(field: dc.Field) -> Any:
    if field.default is not dc.MISSING:
        value = field.default
    elif field.default_factory is not dc.MISSING:
        value = field.default_factory()
    else:
        return dc.field(default=MISSING)
    if dc.is_dataclass(value):
        return dc.field(default_factory=lambda: _nested(type(value))(**to_plain(value)))
    value = to_plain(value)
    return (
        dc.field(default_factory=lambda: value)
        if isinstance(value, (list, dict))
        else dc.field(default=value)
    )


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as dicts, lists and strings."""
    if dc.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dc.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return str(value) if hasattr(value, "__fspath__") else value


def build_config(config: type, values: Mapping[str, Any], where: str) -> Any:
    """The typed Config from plain values. ``where`` (``rl`` or ``filters.url``) leads every message."""
    known = {field.name: field for field in dc.fields(config)}
    for name in values:
        if name not in known:
            raise StageError(unknown_key(config, where, name))
    absent = [
        n
        for n, f in known.items()
        if n not in values and f.default is dc.MISSING and f.default_factory is dc.MISSING
    ]
    absent += [n for n, value in values.items() if isinstance(value, str) and value == MISSING]
    if absent:
        texts = "; ".join(
            f"{where}.{n} ({known[n].metadata.get('help') or 'no help text'})" for n in absent
        )
        raise StageError(f"{where} needs a value for {texts}. Set it: {where}.{absent[0]}=VALUE")
    typed = {name: _typed(hints(config)[name], value) for name, value in values.items()}
    for name, value in typed.items():
        _check_plain(f"{where}.{name}", hints(config)[name], value)
        _check_choices(f"{where}.{name}", hints(config)[name], known[name], value)
        _check_range(f"{where}.{name}", allowed_range(config, name), value)
    try:
        return config(**typed)
    except StageError:
        raise
    except (
        ValueError,
        TypeError,
    ) as error:  # raised by a Config's __post_init__: its text is meant for the user
        raise StageError(f"{where}: {error}") from error


def unknown_key(config: type, where: str, name: str) -> str:
    """The message for a key that a Config does not have."""
    known = [field.name for field in dc.fields(config)]
    for new in known:
        if name == declared(config, new, "renamed_from"):
            return f"{where}.{name} was renamed to {where}.{new}"
    return f"{where} has no key {name!r}.{near(name, known)} It has: {', '.join(known)}"


def declared(config: type, name: str, key: str) -> Any:
    """What option() says of a field, by the nearest class that says it: a default may be overridden alone."""
    for base in config.__mro__:
        if dc.is_dataclass(base):
            fields = {field.name: field for field in dc.fields(base)}
            if name in fields and fields[name].metadata.get(key):
                return fields[name].metadata[key]
    return None


def _typed(hint: Any, value: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [arg for arg in args if arg is not types.NoneType]
        return value if value is None or len(inner) > 1 else _typed(inner[0], value)
    if isinstance(value, (list, tuple)):
        items = [_typed(args[0], item) if args else item for item in value]
        return tuple(items) if (origin or hint) is tuple else items
    if hint is float and type(value) is int:
        return float(value)
    if dc.is_dataclass(hint) and isinstance(value, Mapping):
        return hint(**{name: _typed(hints(hint)[name], item) for name, item in value.items()})
    return value


def _check_plain(where: str, hint: Any, value: Any) -> None:
    """Values from Python have met no schema; at least the plain types are checked."""
    if hint in PLAIN and not (
        isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    ):
        raise StageError(f"{where} is {value!r}, which is no {hint.__name__}")


def _check_choices(where: str, hint: Any, field: dc.Field, value: Any) -> None:
    literal = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    choices = tuple(field.metadata.get("choices") or ()) or literal
    if not choices or value is None:
        return
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if item not in choices:
            names = [str(choice) for choice in choices]
            raise StageError(
                f"{where} is {item!r}, which is none of {', '.join(names)}.{near(str(item), names)}"
            )


SIGNS = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}


def allowed_range(config: type, name: str) -> dict[str, float]:
    """The limits of a field by comparison: ``{"gt": 0, "le": 1}``; empty where there are none."""
    return dict(declared(config, name, "range") or {})


def describe_range(limits: Mapping[str, float]) -> str:
    """An allowed range for people, such as ``> 0, <= 1``; "" where there is none."""
    return ", ".join(f"{SIGNS[name][0]} {limit:g}" for name, limit in limits.items())


def _check_range(where: str, limits: Mapping[str, float], value: Any) -> None:
    """Refuse numbers out of the range, and NaN and infinity everywhere."""
    items = value if isinstance(value, (list, tuple)) else (value,)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            continue
        if not math.isfinite(item):
            raise StageError(f"{where} is {item}, which is not a finite number")
        for name, limit in limits.items():
            holds = SIGNS[name][1]
            if not holds(item, limit):
                raise StageError(f"{where} is {item:g}, but it must be {describe_range(limits)}")
