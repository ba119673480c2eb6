"""Is a reply correct? One rule per kind of answer, shared by evaluation, probing and rewards.

An answer that merely occurs somewhere in a reply is not given by it: a long enough ramble contains
every common name. So a reply counts only for what it *states*: its declared answer ("the answer
is ..."), or else its first sentence, a closing line, or the whole of a short reply. There the
answer must stand as whole words, must not be denied ("not Paris"), and must not be one of several
candidates ("Paris or London"). A reply that loops is never correct.

Numbers are compared as numbers (numbers.py), so ``18.00``, ``$18`` and ``18`` are the same. As
usual for GSM8K (Cobbe et al. 2021), the last number of a reply that declares none is its result;
what stands in parentheses is not, where there is another. A reply that goes on to a question of its
own counts up to there.

Left out on purpose: synonyms, spelling variants, units and formulas. What is not seen as correct
here may still be so; a model that judges, or math-verify, can be added as a reward or evaluator.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from llmstages.text import numbers

# What announces the answer. A number may also follow the mere word: "answer 104".
DECLARED = re.compile(
    r"(?:\banswer\s+(?:is|was|would\s+be)\b\s*:?|\banswer\s*[:=]|####|\\boxed\s*\{)\s*",
    re.IGNORECASE,
)
DECLARED_NUMBER = re.compile(rf"(?:{DECLARED.pattern}|\banswer\s*)", re.IGNORECASE)
OPERATOR = re.compile(r"\s*[-+*/×÷x]\s*[\d($]")
RESULT = re.compile(r"=\s*([^=\n]*)")
PARENTHESES = re.compile(r"\([^()]*\)")
# Where a model asks itself the next question.
RUNS_ON = re.compile(r"\n\s*#*\s*(?:question|q|problem|human|user|instruction)\s*\d*\s*:", re.I)
SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\"')\]]*\s+|\n+")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|[A-Z])\.$")
EMPHASIS = re.compile(r"[*_`]+")
CONCLUDES = re.compile(r"(?:so|thus|hence|therefore|in conclusion|finally)\b", re.IGNORECASE)
DENIED = (
    r"(?:\bnot|n't|n’t|\bnever|\bneither|\bnor|\bcannot|\brather than|\binstead of|\bother than"
    r"|\bexcept|\bunlike|\bif|\bwhether)(?:\s+(?!but\b)[\w'’]+){0,2}\s+$"
)
ALTERNATIVE = r"(?:,?\s+or\s+|\s*/\s*)"
ITEMS = re.compile(r",\s*(?:and\s+|or\s+)?|;\s*|\s+(?:and|or)\s+")

SHORT_REPLY = 25  # words up to which a reply is taken as a whole
LONG_SENTENCE = 40  # words of a statement that are read; the answer is not looked for behind them
LONG_ANSWER = 12  # words from which an answer is a text of its own, and may stand anywhere
LOOP_REPEATS = 4  # times in a row that make a phrase a loop
LOOP_WORDS = 8  # of the longest phrase that is looked for
ITEM_WORDS = 3  # of an item of a list
LIST_ITEMS = 4  # candidates of a list without "and" or "or"; "New York, NY, USA" is one place


def contains_value(text: str, value: str) -> bool:
    """Whether the value occurs in the text as whole words."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def stated_number(text: str) -> Fraction | None:
    """The number that a solution ends with, None where there is none.

    It is the last one that is declared ("answer", "####") or, without these, the last one of the
    text. There is none either where the last number is one of two: "72 or 73".
    """
    text = numbers.normalized(EMPHASIS.sub("", text))
    declared = [
        (match, text[match.end() :])
        for announced in DECLARED_NUMBER.finditer(text)
        if (match := numbers.AMOUNT.match(text, announced.end()))
    ]
    if declared:
        match, rest = declared[-1]
        return _result_of_sum(rest) if OPERATOR.match(rest) else _value_in(match.group())
    # A number in parentheses explains another one, where there is one.
    outside = PARENTHESES.sub(" ", text)
    if numbers.NUMBER.search(outside):
        text = outside
    matches = list(numbers.NUMBER.finditer(text))
    if not matches:
        return None
    if len(matches) > 1:
        between = text[matches[-2].end() : matches[-1].start()]
        if re.fullmatch(r"%?\s*(?:,\s*)?(?:or|/)\s*[$€£]?", between.strip()) and "or" in between:
            return None
    return numbers.value_of(matches[-1].group())


def _result_of_sum(rest: str) -> Fraction | None:
    """The number behind the last ``=`` of the line with which a declared sum continues.

    None if the sum is not worked out.
    """
    line = rest.partition("\n")[0]
    results = RESULT.findall(line)
    return _value_in(results[-1]) if results else None


def _value_in(text: str) -> Fraction | None:
    found = numbers.NUMBER.search(text)
    return numbers.value_of(found.group()) if found else None


def is_right(text: str, row: Mapping[str, Any]) -> bool:
    """Whether a reply gives the ``answer`` of a problem, or one of its ``aliases``."""
    accepted = [row["answer"], *(row.get("aliases") or ())]
    return any(is_correct(text, str(answer)) for answer in accepted)


def is_correct(text: str, answer: str) -> bool:
    """Whether a reply gives the answer.

    A numeric answer must equal the number that the text ends with; any other answer must be stated
    (see the head of this file).
    """
    wanted = answer.strip()
    # Replies are read without emphasis, and so are answers, unless they are nothing else.
    wanted = EMPHASIS.sub("", wanted) or wanted
    if wanted.count(".") == 1 and len(wanted) > 1:
        wanted = wanted.removesuffix(".")
    if not wanted or is_loop(text):
        return False
    text = RUNS_ON.split(text, maxsplit=1)[0]
    amount = numbers.amount_of(wanted)
    if amount is not None:
        return stated_number(text) == amount
    if len(wanted.split()) >= LONG_ANSWER or SENTENCE_END.search(wanted):
        return contains_value(EMPHASIS.sub("", text), wanted)
    return any(_gives(statement, wanted) for statement in statements(text))


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


def statements(text: str) -> list[str]:
    """The parts of a reply in which its answer may stand, without emphasis.

    A declared answer is the only one. Otherwise these are the first sentence, sentences that
    conclude ("So ..."), the last line, and every sentence of a short reply. Questions are left out
    unless there is nothing else.
    """
    text = EMPHASIS.sub("", text).strip()
    declared = list(DECLARED.finditer(text))
    if declared and (rest := _sentences(text[declared[-1].end() :].strip())):
        return [_shortened(rest[0])]
    sentences = _sentences(text)
    stated = [sentence for sentence in sentences if not sentence.endswith(("?", "？"))]
    stated = stated or sentences
    if len(text.split()) <= SHORT_REPLY:
        return stated
    chosen = stated[:1]
    chosen += [sentence for sentence in stated[1:] if CONCLUDES.match(sentence)]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and len(lines[-1].split()) <= SHORT_REPLY:
        chosen.append(lines[-1])
    return [_shortened(sentence) for sentence in chosen]


def _sentences(text: str) -> list[str]:
    sentences: list[str] = []
    is_open = False  # the last one ended in an abbreviation, not at its end
    for part in SENTENCE_END.split(text):
        part = part.strip()
        if not part:
            continue
        if is_open:
            sentences[-1] += f" {part}"
        else:
            sentences.append(part)
        is_open = ABBREVIATION.search(part) is not None
    return sentences


def _shortened(sentence: str) -> str:
    return " ".join(sentence.split()[:LONG_SENTENCE])


def _gives(statement: str, answer: str) -> bool:
    """Whether a statement gives the answer, and gives it alone."""
    if answer.casefold() in ("yes", "no"):
        # "There is no reason" does not say no.
        return re.match(rf"\W*{answer}\b", statement, re.IGNORECASE) is not None
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
        not re.search(DENIED, statement[: match.start()], re.IGNORECASE)
        for match in _occurrences(statement, answer)
    )


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
