"""tool calculator: ``<CALC_START>123+456<CALC_END>`` gives 579. Parsed, never evaluated as code.

Numbers are fractions, so integers, decimals, whole powers and comparisons are exact: 9.11 > 9.9 is
False, 0.1 + 0.2 == 0.3 is True. A result whose decimals never end is rounded to DIGITS significant
digits, or written as a fraction (``fractions``). Units and functions are left out on purpose: what
is more than arithmetic is a program (tool ``python``).
"""

from __future__ import annotations

import ast
import itertools
import math
import operator
import re
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
COMPARISONS: Mapping[type, Callable[..., bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
# Signs as people and models write them; a comma only between groups of three digits.
SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "≤": "<=", "≥": ">="})
OTHER_SIGNS = ((re.compile(r"\^"), "**"), (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""))
ONE_EQUALS_SIGN = re.compile(r"(?<![<>=!])=(?!=)")
NOT_WORKED_OUT = "only numbers, + - * / // % ** and comparisons are worked out"
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
    max_characters: int = option(
        60, "longest expression that is worked out, in characters", ge=1, le=1000
    )
    fractions: bool = option(
        False, "results whose decimals never end are written as 1/3, not rounded"
    )


class Calculator:
    """+ - * / // % ** and comparisons of numbers, exact."""

    Config = CalculatorConfig
    version = "3"
    marks = ("<CALC_START>", "<CALC_END>")

    def __init__(self, config: CalculatorConfig) -> None:
        self.config = config

    def open(self, folder: Path) -> None:
        """There is nothing to get ready."""

    def __call__(self, argument: str) -> str:
        if len(argument) > self.config.max_characters:
            return "error: expression too long"
        text = normalized(argument)
        try:
            return self._text(_result(ast.parse(text, mode="eval").body, text))
        except ZeroDivisionError:
            return "error: division by zero"
        except SyntaxError as error:
            return f"error: {error.msg}"
        except MISTAKES as error:
            return f"error: {error}"

    def _text(self, result: Fraction | bool) -> str:
        if isinstance(result, bool):
            return str(result)
        text = decimal_text(result)
        if self.config.fractions and Fraction(text) != result:
            return f"{result.numerator}/{result.denominator}"
        return text


def normalized(argument: str) -> str:
    """An expression in the signs of Python."""
    text = argument.strip().translate(SIGNS)
    for pattern, sign in OTHER_SIGNS:
        text = pattern.sub(sign, text)
    return ONE_EQUALS_SIGN.sub("==", text)


def _result(node: ast.expr, text: str) -> Fraction | bool:
    """The value of an expression, or whether a comparison holds."""
    if not isinstance(node, ast.Compare):
        return _value(node, text)
    terms = [_value(term, text) for term in (node.left, *node.comparators)]
    pairs = zip(itertools.pairwise(terms), node.ops, strict=True)
    return all(COMPARISONS.get(type(sign), _refuse)(*pair) for pair, sign in pairs)


def _refuse(*_: Any) -> bool:
    raise ValueError(NOT_WORKED_OUT)


def _value(node: ast.expr, text: str) -> Fraction:
    """The value of a part of the expression ``text``."""
    if isinstance(node, ast.Constant):
        return _number(node, text)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, text), _value(node.right, text)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if type(node.op) in OPERATIONS:
            return Fraction(OPERATIONS[type(node.op)](left, right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.operand, text))
    raise ValueError(NOT_WORKED_OUT)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    """A whole power whose digits are within the limit, which is checked before it is computed."""
    if exponent.denominator != 1:
        raise ValueError("only whole numbers are worked out as exponents")
    size = max(abs(base.numerator), base.denominator)
    digits = math.log10(size) * abs(exponent.numerator) if size > 1 else 0
    if digits > LARGEST_EXPONENT:
        raise ValueError(f"the result has more than {LARGEST_EXPONENT} digits")
    return base**exponent.numerator


def _number(node: ast.Constant, text: str) -> Fraction:
    """A number as it is written: as a float it would be rounded."""
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        return Fraction(node.value)
    if not isinstance(node.value, float):
        raise ValueError(NOT_WORKED_OUT)
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
