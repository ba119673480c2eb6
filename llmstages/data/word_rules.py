"""Rules that cut a piece of text between blanks into words, written after spaCy's English ones.

Contractions, units behind numbers and punctuation marks become words of their own; hyphens between
letters are cut; addresses and abbreviations stay whole. All of it works with positions in the
piece and looks at a bounded number of characters around each, so a page that is one run of marks
takes time in proportion to its length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Scripts that are written without blanks between words, or with marks inside them: Thai, Lao,
# Tibetan, Japanese and Chinese.
UNSPACED = re.compile(r"[\u0e00-\u0fff\u3040-\u9fff]")
# \w lacks the vowel signs of Indic and Thai script, and would cut words there.
LETTER = r"[\w\u0300-\u036f\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e]"
WORD = re.compile(rf"{LETTER}+(?:['’.]{LETTER}+)*|\.{{2,}}|-+|[^\w\s]")

# Marks that are a word of their own wherever they stand at an end of a piece.
MARKS = frozenset("…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪$£€¥¢₽₹%=—–§'\"”“`‘´’‚„»«")
# Longer marks, and those that depend on what stands beside them.
FRONT = re.compile(r"\.\.+|---?|\+(?![0-9])")
BACK = re.compile(
    r"(?:\.\.+|---?|['’][sS]"
    r"|(?<=[0-9])(?:\+|[kKmM]?m|[kmM]?g|[kKMGTmg][bB]|ft|km/h|K|cm|lb|oz)"
    r"|(?<=[0-9a-zß-ÿ%²+\-)\]'\"”’])\.|(?<=[A-Z][A-Z])\.)$"
)
BACK_LENGTH = 4  # of the longest match of BACK that is taken at once
BACK_WINDOW = BACK_LENGTH + 2  # with the two characters that its lookbehinds see
BACK_LETTERS = frozenset("sSmMgGKkbBthlz")  # the letters that a match of BACK can end with
CONTRACTION = re.compile(r"(?<=[a-zA-Z])(?:n['’]t|['’](?:ve|re|ll|d|m|s))$", re.IGNORECASE)
CONTRACTION_LENGTH = 3
INSIDE = re.compile(
    r"(\.\.+|(?<=[0-9])[+\-*^](?=[0-9\-])|(?<=[a-zß-ÿ])\.(?=[A-ZÀ-Þ])|(?<=[^\W\d_]),(?=[^\W\d_])"
    r"|(?<=[^\W_])(?:---?|[-–—~])(?=[^\W\d_])|(?<=[^\W_])[:<>=/](?=[^\W\d_]))"
)
ALPHANUMERIC = re.compile(r"[^\W_]+")

# What is never cut. A piece begins with at most one of the first three.
UNCUT = re.compile(
    r"(?P<url>(?:https?://|www\.)\S+)|(?P<initials>(?:[a-z]\.)+)"
    r"|(?P<abbreviation>(?:mr|mrs|ms|dr|prof|jr|sr|st|vs|etc|inc|ltd|co|corp|gen|rep|sen|gov|no"
    r"|pa|va)\.)",
    re.IGNORECASE,
)
EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.([\w.]+)")
EMAIL_LOCAL = re.compile(r"[\w.+-]+")
EMAIL_MARKS = "_.+-"  # the marks that an e-mail address may begin with


def cut_piece(piece: str) -> Sequence[str]:
    """The words of a piece without blanks, in time proportional to its length.

    Marks are peeled off the front, then off the back, and what is left is cut inside.
    """
    if not piece.isascii() and UNSPACED.search(piece):
        return WORD.findall(piece)
    if piece.isalnum():
        return ("can", "not") if piece == "cannot" else (piece,)
    words: list[str] = []
    start = 0 if piece[:1].isalnum() else _peel_front(piece, words)
    marks_behind: list[str] = []
    end, whole = _peel_back(piece, start, marks_behind)
    if end > start:
        rest = piece[start:end]
        if whole or rest.isidentifier():
            words.append(rest)
        else:
            words += filter(None, INSIDE.split(rest))
    words += reversed(marks_behind)
    return words


def _peel_front(piece: str, marks: list[str]) -> int:
    """Collect the marks that the piece begins with; returns where the rest starts."""
    start, length = 0, len(piece)
    no_email_before = 0
    while start < length:
        first = piece[start]
        if first in EMAIL_MARKS and start >= no_email_before:
            if EMAIL.fullmatch(piece, start):
                break
            # Whatever starts in the same run of characters has the same end, so it fails as well.
            no_email_before = _end_of(EMAIL_LOCAL, piece, start)
        if first in MARKS:
            start += 1
            marks.append(first)
            continue
        mark = FRONT.match(piece, start)
        if mark is None:
            break
        marks.append(mark.group())
        start = mark.end()
    return start


def _peel_back(piece: str, start: int, marks: list[str]) -> tuple[int, bool]:
    """Collect marks, units and contractions from the end, the last one first.

    Returns where the rest ends, and whether it must stay whole.
    """
    end = len(piece)
    alphanumeric_until = -1
    uncut_ends = _uncut_ends(piece, start) if "." in piece or "/" in piece else ()
    while end > start:
        for ends in uncut_ends:
            if end in ends:
                return end, True
        mark = _mark_at_end(piece, start, end)
        if not mark:
            return end, False
        if mark.isalpha():
            # A unit is peeled off 1.5km, not off 15km, which is letters and digits alone.
            if alphanumeric_until < 0:
                alphanumeric_until = _end_of(ALPHANUMERIC, piece, start)
            if end <= alphanumeric_until:
                return end, True
        marks.append(mark)
        end -= len(mark)
    return end, True


def _mark_at_end(piece: str, start: int, end: int) -> str:
    """The mark, unit or contraction that ``piece[start:end]`` ends with, or ""."""
    last = piece[end - 1]
    if last in MARKS:
        return last
    window = piece[max(start, end - BACK_WINDOW) : end]
    if last in BACK_LETTERS or not last.isalnum():
        found = BACK.search(window, max(len(window) - BACK_LENGTH, 0))
        if found:
            return found.group()
    if "'" in window or "’" in window:
        found = CONTRACTION.search(window, max(len(window) - CONTRACTION_LENGTH, 0))
        if found:
            return found.group()
    return ""


def _end_of(pattern: re.Pattern[str], piece: str, start: int) -> int:
    found = pattern.match(piece, start)
    return found.end() if found else start


def _uncut_ends(piece: str, start: int) -> list[range]:
    """Where a part of the piece from ``start`` may end to be an address or an abbreviation."""
    ends: list[range] = []
    found = UNCUT.match(piece, start)
    if found and found.lastgroup == "initials":
        ends.append(range(start + 2, found.end() + 1, 2))
    elif found:
        ends.append(range(found.end(), found.end() + 1))
    if "@" in piece:
        found = EMAIL.match(piece, start)
        if found:
            ends.append(range(found.start(1) + 1, found.end() + 1))
    return ends
