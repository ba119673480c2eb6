"""tools.calculations: calculator calls for worked answers, each run and each right.

The calculator annotations of GSM8K (Cobbe et al. 2021, section 4.3: ``<<48/2=24>>``) become calls
before the answer, and so do equations in plain text (``48 / 2 = 24``). A problem without a worked
answer gives the expression in its question, where its value is the answer. The real calculator
works out every expression; an equation whose result it does not confirm is left out and counted, as
in Toolformer (Schick et al. 2023, section 2), which keeps only calls that help.

Problems of the role ``test`` are never used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.text.messages import message

CALCULATOR = "calculator"
NO_CALCULATION = "no calculation in the worked answer or the question"
NOT_CONFIRMED = "the calculator does not confirm any of its calculations"
TOO_MANY = "more calls than max_calls"
NUMBER = r"\d[\d,]*\.?\d*|\.\d+"
# Two or more numbers with operators between them, with or without parentheses.
EXPRESSION = rf"[(\-\s]*(?:{NUMBER})[)\s]*(?:[-+*/x\u00d7\u00f7][(\-\s]*(?:{NUMBER})[)\s]*)+"
ANNOTATION = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
EQUATION = re.compile(rf"({EXPRESSION})=\s*\$?\s*(-?(?:{NUMBER}))")
OPEN_EXPRESSION = re.compile(EXPRESSION)
SIGNS = str.maketrans({"x": "*", "\u00d7": "*", "\u00f7": "/", ",": ""})


@dataclass(frozen=True)
class CalculationsConfig:
    max_calls: int = option(
        8, "problems with more calculations in their answer are dropped and counted", ge=1
    )
    limit: int = option(0, "dialogues at most; 0 = all", ge=0)
    allow_empty: bool = option(
        False, "go on without a dialogue where no problem has a calculation, instead of failing"
    )


class Calculations:
    """Dialogues in which the calculator is called for each step of a worked answer."""

    Config = CalculationsConfig
    inputs: ClassVar[Mapping[str, str]] = {"problems": "problems"}
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "1"

    def run(self, config: CalculationsConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables
        from llmstages.text import generate

        tables.write_json(ctx.out / "tools.json", {CALCULATOR: {"use": CALCULATOR}})
        calculate = generate.open_tools(ctx.out)[CALCULATOR]
        table = tables.load(ctx.one("problems").path / "data")
        problems = [dict(row) for row in table if row.get("role") != "test"]
        kept: list[dict[str, Any]] = []
        counts: Counter[str] = Counter()
        for problem in problems:
            calls, refused = confirmed_calls(problem, calculate)
            counts["equations_left_out"] += refused
            reason = _reason(calls, refused, config.max_calls)
            if reason:
                counts[reason] += 1
                continue
            kept.append(dialogue(problem, calls))
        for reason in (NO_CALCULATION, NOT_CONFIRMED, TOO_MANY):
            if counts[reason]:
                ctx.say(f"{ctx.step}: {counts[reason]} of {len(problems)} problems: {reason}")
        dropped = len(problems) - len(kept)
        if config.limit and len(kept) > config.limit:
            ctx.say(f"{ctx.step}: {len(kept) - config.limit} dialogues beyond limit={config.limit}")
            kept = kept[: config.limit]
        _require_some(kept, config, ctx)
        tables.save(kept, ctx.out / "data", columns=("messages", "task", "tool"))
        return {
            "dialogues": len(kept),
            "calls": sum(len(row["messages"]) // 2 - 1 for row in kept),
            "dropped": dropped,
            "equations_left_out": counts["equations_left_out"],
        }


def _reason(calls: Sequence[tuple[str, str]], refused: int, max_calls: int) -> str:
    """Why a problem gives no dialogue, or ""."""
    if not calls:
        return NOT_CONFIRMED if refused else NO_CALCULATION
    return TOO_MANY if len(calls) > max_calls else ""


def _require_some(kept: Sequence[Any], config: CalculationsConfig, ctx: Context) -> None:
    """Refuse, or report, that there is no dialogue at all."""
    if kept:
        return
    source = ctx.one("problems").name
    if not config.allow_empty:
        raise StageError(
            f"{ctx.step}: no problem of {source} has a calculation that the calculator confirms, "
            f"so nothing would be taught. Leave the step out, or set {ctx.step}.allow_empty=true"
        )
    ctx.say(f"{ctx.step}: no problem of {source} has a calculation, so no calls are taught")


def equations(problem: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The (expression, result) pairs of a problem, in the order of its worked answer.

    Without a worked answer: the expression in the question, with the answer as its result.
    """
    solution = str(problem.get("solution") or "")
    annotations = ANNOTATION.findall(solution)
    if annotations:
        yield from annotations
        return
    if solution:
        yield from EQUATION.findall(solution)
        return
    question = str(problem["prompt"][-1]["content"])
    for expression in OPEN_EXPRESSION.findall(question):
        yield expression, str(problem["answer"])


def confirmed_calls(
    problem: Mapping[str, Any], calculate: Callable[[str], str]
) -> tuple[list[tuple[str, str]], int]:
    """((expression, result) of each equation that is right, number of those that are not).

    Args:
        problem: a row of a problems artifact.
        calculate: the tool.
    """
    calls = []
    refused = 0
    for expression, stated in equations(problem):
        argument = as_argument(expression)
        result = calculate(argument)
        if same_number(result, stated.translate(SIGNS)):
            calls.append((argument, result))
        else:
            refused += 1
    return calls, refused


def as_argument(expression: str) -> str:
    """An expression as the calculator reads it: its signs and digits, no groups of digits."""
    return re.sub(r"\s+", " ", expression.translate(SIGNS)).strip()


def same_number(result: str, stated: str) -> bool:
    """Whether a result of the calculator is the stated number, to the digits that are stated."""
    digits = stated.strip().lstrip("$").strip()
    try:
        value, wanted = float(result), float(digits)
    except ValueError:
        return False
    decimals = len(digits.partition(".")[2])
    return abs(value - wanted) <= 0.5 * 10**-decimals if decimals else value == wanted


def dialogue(problem: Mapping[str, Any], calls: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The question, each call with its result, and the worked answer without annotations."""
    messages: list[Mapping[str, Any]] = list(problem["prompt"])
    for expression, result in calls:
        messages.append(message("assistant", expression, CALCULATOR))
        messages.append(message("tool", result, CALCULATOR))
    worked = ANNOTATION.sub("", str(problem.get("solution") or "")).strip()
    final = f"The answer is {problem['answer']}."
    messages.append(message("assistant", f"{worked}\n{final}" if worked else final))
    return {"messages": messages, "task": problem.get("task") or "", "tool": CALCULATOR}
