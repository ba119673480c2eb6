"""What a model reads of search results: plain text, cut to fit, with its sources where asked for.

A result that is longer than its room shows the part in which most words of the query stand.
"""

from __future__ import annotations

import bisect
import dataclasses as dc
from collections.abc import Sequence

from llmstages.data.passages import BLANK, SENTENCE_END, Passage
from llmstages.plugins.tools.indexes import words

NOTHING = "nothing found"
CUT = "\u2026"
LEAST = 40  # characters of a result that is shown beside others
LOOKED_AT = 20_000  # characters of a text in which the part to show is looked for
STEM = 3  # letters that a word of the query and one of the text must share at their beginning
ENDING = 3  # letters in which longer words may differ at their end


def fitting(passages: Sequence[Passage], characters: int) -> Sequence[Passage]:
    """The first passages, as many as have room for a few words each; at least one."""
    return passages[: max(1, characters // LEAST)]


def shown(passages: Sequence[Passage], query: str, characters: int, titles: bool) -> str:
    """The text of results, of ``characters`` characters at most.

    Args:
        passages: the results that fit, the best first.
        query: what was asked, for the part of a long result that is shown.
        characters: room for all of them. Each gets an equal share of what those before it left.
        titles: put ``[1] title address`` before each.
    """
    parts: list[str] = []
    left = characters
    for place, passage in enumerate(passages):
        separator = "\n\n" if parts else ""
        share = left // (len(passages) - place) - len(separator)
        heading = _heading(place + 1, passage, share // 2) if titles else ""
        part = separator + heading + snippet(passage.text, query, share - len(heading))
        parts.append(part)
        left -= len(part)
    return "".join(parts) or NOTHING


def sources(passages: Sequence[Passage]) -> list[dict[str, object]]:
    """Where results come from: all that is known of each passage but its text."""
    return [
        {name: value for name, value in dc.asdict(passage).items() if name != "text"}
        for passage in passages
    ]


def _heading(number: int, passage: Passage, room: int) -> str:
    """One line, whatever a page calls itself, cut to fit; "" where there is no room for one."""
    title = " ".join(f"{passage.title} {passage.url}".split())
    line = f"[{number}] {title}".rstrip()
    if len(line) < room:
        return line + "\n"
    return line[: room - 2] + CUT + "\n" if room > len(f"[{number}] ") + 2 else ""


def snippet(text: str, query: str, room: int) -> str:
    """A text that fits, or its part with most words of the query, from the start of a sentence."""
    if len(text) <= room:
        return text
    if room <= 2 * len(CUT):
        return text[:room]
    best = _best_start(text[:LOOKED_AT], query, room - 2 * len(CUT))
    begin = CUT if best else ""
    end = best + room - len(begin)
    if end >= len(text):
        return begin + text[best:]
    return begin + text[best : end - len(CUT)] + CUT


def _best_start(text: str, query: str, width: int) -> int:
    """Where a part of ``width`` characters begins that has most words of the query."""
    places = matches(text, query)
    if not places:
        return 0
    sentences = [0, *(match.end() for match in SENTENCE_END.finditer(text))]
    # Where a sentence is longer than the room, a part begins a little before a match.
    before = [_word_start(text, max(0, place - width // 4), place) for place, _ in places]

    def quality(start: int) -> tuple[int, bool, int]:
        # Of equal parts the last one begins with the sentence of the first match.
        return _words_within(places, start, start + width), start in begins_sentence, start

    begins_sentence = set(sentences)
    return max({*sentences, *before}, key=quality)


def _word_start(text: str, start: int, end: int) -> int:
    """The beginning of the first whole word from ``start`` on, at most ``end``."""
    blank = BLANK.search(text, start, end)
    return blank.end() if blank and start else start


def matches(text: str, query: str) -> list[tuple[int, str]]:
    """(place in the text, word of the query) of each word of the query in a text, in order."""
    terms = [term for term in words.terms(query.casefold()) if not _is_stop_word(term)]
    asked = {part for term in terms for part in words.neighbors(term)}
    found = []
    lowered = text.casefold()
    if len(lowered) != len(text):  # a few letters become two: places would not fit
        lowered = text.lower() if len(text.lower()) == len(text) else text
    for word in asked:
        beginning = word if len(word) <= STEM else word[: max(STEM, len(word) - ENDING)]
        place = lowered.find(beginning)
        while place >= 0:
            if _begins_word(lowered, place):
                found.append((place, word))
            place = lowered.find(beginning, place + 1)
    return sorted(found)


def _is_stop_word(term: str) -> bool:
    return words.plain(term) in words.stop_words("en")


def _begins_word(text: str, place: int) -> bool:
    """Whether a word begins at a place; in scripts without blanks one may begin anywhere."""
    if place == 0 or words.UNSPACED_CHARACTER.match(text[place]):
        return True
    return not text[place - 1].isalnum()


def _words_within(places: Sequence[tuple[int, str]], start: int, end: int) -> int:
    """How many different words of a query stand in a part of a text, to their last letter."""
    first = bisect.bisect_left(places, (start, ""))
    last = bisect.bisect_left(places, (end, ""))
    return len({word for place, word in places[first:last] if place + len(word) <= end})
