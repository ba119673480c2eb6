"""The Config of a stage, from outside: as a schema for Hydra, and back from values to an instance.

OmegaConf wants mutable dataclasses and knows no tuples, Mappings or Literals, so the schema is a
copy of the Config with the nearest types that it knows. build_config() goes the other way and
checks what types cannot say: choices and ranges. Checks over several fields belong in
``__post_init__``.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses as dc
import importlib.util
import math
import operator
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from llmstages.core.errors import MissingValueError, StageError, near

MISSING = "???"  # OmegaConf's mark of a value that must be set
PLAIN = (bool, int, float, str)
COMPARISONS = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}
# What OmegaConf takes for containers without a type of their items
BARE_CONTAINERS = {tuple: list, list: list, dict: dict, abc.Mapping: dict, abc.Sequence: list}


@cache
def hints(config: type) -> dict[str, Any]:
    """Field name -> resolved type."""
    return typing.get_type_hints(config)


def make_schema(
    config: type,
    key: str,
    value: str,
    components: Mapping[str, Mapping[str, str]] | None = None,
) -> type:
    """A mutable copy of a Config for OmegaConf.

    It has one more key (``stage: rl.grpo``) and, where there are components, a defaults list for
    them. A field called ``seed`` takes the ``seed`` of the run unless it is set.

    Args:
        key, value: the key to add, and its value.
        components: field -> member -> name of its default component.
    """
    fields: list[tuple[str, Any, Any]] = [(key, str, dc.field(default=value))]
    for field in dc.fields(config):
        if field.name in (components or {}):
            fields.append((field.name, dict[str, Any], dc.field(default_factory=dict)))
        elif field.name == "seed":
            fields.append(("seed", int, dc.field(default="${seed}")))
        else:
            fields.append((field.name, _annotation(hints(config)[field.name]), _default(field)))
    if components:
        defaults: list[Any] = ["_self_"]
        for group, members in components.items():
            for member, name in members.items():
                defaults.append({f"/{group}@{group}.{member}": name})
        fields.append(("defaults", list[Any], dc.field(default_factory=lambda: defaults)))
    name = config.__qualname__.replace(".", "_")
    # OmegaConf reads the class and makes no instance of it.
    return dc.make_dataclass(name, fields, init=False, repr=False, eq=False)


def _annotation(hint: Any) -> Any:
    """The nearest type that OmegaConf knows."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return type(args[0])
    if origin in (tuple, list, abc.Sequence):
        return list[_annotation(args[0])]
    if origin in (dict, abc.Mapping):
        return dict[str, _annotation(args[1])]
    if origin in (typing.Union, types.UnionType):
        return _union(args)
    if dc.is_dataclass(hint) and isinstance(hint, type):
        return _nested(hint)
    return BARE_CONTAINERS.get(hint, hint)


def _union(args: tuple[Any, ...]) -> Any:
    inner = [_annotation(arg) for arg in args if arg is not types.NoneType]
    if len(inner) > 1 and not all(kind in PLAIN for kind in inner):
        return Any  # OmegaConf has no unions of containers; build_config() checks what it can
    union = typing.Union[tuple(inner)]  # noqa: UP007 (the members are known at run time only)
    optional = len(inner) < len(args)
    return typing.Optional[union] if optional else union  # noqa: UP045


@cache
def _nested(config: type) -> type:
    """The mutable copy of a dataclass used as a field's type.

    It is the same copy each time: otherwise a default would not be an instance of it.
    """
    fields = [
        (field.name, _annotation(hints(config)[field.name]), _default(field))
        for field in dc.fields(config)
    ]
    return dc.make_dataclass(config.__name__, fields)


def _default(field: dc.Field) -> Any:
    if field.default is not dc.MISSING:
        value = field.default
    elif field.default_factory is not dc.MISSING:
        value = field.default_factory()
    else:
        return dc.field(default=MISSING)
    plain = to_plain(value)
    if dc.is_dataclass(value):
        nested = _nested(type(value))
        return dc.field(default_factory=lambda: nested(**plain))
    if isinstance(plain, (list, dict)):
        return dc.field(default_factory=lambda: plain)
    return dc.field(default=plain)


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as dicts, lists and strings."""
    if dc.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dc.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return str(value) if hasattr(value, "__fspath__") else value


def build_config(config: Any, values: Mapping[str, Any], where: str) -> Any:
    """The typed Config from plain values.

    Args:
        config: the frozen dataclass.
        values: field -> value.
        where: ``rl`` or ``filters.url``; every message begins with it.

    Raises:
        StageError: an unknown key, a missing value, a wrong type, choice or range.
    """
    known = {field.name: field for field in dc.fields(config)}
    for name in values:
        if name not in known:
            raise StageError(unknown_key(config, where, name))
    _check_complete(known, values, where)
    typed = {name: _typed(hints(config)[name], value) for name, value in values.items()}
    for name, value in typed.items():
        key = f"{where}.{name}"
        _check_plain(key, hints(config)[name], value)
        _check_choices(key, hints(config)[name], known[name], value)
        _check_packages(key, declared(config, name, "needs") or {}, value)
        _check_range(key, allowed_range(config, name), value)
    try:
        return config(**typed)
    except StageError:
        raise
    except (ValueError, TypeError) as error:
        # __post_init__ raises these; its text is written for the user.
        raise StageError(f"{where}: {error}") from error


def _check_complete(known: Mapping[str, dc.Field], values: Mapping[str, Any], where: str) -> None:
    """Refuse a Config with a required value missing."""
    absent = [
        name
        for name, field in known.items()
        if name not in values
        and field.default is dc.MISSING
        and field.default_factory is dc.MISSING
    ]
    absent += [name for name, value in values.items() if value == MISSING]
    if absent:
        helps = {name: known[name].metadata.get("help") or "no help text" for name in absent}
        listed = "; ".join(f"{where}.{name} ({text})" for name, text in helps.items())
        raise MissingValueError(
            f"{where} needs a value for {listed}. Set it: {where}.{absent[0]}=VALUE",
            [f"{where}.{name}" for name in absent],
        )


def unknown_key(config: type, where: str, name: str) -> str:
    """The message for a key that a Config does not have."""
    if new := renamed_to(config, name):
        return f"{where}.{name} was renamed to {where}.{new}"
    known = [field.name for field in dc.fields(config)]  # type: ignore[arg-type]
    return f"{where} has no key {name!r}.{near(name, known)} It has: {', '.join(known)}"


def renamed_to(config: type, name: str) -> str:
    """The field that once had this name; "" where there is none."""
    for field in dc.fields(config):  # type: ignore[arg-type]
        if name == declared(config, field.name, "renamed_from"):
            return field.name
    return ""


def declared(config: type, name: str, key: str) -> Any:
    """What option() says of a field.

    A subclass may override a default without repeating the rest: then the parent's words count.
    """
    for base in config.__mro__:
        if not dc.is_dataclass(base):
            continue
        fields = {field.name: field for field in dc.fields(base)}
        if name in fields and fields[name].metadata.get(key):
            return fields[name].metadata[key]
    return None


def _typed(hint: Any, value: Any) -> Any:
    """The value with the containers and dataclasses of its type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [arg for arg in args if arg is not types.NoneType]
        return value if value is None or len(inner) > 1 else _typed(inner[0], value)
    if isinstance(value, (list, tuple)):
        items = [_typed(args[0], item) if args else item for item in value]
        return tuple(items) if (origin or hint) is tuple else items
    if hint is float and type(value) is int:
        return float(value)
    if dc.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        types_of_fields = hints(hint)
        return hint(**{name: _typed(types_of_fields[name], item) for name, item in value.items()})
    return value


def _check_plain(where: str, hint: Any, value: Any) -> None:
    """Check plain types: values from Python have met no schema."""
    if hint not in PLAIN:
        return
    is_bool_for_int = hint is int and isinstance(value, bool)
    if not isinstance(value, hint) or is_bool_for_int:
        raise StageError(f"{where} is {value!r}, which is not of type {hint.__name__}")


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


def _check_packages(where: str, needs: Mapping[str, tuple[str, str]], value: Any) -> None:
    """Refuse a value whose package is not installed, before any work."""
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if not isinstance(item, str) or item not in needs:
            continue
        module, requirement = needs[item]
        if importlib.util.find_spec(module) is None:
            raise StageError(
                f"{where}={item} needs {module}, which is not installed. "
                f"Run: pip install '{requirement}'"
            )


def allowed_range(config: type, name: str) -> dict[str, float]:
    """The limits of a field by comparison, ``{"gt": 0, "le": 1}``; empty where there are none."""
    return dict(declared(config, name, "range") or {})


def describe_range(limits: Mapping[str, float]) -> str:
    """An allowed range for people, such as ``> 0, <= 1``; "" where there is none."""
    return ", ".join(f"{COMPARISONS[name][0]} {limit:g}" for name, limit in limits.items())


def _check_range(where: str, limits: Mapping[str, float], value: Any) -> None:
    """Refuse numbers out of the range, and NaN and infinity everywhere."""
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            continue
        if not math.isfinite(item):
            raise StageError(f"{where} is {item}, which is not a finite number")
        for name, limit in limits.items():
            holds = COMPARISONS[name][1]
            if not holds(item, limit):
                raise StageError(f"{where} is {item:g}, but it must be {describe_range(limits)}")
