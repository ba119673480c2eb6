"""Which dialogues become rows with a call, which become rows without one, and which are left out.

Every dialogue and every call that is left out has a reason; they are counted here.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmstages.core.stage import Context
from llmstages.plugins.tools import usefulness
from llmstages.plugins.tools.proposals import Candidate, last_question
from llmstages.plugins.tools.search_tokens import calls_for_last_answer
from llmstages.text.messages import Message, message

ERROR = "error: "  # how the result of a failed call begins

# Why a dialogue is left out
TEST_ROW = "of the split test"
NOT_CHAT = "running text, not a chat"
NO_ANSWER = "does not end with an answer to a question"
OTHER_TOOLS = "offers tools of its own and calls none"
BEYOND_SHARE = "no call helped, and there are enough rows without a call"

# Why a call is not kept
FAILED = "the tool gave an error"
LONG_RESULT = "the result is longer than max_result"
DISAGREES = "the result tells nothing that the answer says"
NO_GAIN = "it lowers the loss by less than min_gain"
NOT_BEST = "another call of the dialogue helps more"

SHOWN = 200  # characters of a text in candidates.jsonl
Row = Mapping[str, Any]


def load_rows(ctx: Context) -> list[dict[str, Any]]:
    """The rows of all dialogues that are wired."""
    from llmstages.data import tables

    rows = []
    for source in ctx.many("dialogues"):
        rows += [dict(row) for row in tables.load(source.path / "data")]
    return rows


def sort_rows(rows: Sequence[Row]) -> tuple[dict[int, Row], dict[int, Row], Counter[str]]:
    """(number -> row that may get a call, number -> row that calls already, reasons of the rest).

    A row that calls a tool for its last answer stays as it is.
    """
    usable: dict[int, Row] = {}
    calling: dict[int, Row] = {}
    reasons: Counter[str] = Counter()
    for number, row in enumerate(rows):
        reason = _unusable(row)
        if reason:
            reasons[reason] += 1
        elif calls_for_last_answer(row["messages"]):
            calling[number] = row
        elif row.get("tools"):
            reasons[OTHER_TOOLS] += 1
        else:
            usable[number] = row
    return usable, calling, reasons


def _unusable(row: Row) -> str:
    """Why a row can be no lesson in tools; "" if it can."""
    if row.get("split") == "test":
        return TEST_ROW
    if row.get("render") == "plain":
        return NOT_CHAT
    messages = row["messages"]
    ends_with_answer = bool(messages) and messages[-1]["role"] == "assistant"
    if not ends_with_answer or messages[-1]["tool"] or not last_question(messages):
        return NO_ANSWER
    return ""


def run_calls(
    candidates: Iterable[Candidate],
    rows: Mapping[int, Row],
    tools: Mapping[str, Any],
    max_result: int,
) -> None:
    """Run each call for real; give it its result, or the reason why it cannot be kept."""
    from llmstages.text.tool_runs import call_tool

    for candidate in candidates:
        before = rows[candidate.dialogue]["messages"][:-1]
        candidate.result = call_tool(tools, candidate.tool, candidate.argument, before)
        if candidate.result.startswith(ERROR):
            candidate.reason = FAILED
        elif len(candidate.result) > max_result:
            candidate.reason = LONG_RESULT


def require_agreement(candidates: Iterable[Candidate], rows: Mapping[int, Row]) -> None:
    """Drop the calls whose result tells nothing that the answer says and the question does not.

    Where the row states its answer value (column ``answer``), the result must hold it.
    """
    for candidate in candidates:
        row = rows[candidate.dialogue]
        if row.get("answer"):
            agrees = str(row["answer"]) in candidate.result
        else:
            agrees = told_in(row["messages"], candidate.result) is not None
        if not agrees:
            candidate.reason = DISAGREES


def told_in(messages: Sequence[Message], result: str) -> int | None:
    """Where the last answer first says what a result tells (usefulness.first_told)."""
    before = "\n".join(str(turn["content"]) for turn in messages[:-1])
    return usefulness.first_told(before, str(messages[-1]["content"]), result)


def require_gain(candidates: Iterable[Candidate], min_gain: float) -> None:
    """Drop the scored calls that lower the loss by less than ``min_gain`` nats per token."""
    for candidate in candidates:
        if candidate.losses and usefulness.gain(candidate.losses) < min_gain:
            candidate.reason = NO_GAIN


def choose_best(candidates: Iterable[Candidate]) -> dict[int, Candidate]:
    """The best call of each dialogue that has one; without losses, the first one proposed."""
    best: dict[int, Candidate] = {}
    for candidate in candidates:
        if candidate.reason:
            continue
        rival = best.get(candidate.dialogue)
        if rival is None or _gain(candidate) > _gain(rival):
            best[candidate.dialogue] = candidate
            candidate = rival
        if candidate is not None:
            candidate.reason = NOT_BEST
    return best


def _gain(candidate: Candidate) -> float:
    return usefulness.gain(candidate.losses) if candidate.losses else 0.0


def choose_without(numbers: Sequence[int], calls: int, share: float, seed: int) -> list[int]:
    """The dialogues that become rows without a call, drawn by the seed.

    Args:
        numbers: of the dialogues in which no call helped.
        calls: rows with a call.
        share: of rows without a call among all rows.
    """
    wanted = round(calls * share / (1 - share))
    if wanted >= len(numbers):
        return list(numbers)
    return sorted(random.Random(seed).sample(list(numbers), wanted))


def completed_row(row: Row, call: Candidate | None) -> dict[str, Any]:
    """The row of the artifact: the dialogue, with call and result before its last answer."""
    messages = list(row["messages"])
    tool = ""
    if calls_for_last_answer(messages):
        tool = str(row.get("tool") or "")
    if call is not None:
        tool = call.tool
        asked = message("assistant", call.argument, call.tool)
        told = message("tool", call.result, call.tool)
        messages[-1:] = [asked, told, messages[-1]]
    own = {name: row.get(name) or "" for name in ("task", "tools")}
    return {**own, "messages": messages, "tool": tool}


def shown_candidate(candidate: Candidate, row: Row) -> dict[str, Any]:
    """A line of candidates.jsonl: the call, its losses in nats per token, and its fate."""
    losses = {name: round(loss, 4) for name, loss in (candidate.losses or {}).items()}
    return {
        "dialogue": candidate.dialogue,
        "question": last_question(row["messages"])[:SHOWN],
        "answer": str(row["messages"][-1]["content"])[:SHOWN],
        "proposed_by": candidate.source,
        "tool": candidate.tool,
        "argument": candidate.argument,
        "result": candidate.result[:SHOWN],
        "losses": losses,
        "gain": round(_gain(candidate), 4) if losses else None,
        "kept": not candidate.reason,
        "reason": candidate.reason,
    }


def candidate_metrics(candidates: Sequence[Candidate]) -> dict[str, float]:
    """Numbers of candidates; of the scored ones the share that helps, and their mean losses.

    Keys that begin with ``helpful/`` are means over the calls that reach ``min_gain``.
    """
    scored = [candidate for candidate in candidates if candidate.losses]
    helpful = [candidate for candidate in scored if candidate.reason in ("", NOT_BEST)]
    metrics: dict[str, float] = {"candidates": len(candidates), "scored": len(scored)}
    for source in ("row", "rules", "model"):
        count = sum(candidate.source == source for candidate in candidates)
        if count:
            metrics[f"candidates/{source}"] = count
    kept = Counter(candidate.tool for candidate in candidates if not candidate.reason)
    metrics |= {f"calls/{tool}": count for tool, count in kept.items()}
    if scored:
        metrics["kept_share"] = len(helpful) / len(scored)
    for prefix, group in (("", scored), ("helpful/", helpful)):
        for variant in usefulness.VARIANTS if group else ():
            losses = [(candidate.losses or {})[variant] for candidate in group]
            metrics[f"{prefix}loss_{variant}"] = sum(losses) / len(losses)
    return metrics
