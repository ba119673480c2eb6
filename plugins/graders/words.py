"""grader words: the reply states the answer, which is a name, a word or a short text.

An answer that merely occurs somewhere in a reply is not given by it: a long enough ramble contains
every common name. So a reply counts only for what it *states*: its declared answer ("the answer
is ..."), or else its first sentence, a closing line, or the whole of a short reply. There the
answer must stand as whole words, must not be denied ("not Paris"), and must not be one of several
candidates ("Paris or London"). A reply that loops is never correct.

Left out on purpose: synonyms and spelling variants. What is not seen as correct here may still be
so; ``aliases`` of a problem or the grader ``judge`` help.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.plugins.graders import latex
from llmstages.text import grading
from llmstages.text.grading import DECLARED, EMPHASIS
from llmstages.text.sentences import joined_at_abbreviations

SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\"')\]]*\s+|\n+")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|[A-Z])\.$")
CONCLUDES = re.compile(r"(?:so|thus|hence|therefore|in conclusion|finally)\b", re.IGNORECASE)
DENIED = (
    r"(?:\bnot|n't|n’t|\bnever|\bneither|\bnor|\bcannot|\brather than|\binstead of|\bother than"
    r"|\bexcept|\bunlike|\bif|\bwhether)(?:\s+(?!but\b)[\w'’]+){0,2}\s+$"
)
# Behind the answer: "Paris is not the capital", "Paris, but today it is Lyon".
DENIED_BEHIND = re.compile(
    r"\s*(?:(?:is|was|are|were|does|did|do|has|had|can|could|would|will)(?:\s+not\b|n['’]t\b|"
    r"\s+never\b)|,?\s+but\s+(?:today|now|actually|in fact|it\s+is|it['’]s)\b)",
    re.IGNORECASE,
)
# York is not New York.
NAME_BEFORE = re.compile(
    r"\b(?:New|North|South|East|West|Northern|Southern|Eastern|Western|San|Santa|Saint|Port|Fort"
    r"|Upper|Lower|Great|Little)\s+$"
)
# "No idea" and "yes and no" answer nothing.
YES_OR_NO = (
    r"\W*{answer}(?=\W*$|[,.;:!)\n]|\s*[-–—]|\s+(?:it|its|that|this|these|those|he|she|they|we|i"
    r"|you|there|the|a|an|not|because|since|as)\b|['’\"])"
)
ALTERNATIVE = r"(?:,?\s+or\s+|\s*/\s*)"
ITEMS = re.compile(r",\s*(?:and\s+|or\s+)?|;\s*|\s+(?:and|or)\s+")

SHORT_REPLY = 25  # words up to which a reply is taken as a whole
LONG_SENTENCE = 40  # words of a statement that are read; the answer is not looked for behind them
LONG_ANSWER = 12  # words from which an answer is a text of its own, and may stand anywhere
ITEM_WORDS = 3  # of an item of a list
LIST_ITEMS = 4  # candidates of a list without "and" or "or"; "New York, NY, USA" is one place


@dataclass(frozen=True)
class WordsConfig:
    """Nothing to set."""


class Words:
    """The reply states the answer as words, and states it alone."""

    Config = WordsConfig
    version = "1"

    def __init__(self, config: WordsConfig) -> None:
        self.config = config

    def grade(self, replies: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Whether each reply states one of the answers of its problem."""
        return [
            any(states(reply, answer) for answer in grading.accepted(row))
            for reply, row in zip(replies, rows, strict=True)
        ]


def states(reply: str, answer: str) -> bool:
    """Whether a reply states the answer (see the head of this file)."""
    wanted = answer.strip()
    # Replies are read without emphasis, and so are answers, unless they are nothing else.
    wanted = EMPHASIS.sub("", wanted) or wanted
    if wanted.count(".") == 1 and len(wanted) > 1:
        wanted = wanted.removesuffix(".")
    reply = grading.own_part(reply)
    if "\\" in reply:
        reply = latex.plain(reply)
    if not wanted or not reply:
        return False
    if len(wanted.split()) >= LONG_ANSWER or SENTENCE_END.search(wanted):
        return grading.contains_value(EMPHASIS.sub("", reply), wanted)
    return any(_gives(statement, wanted) for statement in statements(reply))


def statements(reply: str) -> list[str]:
    """The parts of a reply in which its answer may stand, without emphasis.

    A declared answer is the only one. Otherwise these are the first sentence, sentences that
    conclude ("So ..."), the last line, and every sentence of a short reply. Questions are left out
    unless there is nothing else.
    """
    reply = EMPHASIS.sub("", reply).strip()
    declared = list(DECLARED.finditer(reply))
    if declared and (rest := sentences(reply[declared[-1].end() :].strip())):
        return [_shortened(rest[0])]
    all_sentences = sentences(reply)
    stated = [sentence for sentence in all_sentences if not sentence.endswith(("?", "？"))]
    stated = stated or all_sentences
    if len(reply.split()) <= SHORT_REPLY:
        return stated
    chosen = stated[:1]
    chosen += [sentence for sentence in stated[1:] if CONCLUDES.match(sentence)]
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    if len(lines) > 1 and len(lines[-1].split()) <= SHORT_REPLY:
        chosen.append(lines[-1])
    return [_shortened(sentence) for sentence in chosen]


def sentences(text: str) -> list[str]:
    """The sentences of a text and its lines, without those that are empty."""
    parts = [part.strip() for part in SENTENCE_END.split(text)]
    return joined_at_abbreviations(parts, ABBREVIATION)


def _shortened(sentence: str) -> str:
    return " ".join(sentence.split()[:LONG_SENTENCE])


def _gives(statement: str, answer: str) -> bool:
    """Whether a statement gives the answer, and gives it alone."""
    if answer.casefold() in ("yes", "no"):
        # "There is no reason" does not say no.
        said = re.match(YES_OR_NO.format(answer=answer), statement, re.IGNORECASE)
        return said is not None and not re.search(r"\b(?:and|or)\s+(?:yes|no)\b", statement, re.I)
    if answer.casefold() in ("true", "false"):
        said = re.findall(r"\b(true|false)\b", statement.casefold())
        return set(said) == {answer.casefold()}
    if len(answer) == 1 and answer.isupper():
        # The letter of a choice, "B" or "(B) Paris"; in "A dog" it is an article.
        letter = rf"(?:{answer}\s*(?:$|[).:\],])|{answer.lower()}\s*(?:$|[).\]]))"
        return re.match(rf"\W*(?:option\s+)?{letter}", statement) is not None
    if _is_candidate(statement, answer):
        return False
    return any(
        not _is_denied(statement[: match.start()], statement[match.end() :])
        for match in _occurrences(statement, answer)
    )


def _is_denied(before: str, behind: str) -> bool:
    """Whether what stands around an answer denies it, or makes another name of it."""
    if re.search(DENIED, before, re.IGNORECASE) or NAME_BEFORE.search(before):
        return True
    return DENIED_BEHIND.match(behind) is not None


def _occurrences(statement: str, answer: str) -> Iterator[re.Match[str]]:
    """Where the answer stands as whole words. Only an acronym must have the same case."""
    flags = 0 if answer.isupper() else re.IGNORECASE
    return re.finditer(rf"(?<!\w){re.escape(answer)}(?!\w)", statement, flags)


def _is_candidate(statement: str, answer: str) -> bool:
    """Whether the answer is only one of several that the statement offers."""
    if re.search(r",|\band\b|\bor\b|/", answer):
        return False  # it is a list itself
    article = r"(?:(?:the|a|an|in|at)\s+)?"
    pattern = re.escape(answer)
    if re.search(rf"(?<!\w){pattern}{ALTERNATIVE}\w", statement, re.IGNORECASE):
        return True
    if re.search(rf"\w{ALTERNATIVE}{article}{pattern}(?!\w)", statement, re.IGNORECASE):
        return True
    return _is_in_list(statement, answer)


def _is_in_list(statement: str, answer: str) -> bool:
    """Whether the answer is an item of a list: "Paris and London", "maybe Rome, Paris and Bonn".

    "Paris, a large and old city" and "the bell and became friends" are no lists: their parts do
    not look like the answer.
    """
    items = [item.strip(" .!:") for item in ITEMS.split(statement)]
    first, others = items[0], items[1:]
    wanted = answer.casefold()
    is_alone = wanted == first.casefold() or wanted in [item.casefold() for item in others]
    # What stands before the first item may be longer: "It could be Paris, ...".
    is_item = is_alone or first.casefold().endswith(f" {wanted}")
    looks_alike = all(
        len(item.split()) <= ITEM_WORDS and item[:1].isupper() == answer[:1].isupper()
        for item in others
    )
    if not others or not is_item or not looks_alike:
        return False
    has_and = re.search(r"\sand\s", statement) is not None
    if len(items) >= LIST_ITEMS:
        return True
    if len(items) == LIST_ITEMS - 1:
        return has_and and answer[:1].isupper()
    return has_and and is_alone and len(first.split()) <= ITEM_WORDS
