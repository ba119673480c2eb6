"""Is a reply correct? One place for rewards, probing and evaluation.

Graders are components (``llmstages.graders``), so there is one rule for each kind of answer. A
problem may name its grader in the column ``grader``; otherwise each of its answers is graded as
what it looks like (``detect``): the letter of a choice, a number, a formula, or words.

A needless point is worse than a missed one: reinforcement learning finds every reply that is paid
without being right. The tables of tests/plugins/graders say which errors remain.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmstages.core import registry
from llmstages.core.errors import StageError
from llmstages.text import numbers

Row = Mapping[str, Any]
Verdict = bool | None  # None: the grader could not decide, which pays nothing

GROUP = "graders"
SHOWN = 60  # characters of a value in a message

# Where a model asks itself the next question.
RUNS_ON = re.compile(r"\n\s*#*\s*(?:question|q|problem|human|user|instruction)\s*\d*\s*:", re.I)
# What announces the answer.
DECLARED = re.compile(
    r"(?:\banswer\s+(?:is|was|would\s+be)\b\s*:?|\banswer\s*[:=]|####|\\boxed\s*\{)\s*",
    re.IGNORECASE,
)
# Where a reply takes back what it said: "The answer is A. Wait, it is D."
TAKEN_BACK = re.compile(
    r"(?:^|[.!?…]\s+|\n\s*|-\s+)(?:oh,?\s+|no,?\s+|hmm,?\s+|but\s+)?"
    r"(?:actually|wait|hold on|correction|scratch that|on second thought)\b[\s,:.!…-]*",
    re.IGNORECASE,
)
EMPHASIS = re.compile(r"[*_`]+")
LETTER = re.compile(r"\(?([A-Z])[.):]?\)?")
# A line that offers a choice below a question: "A. Paris", "(B) Lyon".
OFFERED = re.compile(r"^[ \t]*\(?([A-Z])[.):][ \t]*(\S.*)$", re.MULTILINE)
FEWEST_CHOICES = 2
# What makes an answer a formula: a command of LaTeX, or plain text that can be nothing else.
COMMANDS = (
    "frac|dfrac|tfrac|sqrt|pi|infty|cdot|times|text|mathrm|mathbf|boxed|left|right|begin|circ|pm"
    "|le|ge|leq|geq|neq|in|cup|cap|log|ln|sin|cos|tan|theta|alpha|beta|binom|overline|emptyset"
)
LATEX = re.compile(rf"\\(?:{COMMANDS})(?![a-zA-Z])|\\[%${{}}]|[\w)]\^[\w{{(-]")
FORMULA = re.compile(
    r"sqrt\(.+\)|.*[√π∞].*"
    # a polynomial or a relation of one-letter variables: 2x+1, x = 5, n(n+1)/2
    r"|(?=.*\b\d*[a-z]\b)(?=.*\d)(?=.*[-+*/=<>≤≥])(?:\d*[a-z](?![a-zA-Z])|[\d\s.,+\-−*/=<>≤≥()])+"
    # a point, an interval, a set: (1, 2), [0, 1), {1, 2}
    r"|[(\[{](?:[-−+]?[\d./]+|-?inf(?:inity)?)(?:\s*,\s*(?:[-−+]?[\d./]+|inf(?:inity)?))+[)\]}]"
)

# What a reply says that claims no knowledge.
REFUSALS = ("do not know", "don't know", "not sure", "cannot answer")

LOOP_REPEATS = 4  # times in a row that make a phrase a loop
LOOP_WORDS = 8  # of the longest phrase that is looked for


def are_right(texts: Sequence[str], rows: Sequence[Row]) -> list[bool]:
    """Whether each reply gives the ``answer`` of its problem or one of its ``aliases``.

    What no grader could decide is not right.
    """
    return [verdict is True for verdict in verdicts(texts, rows)]


def is_right(text: str, row: Row) -> bool:
    """Whether one reply gives the answer of its problem (``are_right``)."""
    return are_right([text], [row])[0]


def is_correct(text: str, answer: str) -> bool:
    """Whether a reply gives an answer that stands alone, without a problem."""
    return is_right(text, {"answer": answer})


def verdicts(texts: Sequence[str], rows: Sequence[Row]) -> list[Verdict]:
    """The verdict on each reply: right, not right, or None where its grader could not decide.

    Args:
        texts: replies without control tokens.
        rows: the problem of each, with ``answer`` and perhaps ``aliases``, ``grader``, ``prompt``.

    Raises:
        StageError: no such grader, or one that breaks its contract.
    """
    found: list[Verdict] = [False] * len(texts)
    # Each grader is asked once, so that a slow one can work on many replies at a time.
    asked: dict[str, list[tuple[int, Row]]] = {}
    for place, row in enumerate(rows):
        for spec, part in _parts(row):
            asked.setdefault(spec, []).append((place, part))
    for spec, places in asked.items():
        given = _grade(spec, [texts[place] for place, _ in places], [row for _, row in places])
        for (place, _), verdict in zip(places, given, strict=True):
            # One accepted answer is enough, and one that is undecided hides no other.
            if verdict or found[place] is False:
                found[place] = verdict
    return found


def _parts(row: Row) -> Iterable[tuple[str, Row]]:
    """(grader, row with the answers that it grades), one or more for a problem."""
    named = str(row.get("grader") or "")
    if named:
        return [(named, row)]
    if is_choice(row):
        return [("choice", row)]
    by_grader: dict[str, list[str]] = {}
    for answer in accepted(row):
        by_grader.setdefault(detect(answer), []).append(answer)
    return [
        (name, {**row, "answer": answer, "aliases": others})
        for name, (answer, *others) in by_grader.items()
    ]


def accepted(row: Row) -> list[str]:
    """The answers of a problem that count as right, the main one first."""
    answers = [row["answer"], *(row.get("aliases") or ())]
    return [unicodedata.normalize("NFC", str(answer)) for answer in answers]


def detect(answer: str) -> str:
    """The grader that fits an answer: number, math or words."""
    bare = answer.strip().removesuffix(".")
    if numbers.amount_of(EMPHASIS.sub("", bare)) is not None:
        return "number"
    if LATEX.search(bare) or FORMULA.fullmatch(bare.strip("$")):
        return "math"
    return "words"


def is_choice(row: Row) -> bool:
    """Whether the answer is the letter of a choice that the question offers."""
    match = LETTER.fullmatch(str(row["answer"]).strip())
    return match is not None and match[1] in offered_choices(row)


def offered_choices(row: Row) -> dict[str, str]:
    """Letter -> text of the choices below the question; empty if there are none."""
    prompt = row.get("prompt") or ()
    if not prompt:
        return {}
    lines = OFFERED.findall(str(prompt[-1]["content"]))
    letters = [letter for letter, _ in lines]
    expected = [chr(ord("A") + place) for place in range(len(letters))]
    is_list = len(letters) >= FEWEST_CHOICES and letters == expected
    return {letter: text.strip() for letter, text in lines} if is_list else {}


def grader_of(row: Row) -> str:
    """The name of the grader of a problem's main answer, for counts and tables."""
    named = str(row.get("grader") or "")
    if named:
        return str(_spec(named)["use"])
    return "choice" if is_choice(row) else detect(str(row["answer"]))


def count_graders(rows: Iterable[Row]) -> dict[str, int]:
    """Name of a grader -> number of problems that it grades."""
    counts = Counter(grader_of(row) for row in rows)
    return dict(sorted(counts.items()))


def written_spec(spec: Mapping[str, Any]) -> str:
    """A grader with its options as the text of the column ``grader``."""
    return str(spec["use"]) if set(spec) == {"use"} else json.dumps(dict(spec), sort_keys=True)


def _spec(written: str) -> dict[str, Any]:
    return json.loads(written) if written.startswith("{") else {"use": written}


_open: dict[tuple[type, str], Any] = {}  # (class, spec) -> grader; some keep a process or a client


def _grade(written: str, texts: Sequence[str], rows: Sequence[Row]) -> list[Verdict]:
    """Ask one grader, and check what it returns."""
    spec = _spec(written)
    cls = registry.load_checked(GROUP, spec["use"])
    key = (cls, written)
    if key not in _open:
        _open[key] = registry.load_component(GROUP, spec)
    try:
        given = list(_open[key].grade(texts, rows))
    except StageError:
        raise
    except Exception as error:  # a grader is foreign code
        raise StageError(
            f"the grader {spec['use']!r} failed with {type(error).__name__}: {error}"
        ) from error
    wanted = f"{len(texts)} verdicts (True, False, or None where it cannot decide)"
    if len(given) != len(texts):
        raise StageError(f"the grader {spec['use']!r} returned {len(given)} values, not {wanted}")
    for verdict in given:
        # Shares and numbers are no verdicts: where would they begin to be right?
        if verdict is not None and type(verdict).__name__ not in ("bool", "bool_"):
            raise StageError(
                f"the grader {spec['use']!r} returned {str(verdict)[:SHOWN]!r}, not {wanted}"
            )
    return [None if verdict is None else bool(verdict) for verdict in given]


def is_refusal(text: str) -> bool:
    """Whether a reply says that it does not know."""
    text = text.lower().replace("’", "'")
    return any(phrase in text for phrase in REFUSALS)


def contains_value(text: str, value: str) -> bool:
    """Whether the value occurs in the text as whole words."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def is_loop(text: str) -> bool:
    """Whether a phrase of up to LOOP_WORDS words is repeated LOOP_REPEATS times in a row.

    Sums such as "5 + 5 + 5 + 5 + 5" are not loops: a phrase of several parts must have a letter.
    """
    words = text.casefold().split()
    for size in range(1, LOOP_WORDS + 1):
        needed = size * (LOOP_REPEATS - 1)
        run = 0  # words in a row that equal the word one phrase before
        for index in range(size, len(words)):
            run = run + 1 if words[index] == words[index - size] else 0
            if run < needed:
                continue
            phrase = words[index - size + 1 : index + 1]
            if size == 1 or any(character.isalpha() for character in "".join(phrase)):
                return True
    return False


def own_part(text: str) -> str:
    """What a reply stands by: up to a question of its own, behind what it takes back.

    "" if it loops.
    """
    if is_loop(text):
        return ""
    text = unicodedata.normalize("NFC", RUNS_ON.split(text, maxsplit=1)[0])
    return TAKEN_BACK.split(text)[-1]
