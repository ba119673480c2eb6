"""Numbers in texts, however they are written: read as fractions, compared as numbers.

A comma before groups of three digits separates thousands (1,234), any other comma decimals (3,5 is
not 35). 1.234,50 and 1'234.50 are read as in the countries that write them, 1/2 and 2 1/2 as
fractions, 3e3 as 3000. A minus sign belongs to a number only where no other number or word stands
before it: in 2010-2015 there is none.

A quantity is a number with its unit, if one is written: 5 km, $18, 50 %. Units are compared, not
converted: 5 km is neither 5 miles nor 5000 m.

Left out on purpose: numbers in words, and units of more than one part (5 hours 3 minutes). What is
left out costs a right answer, never gives a wrong one.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

CURRENCY = "$€£¥₹"
SIGN = r"(?<![\w.)\]])[-−–]\s?"
DIGITS = (
    r"(?:\d+\s+\d+/\d+(?![\d/])"  # 2 1/2
    r"|(?<![\d/])\d+/\d+(?![\d/])"  # 1/2, not a part of 1/2/2020
    r"|\d{1,3}(?:\.\d{3})+,\d+"  # 1.234,5
    r"|\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?"  # 1,234.5
    r"|\d+(?:[.,]\d+)?(?:[eE][-+]?\d+(?!\w))?"  # 12, 3.5, 3,5, 3e3
    r"|(?<!\d)\.\d+)"  # .5
    r"(?:\s?(?:hundred|thousand|million|billion|trillion)\b)?"
)
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
SCALE = re.compile(r"\s?([a-z]{5,})$")
NUMBER = re.compile(rf"(?:{SIGN})?{DIGITS}")
# A number with a currency before it, or a percent sign or a currency behind it.
AMOUNT = re.compile(rf"\s*(?:{SIGN})?\s*[{CURRENCY}]?\s*(?:{SIGN})?{DIGITS}\s*[%{CURRENCY}]?")
SIGN_BEFORE_CURRENCY = re.compile(rf"([-−–])\s*[{CURRENCY}]\s*(?=[\d.])")
GROUP_MARKS = re.compile("(?<=\\d)[\u00a0\u2009\u202f'\u2019](?=\\d{3}(?!\\d))")
VULGAR_FRACTION = re.compile("(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e])")
LARGEST_EXPONENT = 300

# Words for one unit each. Left out: "in", "a" and others that are words of their own.
UNITS = (
    ("km", "kilometer", "kilometers", "kilometre", "kilometres"),
    ("m", "meter", "meters", "metre", "metres"),
    ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    ("mi", "mile", "miles"),
    ("ft", "foot", "feet"),
    ("inch", "inches"),
    ("yd", "yard", "yards"),
    ("kg", "kilogram", "kilograms", "kilo", "kilos"),
    ("g", "gram", "grams"),
    ("mg", "milligram", "milligrams"),
    ("ton", "tons", "tonne", "tonnes"),
    ("lb", "lbs", "pound", "pounds"),
    ("oz", "ounce", "ounces"),
    ("s", "sec", "secs", "second", "seconds"),
    ("min", "mins", "minute", "minutes"),
    ("h", "hr", "hrs", "hour", "hours"),
    ("day", "days"),
    ("week", "weeks"),
    ("month", "months"),
    ("year", "years", "yr", "yrs"),
    ("l", "liter", "liters", "litre", "litres"),
    ("ml", "milliliter", "milliliters", "millilitre", "millilitres"),
    ("gallon", "gallons"),
    ("mph",),
    ("km/h", "kmh", "kph"),
    ("m/s",),
    ("%", "percent", "per cent"),
    ("$", "dollar", "dollars", "usd"),
    ("€", "euro", "euros", "eur"),
    ("£", "gbp"),
    ("¥", "yen", "yuan"),
    ("₹", "rupee", "rupees"),
    ("cent", "cents"),
    ("°", "degree", "degrees"),
)
UNIT_OF = {word: words[0] for words in UNITS for word in words}
_LONGEST_FIRST = sorted(UNIT_OF, key=len, reverse=True)
UNIT = re.compile(
    rf"[\s-]?\s?({'|'.join(re.escape(word) for word in _LONGEST_FIRST)})(?![\w/^²³])", re.IGNORECASE
)


class Quantity(NamedTuple):
    """A number with its unit ("" where none is written)."""

    value: Fraction
    unit: str = ""

    def equals(self, other: Quantity) -> bool:
        """Whether the numbers are equal, and the units where both have one.

        75 % is 0.75 as well, where that has no unit.
        """
        if self.unit and other.unit:
            return self == other
        return self.value == other.value or _share(self) == _share(other)


def _share(quantity: Quantity) -> Fraction:
    return quantity.value / 100 if quantity.unit == "%" else quantity.value


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
    scale = SCALE.search(digits)
    if scale:
        return _positive(digits[: scale.start()]) * SCALES[scale[1]]
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
    quantity = quantity_of(text)
    return quantity.value if quantity else None


def quantity_of(text: str) -> Quantity | None:
    """The quantity that a text is, where it is nothing else: ``18``, ``$18.00``, ``5 km``."""
    text = normalized(text).strip()
    amount = AMOUNT.match(text)
    if not amount:
        return None
    found = NUMBER.search(text)
    if not found:
        return None
    unit = UNIT.match(text, found.end())
    end = max(amount.end(), unit.end() if unit else 0)
    return quantity_at(text, found) if end == len(text) else None


def quantity_at(text: str, number: re.Match[str]) -> Quantity | None:
    """A number that NUMBER found in a text, with the unit before or behind it."""
    value = value_of(number.group())
    if value is None:
        return None
    before = text[: number.start()].rstrip()[-1:]
    behind = UNIT.match(text, number.end())
    if behind:
        return Quantity(value, UNIT_OF[behind[1].lower()])
    return Quantity(value, before if before in CURRENCY else "")
