"""Checks that stages and components share."""

from __future__ import annotations

import dataclasses as dc
import pickle
import subprocess
import sys
from typing import Any

from llmstages.core import registry
from llmstages.core.config import allowed_range, build_config, to_plain
from llmstages.core.contracts import violations
from llmstages.core.digest import canonical
from llmstages.core.errors import StageError

HEAVY = ("torch", "transformers", "datasets", "trl", "accelerate", "numpy", "pyarrow", "peft")


def resolve(group: str, component: str | type) -> Any:
    """The class of a component, by its registered name or as it is; its contract is checked."""
    if isinstance(component, str):
        return registry.load_checked(group, component)
    contract = registry.load(registry.COMPONENT_GROUPS, group)
    problems = violations(component, contract)
    assert not problems, f"{component.__name__} does not keep its contract: {problems}"
    return component


def make(group: str, component: str | type, config: dict[str, Any]) -> Any:
    """An instance of a component, after the checks that all components share."""
    cls = resolve(group, component)
    check_config(cls.Config, cls.__name__)
    check_light_import(cls)
    assert registry.code_version(cls), f"{cls.__name__} needs a version of its own"
    assert pickle.loads(pickle.dumps(cls)) is cls, "define the class at the top level of a module"
    return cls(build_config(cls.Config, config, cls.__name__))


def check_config(config: Any, where: str) -> None:
    """Check a Config: help texts, defaults that JSON can say, ranges and unknown keys refused."""
    required: dict[str, Any] = {}
    for field in dc.fields(config):
        assert field.metadata.get("help"), (
            f'{where}.{field.name} has no help text: write option(default, "what it is, its unit")'
        )
        if field.default is dc.MISSING and field.default_factory is dc.MISSING:
            required[field.name] = None
    if not required:
        canonical(to_plain(config()))
        refused(config, where, {"a_key_that_it_does_not_have": 1}, "has no key")
    for field in dc.fields(config):
        for name, limit in allowed_range(config, field.name).items():
            beyond = limit + (1 if name in ("le", "lt") else -1)
            if isinstance(field.default, int) or name in ("le", "lt", "ge", "gt"):
                refused(config, where, {field.name: type_of(field)(beyond)}, "must be")


def type_of(field: dc.Field) -> type:
    """int for a field whose default is a whole number, else float."""
    is_whole = isinstance(field.default, int) and not isinstance(field.default, bool)
    return int if is_whole else float


def refused(config: Any, where: str, values: dict[str, Any], words: str) -> None:
    """Check that values are refused with a message that has the given words."""
    try:
        build_config(config, values, where)
    except StageError as error:
        # A Config with required values may complain about those first.
        assert words in str(error) or "needs a value" in str(error), str(error)
        return
    raise AssertionError(f"{where} accepts {values}")


def check_light_import(cls: type) -> None:
    """Check that importing the module of a class imports nothing heavy.

    ``llmstages list`` and ``plan`` import every module that a run uses, and must stay fast.
    """
    code = (
        "import importlib, sys\n"
        f"importlib.import_module({cls.__module__!r})\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    environment_path = [path for path in sys.path if path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {environment_path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{cls.__module__} cannot be imported alone: {done.stderr}"
    heavy = done.stdout.split()
    assert not heavy, f"{cls.__module__} imports {heavy} at the top; import inside functions"
