"""Calls that a model proposes for a question, after a few worked examples.

It is shown the question but not the answer: with the answer at hand, the best call would be one
that copies it. Its line must be ``TOOL: ARGUMENT`` or ``none``; whatever else it writes is counted
and not repaired. A model that calls tools in its own format may do that instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from llmstages.core.digest import sha256
from llmstages.plugins.tools.proposals import Candidate, used_by
from llmstages.text.messages import Message, message

NO_CALL = "none"
UNFINISHED = "the proposal did not end within max_new_tokens, or the question is too long"
MALFORMED = "the proposal is not one line TOOL: ARGUMENT"
UNKNOWN_TOOL = "the proposal names no tool of this run"
FAILURES = (UNFINISHED, MALFORMED, UNKNOWN_TOOL)


class Example(NamedTuple):
    """A question and the call that helps with it; tool "" where none does."""

    question: str
    tool: str
    argument: str


EXAMPLES = (
    Example("What is 48 * 27?", "calculator", "48 * 27"),
    Example("What color is the sky on a clear day?", "", ""),
    Example("Where was the chemist Ida Noddack born?", "search", "Ida Noddack born"),
    Example(
        "How often does the letter s occur in Mississippi?", "python", '"Mississippi".count("s")'
    ),
    Example("Say hello to my sister Ana.", "", ""),
    Example("A box holds 36 pens. How many pens are in 19 boxes?", "calculator", "36 * 19"),
    Example("Which river flows past the town of Melk?", "search", "river Melk"),
    Example("Spell the word harvest backwards.", "python", '"harvest"[::-1]'),
)


def request(
    question: str, specs: Mapping[str, Mapping[str, Any]], tools: Mapping[str, Any]
) -> list[Message]:
    """The dialogue that asks for a call: instruction and worked examples, then the question.

    Args:
        question: the user's.
        specs: name -> {"use": registered name}; examples of other tools are left out.
        tools: name -> tool, whose descriptions are shown.
    """
    names = {used_by(name, spec): name for name, spec in specs.items()}
    shown = [example for example in EXAMPLES if not example.tool or example.tool in names]
    turns = []
    for example in shown:
        call = f"{names[example.tool]}: {example.argument}" if example.tool else NO_CALL
        turns += [message("user", f"Question: {example.question}"), message("assistant", call)]
    turns.append(message("user", f"Question: {question}"))
    turns[0] = message("user", f"{_instruction(tools)}\n\n{turns[0]['content']}")
    return list(turns)


def _instruction(tools: Mapping[str, Any]) -> str:
    from llmstages.text.generate import tool_schema

    lines = []
    for name, tool in tools.items():
        function = tool_schema(name, tool)["function"]
        lines.append(f"{name}: {function.get('description', '')}")
    listed = "\n".join(lines)
    return (
        "For each question, write the one call of a tool that helps most to answer it, on one line "
        f"as TOOL: ARGUMENT, or {NO_CALL} if no tool is needed. Do not answer the question.\n"
        f"The tools:\n{listed}"
    )


def parse(text: str, tools: Mapping[str, Any]) -> tuple[str, str, str]:
    """(tool, argument, failure) of a proposal; all are "" where the model wants no call."""
    line = text.strip()
    if line.lower() == NO_CALL:
        return "", "", ""
    tool, colon, argument = line.partition(":")
    tool, argument = tool.strip(), argument.strip()
    if "\n" in line or not colon or not argument:
        return "", "", MALFORMED
    if tool not in tools:
        return "", "", UNKNOWN_TOOL
    return tool, argument, ""


class Proposer:
    """Asks a model for calls, in batches, each with a seed of its own.

    Attributes:
        counts: proposals that failed, by reason, and those that want no call (``none``).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        specs: Mapping[str, Mapping[str, Any]],
        tools: Mapping[str, Any],
        *,
        samples: int,
        seed: int,
        batch: int,
        temperature: float = 0.0,
        max_new_tokens: int = 64,
    ) -> None:
        """samples: proposals for each question; the rest is that of generate.generate()."""
        self.counts: Counter[str] = Counter()
        self._model = model
        self._tokenizer = tokenizer
        self._specs = specs
        self._tools = tools
        self._samples = samples
        self._seed = seed
        self._batch = batch
        self._temperature = temperature
        self._max_new_tokens = max_new_tokens

    def propose(
        self, questions: Mapping[int, str], advance: Callable[[float], None]
    ) -> list[Candidate]:
        """The calls proposed for questions; equal ones of one question once.

        Args:
            questions: number of a dialogue -> its question.
            advance: called with the number of proposals that are done.
        """
        numbers = [number for number in questions for _ in range(self._samples)]
        candidates: dict[tuple[int, str, str], Candidate] = {}
        for start in range(0, len(numbers), self._batch):
            part = numbers[start : start + self._batch]
            for number, reply in zip(part, self._ask(part, questions), strict=True):
                tool, argument = self._call_in(reply)
                if tool:
                    key = (number, tool, argument)
                    candidates.setdefault(key, Candidate(*key, "model"))
            advance(len(part))
        return list(candidates.values())

    def _ask(self, numbers: Sequence[int], questions: Mapping[int, str]) -> list[Any]:
        from transformers import set_seed

        from llmstages.text import generate

        digest = sha256(f"{self._seed} {numbers[0]} {questions[numbers[0]]}")
        set_seed(int(digest[:8], 16))
        return generate.reply(
            self._model,
            self._tokenizer,
            [request(questions[number], self._specs, self._tools) for number in numbers],
            max_calls=0,
            batch=self._batch,
            temperature=self._temperature,
            max_new_tokens=self._max_new_tokens,
        )

    def _call_in(self, reply: Any) -> tuple[str, str]:
        """(tool, argument) of a reply, "" where there is none; failures are counted."""
        if reply.calls:
            call = reply.calls[0]
            tool, argument = call["tool"], call["content"]
            failure = "" if tool in self._tools else UNKNOWN_TOOL
        elif reply.cut or not reply.ended:
            tool, argument, failure = "", "", UNFINISHED
        else:
            tool, argument, failure = parse(reply.text, self._tools)
        if failure:
            self.counts[failure] += 1
            return "", ""
        if not tool:
            self.counts[NO_CALL] += 1
        return tool, argument
