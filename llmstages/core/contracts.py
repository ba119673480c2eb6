"""Check a class against its contract, a Protocol such as ``llmstages.plugin.Reward``.

A contract names attributes and methods. ``required_options`` of a contract names fields that the
Config of every class must have; ``variant_for(cls)`` of a contract may choose another contract by
looking at the class; ``from_function(function)`` makes a class of a plain function, and
``from_class(cls)`` one of a class without Config (core/file_components.py). Left out on purpose:
types of arguments and results, which type checkers and ``llmstages.testing`` check; here it is
about mistakes that would end in an AttributeError later.
"""

from __future__ import annotations

import dataclasses as dc
import inspect
from collections.abc import Iterator
from typing import Any

NOT_PART_OF_A_CONTRACT = {"required_options", "variant_for", "from_function", "from_class"}


def violations(cls: type, contract: type) -> list[str]:
    """What keeps a class from keeping a contract, each as half a sentence; empty if it keeps it."""
    choose_variant = getattr(contract, "variant_for", None)
    if choose_variant is not None:
        contract = choose_variant(cls)
    absent = [name for name in members(contract) if not hasattr(cls, name)]
    if absent:
        return [f"it lacks {', '.join(absent)}"]
    problems = [*_config_problems(cls, contract)]
    for name in members(contract):
        expected = getattr(contract, name, None)
        if inspect.isfunction(expected):
            problems += _method_problems(getattr(cls, name), expected)
    return problems


def members(contract: type) -> list[str]:
    """The names that a contract asks for: its annotated attributes and its methods."""
    annotated = list(getattr(contract, "__annotations__", {}))
    methods = [
        name
        for name, value in vars(contract).items()
        if inspect.isfunction(value) and (not name.startswith("_") or name == "__call__")
    ]
    return [name for name in (*annotated, *methods) if name not in NOT_PART_OF_A_CONTRACT]


def _config_problems(cls: type, contract: type) -> Iterator[str]:
    config = getattr(cls, "Config", None)
    if config is None:
        return
    if not dc.is_dataclass(config):
        yield "its Config is not a dataclass"
        return
    if not config.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        yield "its Config is not frozen: write @dataclass(frozen=True)"
    fields = {field.name for field in dc.fields(config)}
    for name in getattr(contract, "required_options", ()):
        if name not in fields:
            yield f"its Config lacks the option {name!r}"


def _method_problems(method: Any, expected: Any) -> Iterator[str]:
    """Whether the method can be called with the arguments that the contract names."""
    wanted = list(inspect.signature(expected).parameters)
    name = expected.__name__
    if not callable(method):
        yield f"its {name} is not a method"
        return
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # a method written in C has no signature to look at
        return
    try:
        signature.bind(*wanted)
    except TypeError:
        arguments = ", ".join(wanted[1:])
        yield f"its {name}{signature} cannot be called as {name}({arguments})"
