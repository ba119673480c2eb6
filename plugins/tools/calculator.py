"""tool calculator: ``<CALC_START>123+456<CALC_END>`` gives 579. Parsed, never evaluated as code.

Numbers are fractions, so integers of any size and decimals are exact. A result whose decimals never
end is rounded to DIGITS significant digits.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
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
    ast.UAdd: operator.pos,
}
DIGITS = 12  # significant digits of a result whose decimals never end
EXACT_DECIMALS = 30  # of a result whose decimals end
EXACT = Context(prec=200)
LARGEST_EXPONENT = 60  # of a number such as 1e9, and of a result: more digits say nothing
MISTAKES = (
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
)


@dataclass(frozen=True)
class CalculatorConfig:
    max_characters: int = option(60, "longest expression that is worked out", ge=1)


class Calculator:
    """+ - * / // % on numbers, exact."""

    Config = CalculatorConfig
    version = "2"
    marks = ("<CALC_START>", "<CALC_END>")

    def __init__(self, config: CalculatorConfig) -> None:
        self.config = config

    def open(self, folder: Path) -> None:
        """There is nothing to get ready."""

    def __call__(self, argument: str) -> str:
        if len(argument) > self.config.max_characters:
            return "error: expression too long"
        text = argument.strip()
        try:
            return decimal_text(_value(ast.parse(text, mode="eval").body, text))
        except ZeroDivisionError:
            return "error: division by zero"
        except SyntaxError as error:
            return f"error: {error.msg}"
        except MISTAKES as error:
            return f"error: {error}"


def _value(node: ast.expr, text: str) -> Fraction:
    """The value of a part of the expression ``text``."""
    if isinstance(node, ast.Constant):
        return _number(node, text)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        left, right = _value(node.left, text), _value(node.right, text)
        return Fraction(OPERATIONS[type(node.op)](left, right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.operand, text))
    raise ValueError("only numbers and + - * / // % are worked out")


def _number(node: ast.Constant, text: str) -> Fraction:
    """A number as it is written: as a float it would be rounded."""
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        return Fraction(node.value)
    if not isinstance(node.value, float):
        raise ValueError("only numbers and + - * / // % are worked out")
    written = (ast.get_source_segment(text, node) or "").lower()
    exponent = written.partition("e")[2] or "0"
    if abs(int(exponent)) > LARGEST_EXPONENT:
        raise ValueError(f"{written} is too large or too small")
    return Fraction(written)


def decimal_text(value: Fraction) -> str:
    """A number in decimals, never in scientific notation. Raises ValueError if it is huge."""
    if abs(value) >= 10**LARGEST_EXPONENT:
        raise ValueError(f"the result has more than {LARGEST_EXPONENT} digits")
    if value.denominator == 1:
        return str(value.numerator)
    for decimals in range(1, EXACT_DECIMALS + 1):
        scaled = value * 10**decimals
        if scaled.denominator == 1:
            return f"{Decimal(scaled.numerator).scaleb(-decimals, EXACT):f}"
    rounded = Context(prec=DIGITS).divide(Decimal(value.numerator), Decimal(value.denominator))
    return f"{rounded.normalize(Context(prec=DIGITS)):f}"
