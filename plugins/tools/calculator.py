"""tool calculator: ``<CALC_START>123+456<CALC_END>`` gives 579. Parsed, never evaluated as code."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmstages.core.stage import option

OPERATIONS: Mapping[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
}
MISTAKES = (
    SyntaxError,
    ValueError,
    TypeError,
    ZeroDivisionError,
    OverflowError,
    RecursionError,
)


@dataclass(frozen=True)
class CalculatorConfig:
    max_characters: int = option(60, "longest expression that is worked out", ge=1)


class Calculator:
    """+ - * / // % on numbers."""

    Config = CalculatorConfig
    version = "1"
    marks = ("<CALC_START>", "<CALC_END>")

    def __init__(self, config: CalculatorConfig) -> None:
        self.config = config

    def open(self, folder: Path) -> None:
        """There is nothing to get ready."""

    def __call__(self, argument: str) -> str:
        if len(argument) > self.config.max_characters:
            return "error: expression too long"
        try:
            value = _value(ast.parse(argument.strip(), mode="eval").body)
        except MISTAKES as error:
            return f"error: {error}"
        return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.operand))
    raise ValueError("only numbers and + - * / // % are worked out")
