"""Questions by rules: a sentence of a passage with a name, a year, a number or a rare word blanked.

No model is needed, and the answer is what the author wrote. The rules ask more of a sentence than
that it has such a word: a reader who never saw the passage must be able to tell what the sentence
is about, and must not be able to read the answer off its other words. What is refused is counted by
its reason.

The rules know no grammar. They read capitals, digits, blanks and marks, so they work for the
scripts that have these; pronouns are listed for seven languages. Left out on purpose: scripts
without blanks (a model can write questions about those), synonyms of an answer, and whether a
question is of any interest.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from llmstages.data.word_rules import UNSPACED
from llmstages.text.sentences import joined_at_abbreviations

BLANK = "____"
KINDS = ("name", "year", "number", "word")  # in the order in which they are tried
# In English, what stands in the place of the answer where a sentence becomes a question itself.
ASKING = {"name": "who or what", "year": "which year", "number": "how many", "word": "what"}
FEWEST_WORDS, MOST_WORDS = 8, 40  # of a sentence; without context nobody could answer
FEWEST_LEFT = 6  # words that stay beside the blank
MOST_NAME_WORDS = 4
RARE_LETTERS = 7  # of a word that may be blanked; shorter ones are mostly grammar
RARE_PASSAGES = 2  # passages in which such a word occurs at most
STEM = 5  # letters that two forms of one word share: Paris, Parisian

# What looks like an end but is not: titles, units and single initials.
NO_END = re.compile(
    r"(?:^|[\s(])(?:\w|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|ca|cf|No|Nr|Bd|Mt|Gen|Col|e\.g|i\.e|z\.B|d\.h)"
    r"[.]$"
)
# Also where the blank behind a period was lost: "socialism.Humans lived".
SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+|\n+|(?<=[^\W_]{2}[.!?])(?=[A-ZÀ-ÞА-Я])")
WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
POSSESSIVE = re.compile(r"['’]s?$")
CAPITAL = "[A-ZÀ-ÞА-Я]"
AND = "(?:and|or|und|oder|et|ou|y|o|e|en|и)"
GLUED = re.compile(r"[a-zß-ÿ]{3}[A-Z][a-z]")  # a heading without a blank behind it: "HealthIn 2018"
NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*(?![\w]|[.,]\d)")
YEAR = re.compile(r"1[0-9]{3}|20[0-9]{2}")
ENDS = re.compile(r"[.!?][\"'”’)\]]*$")
PAIRS = (("(", ")"), ("[", "]"), ("«", "»"))  # marks that German and French share are left out
# Words that point to another sentence: English, German, French, Spanish, Italian, Dutch, Russian.
PRONOUNS = frozenset(
    "he she it they him them his hers her their theirs its this these those such we us our i my "
    "you your er sie es ihm ihn ihnen ihr ihre ihren sein seine seinen dieser diese dieses wir "
    "il elle ils elles ce cela ceci cet cette ces son leur leurs nous "
    "él ella ellos ellas esto este esta estos estas ese esa su sus "
    "egli lui lei essi esso essa questo questa questi queste suo sua suoi "
    "hij zij ze het hun haar dit deze zijn "
    "он она оно они его её ее их это этот эта эти".split()
)
# A sentence that begins with one of these continues another one.
OPENERS = frozenset(
    "however also thus therefore moreover furthermore both another other others there here then "
    "but and or so yet nor still instead meanwhile similarly likewise consequently additionally "
    "aber und auch doch dabei dort dann mais et aussi donc pero y también ma e anche maar en ook "
    "но и также".split()
)


@dataclass(frozen=True)
class Candidate:
    """A question that may be asked.

    Attributes:
        sentence: the sentence with BLANK in place of the answer.
        answer: what stood there.
        kind: one of KINDS.
    """

    sentence: str
    answer: str
    kind: str

    def question(self, wording: str) -> str:
        """The question in this wording, with {kind} and {sentence} or {question}."""
        asking = ENDS.sub("", self.sentence).replace(BLANK, ASKING[self.kind]) + "?"
        parts = {"{kind}": self.kind, "{sentence}": self.sentence, "{question}": asking}
        # All at once: a sentence may hold braces itself.
        return re.sub("|".join(map(re.escape, parts)), lambda match: parts[match[0]], wording)


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without blanks around them."""
    parts = [" ".join(part.split()) for part in SENTENCE_END.split(text)]
    return joined_at_abbreviations(parts, NO_END)


def passage_counts(texts: Iterable[str]) -> Counter[str]:
    """Word -> number of passages in which it occurs."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({word.casefold() for word in WORD.findall(text)})
    return counts


def candidates(
    text: str, counts: Mapping[str, int], kinds: Sequence[str], refused: Counter[str]
) -> Iterator[Candidate]:
    """The questions that a passage allows, names first.

    Args:
        text: the passage.
        counts: of passage_counts(), over all passages.
        kinds: those of KINDS that may be blanked.
        refused: counts what was not asked, by reason: sentences, then spans of sentences.
    """
    usable = []
    for sentence in sentences(text):
        if reason := sentence_fault(sentence):
            refused[reason] += 1
        else:
            usable.append(sentence)
    for kind in (kind for kind in KINDS if kind in kinds):
        for sentence in usable:
            for start, end in _spans(sentence, kind, counts):
                if reason := span_fault(sentence, start, end):
                    refused[reason] += 1
                    continue
                blanked = sentence[:start] + BLANK + sentence[end:]
                yield Candidate(blanked, sentence[start:end], kind)


def sentence_fault(sentence: str) -> str:
    """Why nothing can be asked about a sentence alone; "" if something can."""
    words = WORD.findall(sentence)
    if len(words) < FEWEST_WORDS:
        return "sentence too short"
    if len(words) > MOST_WORDS:
        return "sentence too long"
    if not ENDS.search(sentence) or BLANK in sentence:
        return "not a sentence"
    is_closed = all(sentence.count(left) == sentence.count(right) for left, right in PAIRS)
    if not is_closed or sentence.count('"') % 2 or GLUED.search(words[0]):
        return "not a sentence"
    if words[0].casefold() in OPENERS or _points_elsewhere(sentence):
        return "subject in another sentence"
    return ""


def _points_elsewhere(sentence: str) -> bool:
    """Whether a pronoun stands before any name that it could mean."""
    names = _names(sentence)
    first_name = names[0][0] if names else len(sentence)
    for match in WORD.finditer(sentence):
        # The first word has a capital of its own, so it counts as a pronoun first.
        if match.start() > 0 and match.start() >= first_name:
            return False
        if match[0].casefold() in PRONOUNS:
            return True
    return False


def _names(sentence: str) -> list[tuple[int, int]]:
    """Runs of words with capitals behind the first word: (start, end)."""
    matches = list(WORD.finditer(sentence))
    runs: list[tuple[int, int]] = []
    for before, match in itertools.pairwise(matches):
        if not match[0][:1].isupper() or match[0].casefold() in PRONOUNS:
            continue
        end = match.end() - len("".join(POSSESSIVE.findall(match[0])))
        is_next = sentence[before.end() : match.start()] == " "
        if is_next and runs and runs[-1][1] == before.end():
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((match.start(), end))
    return runs


def _spans(sentence: str, kind: str, counts: Mapping[str, int]) -> list[tuple[int, int]]:
    """Where a span of this kind stands."""
    if kind == "name":
        return _whole_names(sentence)
    if kind in ("year", "number"):
        wanted = kind == "year"
        matches = NUMBER.finditer(sentence)
        return [
            match.span() for match in matches if (YEAR.fullmatch(match[0]) is not None) == wanted
        ]
    first = WORD.search(sentence)
    return [
        match.span()
        for match in WORD.finditer(sentence)
        if first is not None and match.start() > first.start() and _is_rare(match[0], counts)
    ]


def _whole_names(sentence: str) -> list[tuple[int, int]]:
    """Names that are not a part of a longer one that begins the sentence."""
    first = WORD.search(sentence)
    begin = first.end() + 1 if first and first[0][:1].isupper() else 0
    return [
        (start, end)
        for start, end in _names(sentence)
        if start != begin and len(sentence[start:end].split()) <= MOST_NAME_WORDS
    ]


def _is_rare(word: str, counts: Mapping[str, int]) -> bool:
    is_long = len(word) >= RARE_LETTERS and word.isalpha() and word.islower()
    return is_long and counts.get(word, 0) <= RARE_PASSAGES


def span_fault(sentence: str, start: int, end: int) -> str:
    """Why a span cannot be asked for; "" if it can."""
    answer = sentence[start:end]
    before, behind = sentence[:start], sentence[end:]
    others = [word.casefold() for word in WORD.findall(f"{before} {behind}")]
    parts = [word.casefold() for word in WORD.findall(answer)]
    if len(answer) < 2:
        return "answer of one character"
    if any(_is_form_of(part, other) for part in parts for other in others):
        return "answer repeated in the sentence"
    if len(others) < FEWEST_LEFT:
        return "too little is left"
    if _is_in_list(before, behind):
        return "one of a list"
    if re.search(r"[\w\]]$|[-–—/'’]$", before) or re.match(r"[\w\[]|[-–—/]|['’](?!s\b)", behind):
        return "part of a longer word"
    # The blank may have taken the name that a pronoun means.
    if _points_elsewhere(f"{before}x{behind}"):
        return "subject in another sentence"
    if not _has_subject(before, behind):
        return "nothing says what it is about"
    return ""


def _is_form_of(part: str, other: str) -> bool:
    """Whether two words are equal, or forms of one word."""
    if part == other:
        return True
    return len(part) >= STEM and len(other) >= STEM and part[:STEM] == other[:STEM]


def _is_in_list(before: str, behind: str) -> bool:
    """Whether the span is one of several that could change places: "Rome, Paris and Bonn"."""
    listed_before = re.search(rf"{CAPITAL}\w*,\s(?:and\s|or\s)?$|\s{AND}\s$", before)
    listed_behind = re.match(rf"(?:,?\s{AND}|,)\s(?:{CAPITAL}|\d)", behind)
    return bool(listed_before or listed_behind)


def _has_subject(before: str, behind: str) -> bool:
    """Whether a name, or in scripts without capitals two long words, stays beside the blank."""
    rest = f"{before} {behind}"
    letters = [character for character in rest if character.isalpha()]
    if not any(character.isupper() or character.islower() for character in letters):
        return sum(len(word) >= STEM for word in WORD.findall(rest)) >= 2
    first = WORD.search(before)
    # "Bakunin was born in ____": whether the first word is a name cannot be seen, so a long one
    # with a capital must do.
    opens_with_name = first is not None and len(first[0]) >= STEM and first[0][:1].isupper()
    return bool(_names(f"{before}x{behind}")) or opens_with_name


def unspaced_characters(text: str) -> int:
    """Number of characters of scripts that are written without blanks between words."""
    return len(UNSPACED.findall(text))
