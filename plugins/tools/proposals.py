"""Calls that might help with an answer, found by rules in the question and the answer.

They are only proposed here: augment.py runs them, and decides which are kept. A tool may bring a
rule of its own along, in its method ``propose`` (llmstages.plugin.Tool); the table RULES has those
of the built-in tools.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.plugins.tools import calculations
from llmstages.plugins.tools.search_tokens import guess_query
from llmstages.text.messages import Message, message

Rule = Callable[[str, str], Sequence[str]]  # (question, answer) -> arguments of calls

OPERATORS_IN_WORDS: Mapping[str, str] = {
    r"\btimes\b|\bmultiplied by\b": "*",
    r"\bplus\b": "+",
    r"\bminus\b": "-",
    r"\bdivided by\b|\bover\b": "/",
}
LETTER = r"(?:the )?(?:letter )?[\"']?(?P<letter>[a-zA-Z])[\"']?(?:'?s)?"
WORD = r"(?:the )?(?:word )?[\"']?(?P<word>\w+)[\"']?"
COUNT = re.compile(
    rf"how (?:many|often)(?: times)?(?: (?:do|does|is|are))? {LETTER}"
    rf"(?: (?:are|is|occurs?|appears?))?(?: there)?(?: used)? in {WORD}",
    re.IGNORECASE,
)
LENGTH = re.compile(
    rf"how many (?:letters|characters) (?:are (?:there )?in|has|does) {WORD}", re.IGNORECASE
)
REVERSE = re.compile(rf"(?:reverse|spell|write) {WORD}(?P<backwards> backwards?)?", re.IGNORECASE)
NUMBER = r"-?\d+(?:\.\d+)?"
COMPARE = re.compile(
    rf"(?P<which>larger|greater|bigger|largest|smaller|less|smallest)\b[^\d-]*"
    rf"(?P<first>{NUMBER})\s*(?:,|or|and)+\s*(?P<second>{NUMBER})",
    re.IGNORECASE,
)


@dataclass
class Candidate:
    """A call that might help with the last answer of a dialogue.

    Attributes:
        dialogue: the number of the dialogue.
        tool: the name of the tool in this run.
        argument: what it is asked.
        source: who proposes it: "row", "rules" or "model".
        result: what the tool gave.
        losses: nats per token of the answer by variant (usefulness.py); empty if not computed.
        reason: why it is not kept; "" while it may be.
    """

    dialogue: int
    tool: str
    argument: str
    source: str
    result: str = ""
    losses: Mapping[str, float] | None = None
    reason: str = ""


def last_question(messages: Sequence[Message]) -> str:
    """The text of the last question, "" if there is none."""
    questions = [str(turn["content"]) for turn in messages if turn["role"] == "user"]
    return questions[-1] if questions else ""


def by_rules(
    number: int, row: Mapping[str, Any], rules: Mapping[str, Rule], tools: Mapping[str, Any]
) -> list[Candidate]:
    """The calls that a row names (columns ``tool`` and ``argument``) and that rules find.

    Args:
        number: of the dialogue.
        row: its messages, which end with an answer.
        rules: name of a tool -> its rule.
        tools: the tools of this run; calls of others are not proposed.
    """
    candidates = []
    if row.get("tool") in tools and row.get("argument") is not None:
        candidates.append(Candidate(number, row["tool"], str(row["argument"]), "row"))
    question = last_question(row["messages"])
    answer = str(row["messages"][-1]["content"])
    for tool, rule in rules.items():
        for argument in dict.fromkeys(rule(question, answer)):
            candidates.append(Candidate(number, tool, argument, "rules"))
    return candidates


def rules_of(specs: Mapping[str, Mapping[str, Any]], tools: Mapping[str, Any]) -> dict[str, Rule]:
    """Name of a tool in this run -> its rule, for the tools that have one.

    Args:
        specs: name -> {"use": registered name, **settings}.
        tools: name -> the tool.
    """
    rules: dict[str, Rule] = {}
    for name, spec in specs.items():
        rule = getattr(tools[name], "propose", None) or RULES.get(used_by(name, spec))
        if rule is not None:
            rules[name] = rule
    return rules


def used_by(name: str, spec: Mapping[str, Any]) -> str:
    """The registered name of a tool that may have another name in this run."""
    return str(spec.get("use") or name)


def calculations_in(question: str, answer: str) -> list[str]:
    """The expressions of a worked answer (its equations), else those of the question."""
    worked = calculations.ANNOTATION.findall(answer) or calculations.EQUATION.findall(answer)
    found = [expression for expression, _ in worked]
    if not found:
        for words, sign in OPERATORS_IN_WORDS.items():
            question = re.sub(words, sign, question, flags=re.IGNORECASE)
        found = calculations.OPEN_EXPRESSION.findall(question)
    return [calculations.as_argument(expression) for expression in found]


def query_of(question: str, answer: str) -> list[str]:
    """The names of the question, or its long words."""
    query = guess_query([message("user", question)])
    return [query] if query else []


def programs_for(question: str, answer: str) -> list[str]:
    """Programs that count letters, reverse a word, or compare two numbers of the question."""
    programs = []
    if found := COUNT.search(question):
        programs.append(f'"{found["word"].lower()}".count("{found["letter"].lower()}")')
    if found := LENGTH.search(question):
        programs.append(f'len("{found["word"]}")')
    found = REVERSE.search(question)
    if found and (found["backwards"] or found[0].lower().startswith("reverse")):
        programs.append(f'"{found["word"]}"[::-1]')
    if found := COMPARE.search(question):
        function = "min" if found["which"].lower() in ("smaller", "less", "smallest") else "max"
        programs.append(f"{function}({found['first']}, {found['second']})")
    return programs


RULES: Mapping[str, Rule] = {
    "calculator": calculations_in,
    "search": query_of,
    "python": programs_for,
}
