r"""The formula that a reply ends with, and formulas as plain text where they are plain numbers.

``\boxed{\frac{1}{2}}`` holds ``\frac{1}{2}``, which is the number ``1/2``.
"""

from __future__ import annotations

import re

from llmstages.text.grading import DECLARED, EMPHASIS

BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
SPAN = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
# Words that a formula may hold; any other word ends the search for its beginning.
FUNCTIONS = "sqrt|sin|cos|tan|log|ln|exp|pi|inf|or|mod|max|min|lim|gcd|lcm"
LAST_WORD = re.compile(rf"(?<!\\)\b(?!(?:{FUNCTIONS})\b)[A-Za-z]{{2,}}\b(?![{{])[:,]?\s*")

FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
MIXED = re.compile(r"(?<=\d)(?=\\[dt]?frac)")
REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s*\{?(\d+)\}?")
TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\,)(?=\d{3})")
SPACES = re.compile(r"\\[,;:! ]|~|\\q?quad\b")
SIZES = re.compile(r"\\(?:left|right|big|Big|displaystyle|limits)\b")
DEGREES = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ\b)")
ESCAPED = re.compile(r"\\([%$&#_])")
DOLLARS = re.compile(r"(?<!\\)\$(?!\d+(?:[.,]\d+)*\s|\d+(?:[.,]\d+)*$)|\\[()\[\]]")
POWER_OF_TEN = re.compile(r"(\d+(?:\.\d+)?)\s*(?:\\times|\\cdot|×|\*)\s*10\s*\^\s*\{?(-?\d+)\}?")


def final_part(reply: str) -> str:
    r"""The formula that a reply ends with: in the last box, behind "the answer is", or its last.

    Without dollars. A reply without any formula gives its last line.
    """
    boxes = list(BOXED.finditer(reply))
    if boxes:
        return _balanced(reply, boxes[-1].end())
    declared = list(DECLARED.finditer(reply))
    if declared:
        return _last_formula(reply[declared[-1].end() :].strip(), from_start=True)
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    return _last_formula(lines[-1], from_start=False) if lines else ""


def _balanced(text: str, start: int) -> str:
    """What stands between an open brace, just before ``start``, and the one that closes it."""
    depth = 1
    for place in range(start, len(text)):
        if text[place] == "{" and text[place - 1] != "\\":
            depth += 1
        if text[place] == "}" and text[place - 1] != "\\":
            depth -= 1
        if depth == 0:
            return text[start:place].strip()
    return text[start:].strip()


def _last_formula(text: str, from_start: bool) -> str:
    """The formula of a sentence; the first sentence if ``from_start``, else the last."""
    sentences = [part.strip() for part in SENTENCE_END.split(text) if part.strip()]
    if not sentences:
        return ""
    sentence = sentences[0] if from_start else sentences[-1]
    spans = [match for match in SPAN.finditer(sentence) if not _is_price(match)]
    if spans:
        # "$x=1$ or $x=3$" is one answer.
        first = spans[0] if re.search(r"\$\s*(?:or|and|,)\s*\$", sentence) else spans[-1]
        inside = sentence[first.start() : spans[-1].end()]
        return without_dollars(inside)
    bare = EMPHASIS.sub("", sentence) if "^" not in sentence else sentence
    bare = bare.strip().rstrip(".!,;")
    words = list(LAST_WORD.finditer(bare))
    behind = bare[words[-1].end() :].strip() if words else bare
    return behind or bare


def _is_price(span: re.Match[str]) -> bool:
    """Whether dollars are money: "$5 and $7"."""
    inside = next(group for group in span.groups() if group)
    return re.match(r"\d[\d.,]*\s+[a-z]", inside) is not None


def plain(formula: str) -> str:
    r"""A formula without LaTeX where plain text says the same: ``\frac{1}{2}`` is ``1/2``."""
    text = THOUSANDS.sub("", formula)
    text = MIXED.sub(" ", text)
    text = FRACTION.sub(_fraction, text)
    text = REPEATING.sub(_repeating, text)
    text = TEXT.sub(r" \1", text)
    text = POWER_OF_TEN.sub(r"\1e\2", text)
    text = SIZES.sub("", text)
    text = DEGREES.sub("", text)
    text = SPACES.sub(" ", text)
    text = DOLLARS.sub("", text)
    text = ESCAPED.sub(r"\1", text)
    return " ".join(text.split())


def _fraction(match: re.Match[str]) -> str:
    above = match[1] or match[2]
    below = match[3] or match[4]
    return f"{above}/{below}"


def _repeating(match: re.Match[str]) -> str:
    """A repeating decimal as a fraction."""
    whole, fixed, repeated = match[1], match[2], match[3]
    before = int((whole + fixed) or "0")
    above = int(whole + fixed + repeated) - before
    below = 10 ** len(fixed) * (10 ** len(repeated) - 1)
    return f"{above}/{below}"


def without_dollars(formula: str) -> str:
    """A formula without the marks around it."""
    return DOLLARS.sub("", formula).strip()


def squeezed(formula: str) -> str:
    r"""A formula without what does not change it: blanks, sizes, ``\dfrac`` for ``\frac``."""
    text = SIZES.sub("", without_dollars(formula))
    text = re.sub(r"\\[dt]frac", r"\\frac", SPACES.sub("", text))
    return re.sub(r"\s+|[.]$", "", text)
