"""Numbers in texts, however they are written: read as fractions, compared as numbers.

A comma before groups of three digits separates thousands (1,234), any other comma decimals (3,5 is
not 35). 1.234,50 and 1'234.50 are read as in the countries that write them, 1/2 and 2 1/2 as
fractions, 3e3 as 3000. A minus sign belongs to a number only where no other number or word stands
before it: in 2010-2015 there is none.

Left out on purpose: numbers in words, and units. What is left out costs a right answer, never
gives a wrong one.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

CURRENCY = "$€£¥₹"
SIGN = r"(?<![\w.)\]])[-−–]\s?"
DIGITS = (
    r"(?:\d+\s+\d+/\d+(?![\d/])"  # 2 1/2
    r"|(?<![\d/])\d+/\d+(?![\d/])"  # 1/2, not a part of 1/2/2020
    r"|\d{1,3}(?:\.\d{3})+,\d+"  # 1.234,5
    r"|\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?"  # 1,234.5
    r"|\d+(?:[.,]\d+)?(?:[eE][-+]?\d+(?!\w))?"  # 12, 3.5, 3,5, 3e3
    r"|(?<!\d)\.\d+)"  # .5
)
NUMBER = re.compile(rf"(?:{SIGN})?{DIGITS}")
# A number with a currency before it, or a percent sign or a currency behind it.
AMOUNT = re.compile(rf"\s*(?:{SIGN})?\s*[{CURRENCY}]?\s*(?:{SIGN})?{DIGITS}\s*[%{CURRENCY}]?")
SIGN_BEFORE_CURRENCY = re.compile(rf"([-−–])\s*[{CURRENCY}]\s*(?=[\d.])")
GROUP_MARKS = re.compile("(?<=\\d)[\u00a0\u2009\u202f'\u2019](?=\\d{3}(?!\\d))")
VULGAR_FRACTION = re.compile("(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e])")
LARGEST_EXPONENT = 300


def normalized(text: str) -> str:
    """The text with its numbers in the characters that NUMBER knows."""
    text = GROUP_MARKS.sub("", text)
    text = VULGAR_FRACTION.sub(" ", text)
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/")
    return SIGN_BEFORE_CURRENCY.sub(r"\1", text)


def value_of(number: str) -> Fraction | None:
    """The value of a text that NUMBER matches; None where it has none (1/0) or is huge."""
    is_negative = number[:1] in ("-", "−", "–")
    digits = number.lstrip("-−–").strip()
    try:
        value = _positive(digits)
    except (ValueError, ZeroDivisionError):
        return None
    return -value if is_negative else value


def _positive(digits: str) -> Fraction:
    if "/" in digits:
        return sum((Fraction(part) for part in digits.split()), Fraction(0))
    mantissa, _, exponent = digits.lower().partition("e")
    if abs(int(exponent or 0)) > LARGEST_EXPONENT:
        raise ValueError(f"{digits} is too large")
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+,\d+", mantissa):
        mantissa = mantissa.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", mantissa):
        mantissa = mantissa.replace(",", "")
    return Fraction(mantissa.replace(",", ".")) * Fraction(10) ** int(exponent or 0)


def amount_of(text: str) -> Fraction | None:
    """The value of a text that is an amount and nothing else: ``18``, ``$18.00``, ``-3 %``."""
    text = normalized(text).strip()
    if not AMOUNT.fullmatch(text):
        return None
    found = NUMBER.search(SIGN_BEFORE_CURRENCY.sub(r"\1", text))
    return value_of(found.group()) if found else None
