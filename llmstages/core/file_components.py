"""Components without a package: ``./my_reward.py:score`` wherever the name of one is expected.

The file is imported by its content, so an edit is seen at once, and its content enters the
fingerprint (pipeline/plan.py). Left out on purpose: imports of files beside it, whose content no
fingerprint would cover; what needs several files is a package (docs/plugins.md).
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from llmstages.core.contracts import members
from llmstages.core.digest import sha256
from llmstages.core.errors import StageError, near

NAME = re.compile(r"(?P<path>.+\.py):(?P<attribute>[A-Za-z_]\w*)")


def is_file(name: str) -> bool:
    """Whether a name points into a file: ``PATH.py:NAME``."""
    return NAME.fullmatch(name) is not None


def path_of(name: str) -> Path:
    """The file that a name points into."""
    return Path(_parts(name)[0]).expanduser()


def short_name(name: str) -> str:
    """The name without the folders, which do not enter a fingerprint: ``my_reward.py:score``."""
    return f"{path_of(name).name}:{_parts(name)[1]}"


def load(name: str, contract: type) -> type:
    """The class that a name points to; a function becomes a class, where the contract says how.

    Args:
        name: ``PATH.py:NAME``.
        contract: what the class has to keep. Its ``from_function`` makes a class of a function,
            its ``from_class`` one of a class that has no Config.

    Raises:
        StageError: no such file or name, an error in the file (with its line), or a function
            where only a class will do.
    """
    path, attribute = path_of(name), _parts(name)[1]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise StageError(f"{name}: cannot read {path} (in {Path.cwd()}): {reason}") from error
    return _load(str(path.resolve()), text, attribute, contract)


def _parts(name: str) -> tuple[str, str]:
    match = NAME.fullmatch(name)
    assert match is not None, name
    return match["path"], match["attribute"]


@cache
def _load(path: str, text: str, attribute: str, contract: type) -> type:
    module = _module(path, text)
    found = getattr(module, attribute, None)
    if found is None:
        own = [name for name in vars(module) if not name.startswith("_")]
        raise StageError(
            f"{path} has no {attribute!r}.{near(attribute, own)} It has: {', '.join(own)}"
        )
    if isinstance(found, type):
        return _adapted(found, contract)
    if not callable(found):
        raise StageError(
            f"{_place(path, found)}: {attribute} is of the type {type(found).__name__}; "
            f"it must be a class that keeps {contract.__module__}.{contract.__name__}"
        )
    return _class_of(found, path, contract)


def _adapted(cls: type, contract: type) -> type:
    """A class without Config as the contract adapts it; any other class as it is."""
    from_class = getattr(contract, "from_class", None)
    # A class that lacks a method stays as it is, so that the check of the contract names it.
    is_whole = all(hasattr(cls, name) for name in members(contract))
    if from_class is None or hasattr(cls, "Config") or not is_whole:
        return cls
    adapted = from_class(cls)
    adapted.__name__ = adapted.__qualname__ = cls.__name__
    adapted.__doc__ = inspect.getdoc(cls) or f"The class {cls.__name__}."
    return adapted


@cache
def _module(path: str, text: str) -> types.ModuleType:
    """The module of a file with this content."""
    # A name of its own for each content: dataclasses and pickle look modules up by name.
    name = f"llmstages_file_{Path(path).stem}_{sha256(path + text)[:12]}"
    module = types.ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module
    try:
        exec(compile(text, path, "exec"), module.__dict__)
    except Exception as error:  # the file may raise anything
        del sys.modules[name]
        message = f"{path}, line {_line(path, error)}: {type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and _is_beside(path, error.name or ""):
            message += (
                f". {error.name}.py is beside it, but only the file itself is read, since its "
                "content decides what is made again: put both into one file, or make a package "
                "of them (llmstages new plugin)"
            )
        raise StageError(message) from error
    return module


def _is_beside(path: str, module: str) -> bool:
    folder = Path(path).parent
    return (folder / f"{module}.py").exists() or (folder / module).is_dir()


def _line(path: str, error: Exception) -> int:
    """The line of the file in which an error was raised."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno or 1
    line = 1
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _class_of(function: Callable[..., Any], path: str, contract: type) -> type:
    """The class that a contract makes of a function, once it can be called as it will be."""
    from_function = getattr(contract, "from_function", None)
    place = _place(path, function)
    name = getattr(function, "__name__", "it")
    if from_function is None:
        raise StageError(
            f"{place}: {name} is a function; a class is needed here that keeps "
            f"{contract.__module__}.{contract.__name__}"
        )
    cls = from_function(function)
    arguments: tuple[str, ...] = cls.called_with
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise StageError(
            f"{place}: {name}{inspect.signature(function)} cannot be called as "
            f"{name}({', '.join(arguments)})"
        ) from error
    cls.__name__ = cls.__qualname__ = name
    cls.__doc__ = inspect.getdoc(function) or f"The function {name} of {Path(path).name}."
    return cls


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a file; an error in it names the file and the line.

    Raises:
        StageError: whatever the function raises.
    """
    try:
        return function(*arguments)
    except StageError:
        raise
    except Exception as error:  # the function may raise anything
        path = function.__code__.co_filename
        place = f"{path}, line {_line(path, error)}"
        raise StageError(f"{place}: {type(error).__name__}: {error}") from error


def _place(path: str, value: Any) -> str:
    """The file, and the line where a function is defined."""
    code = getattr(value, "__code__", None)
    return f"{path}, line {code.co_firstlineno}" if code else path
