"""grader code_tests: a reply is right if the program in it passes all tests of its problem.

Tests are those of the row: ``test_list`` (MBPP, Austin et al. 2021), ``tests`` (a list of assert
statements) or ``test`` with ``entry_point`` (HumanEval, Chen et al. 2021). They run with the tool
``python``, so what the model wrote is confined (plugins/tools/interpreters).

A program that is graded may try to look right. So a test passes only if it was run to its end,
which a value shows that the program does not know, and ``f(1) == 2`` asks for a value of the same
type at every depth: an object that says that it is equal to anything is not 2.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core import registry
from llmstages.core.digest import sha256
from llmstages.core.stage import option

BLOCK = re.compile(r"```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.I)
LONGEST = 20_000  # characters of a program with its tests, and of what its calls give

# Defined before the program, which may give other meanings to names of Python.
SAME = """
def same(a, b, type=type, len=len, zip=zip, all=all, sorted=sorted, repr=repr):
    if type(a) is not type(b):
        return False
    if type(b) in (list, tuple):
        return len(a) == len(b) and all([same(x, y) for x, y in zip(a, b)])
    if type(b) is dict:
        return len(a) == len(b) and all([k in a and same(a[k], b[k]) for k in b])
    if type(b) in (set, frozenset):
        return sorted([repr(x) for x in a]) == sorted([repr(x) for x in b])
    return a == b
"""


@dataclass(frozen=True)
class CodeTestsConfig:
    engine: str = option("monty", "interpreter of the tool python", choices=("monty", "cpython"))
    seconds: float = option(1.0, "CPU time of a program with all its tests", gt=0, le=60)
    memory_mb: int = option(64, "memory of a program in megabytes", ge=8, le=4096)


class CodeTests:
    """Runs the tests of a problem on the program in a reply."""

    Config = CodeTestsConfig
    version = "1"

    def __init__(self, config: CodeTestsConfig) -> None:
        self.run = registry.load_component(
            "tools",
            {
                "use": "python",
                "engine": config.engine,
                "seconds": config.seconds,
                "memory_mb": config.memory_mb,
                "max_characters": LONGEST,
                "max_output": LONGEST,
            },
        )

    def grade(self, replies: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[bool | None]:
        """Whether each program passes; None for problems without tests."""
        return [self._grade_one(reply, row) for reply, row in zip(replies, rows, strict=True)]

    def _grade_one(self, reply: str, row: Mapping[str, Any]) -> bool | None:
        setup, tests, entry_point = tests_of(row)
        if not tests:
            return None
        program = program_of(reply)
        if entry_point and not re.search(rf"\bdef\s+{re.escape(entry_point)}\b", program):
            # A completion continues the beginning of the function that it was shown.
            program = f"{row['prompt'][-1]['content']}\n{program}"
        # Names that no program can have in mind.
        secret = sha256("\n".join([program, *tests]))
        helper = f"same_{secret[:16]}"
        parts = [
            SAME.replace("same", helper),
            setup,
            program,
            *[strict(test, helper) for test in tests],
            repr(secret),
        ]
        return self.run("\n".join(parts)).endswith(secret)


def strict(test: str, helper: str) -> str:
    """A test in which each comparison with a literal is that of SAME.

    helper: its name. A test that is no Python stays as it is, and fails.
    """
    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError):
        return test
    return ast.unparse(_Strict(helper).visit(tree))


class _Strict(ast.NodeTransformer):
    """Rewrites ``CALL == LITERAL``."""

    def __init__(self, helper: str) -> None:
        self.helper = helper

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        if len(node.ops) != 1 or not isinstance(node.ops[0], ast.Eq):
            return node
        (stated,) = node.comparators
        try:
            ast.literal_eval(stated)
        except (ValueError, TypeError):
            return node
        return ast.Call(ast.Name(self.helper, ast.Load()), [node.left, stated], [])


def tests_of(row: Mapping[str, Any]) -> tuple[str, list[str], str]:
    """(code before the tests, the tests, the function that a completion continues, or "")."""
    meta = {**json.loads(row.get("meta") or "{}"), **row}
    setup = str(meta.get("test_setup_code") or "")
    listed = meta.get("test_list") or meta.get("tests")
    if isinstance(listed, list):
        return setup, [str(test) for test in listed], ""
    check, entry_point = meta.get("test"), meta.get("entry_point")
    if isinstance(check, str) and entry_point:
        return setup, [f"{check}\ncheck({entry_point})"], str(entry_point)
    return setup, [], ""


def program_of(reply: str) -> str:
    """The program in a reply: its last block of code, or all of it where there is none."""
    blocks = BLOCK.findall(reply)
    return str(blocks[-1]) if blocks else reply
