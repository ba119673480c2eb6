"""tools.search_tokens: teach a model to call tools, with calls that really ran.

A row names a tool and its argument, or they are guessed: the capitalized words of the question that
is answered are its query. A row that calls a tool for its last answer stays as it is, and so does
one that names no tool where none is guessed. Each call is run on the real tool, and several calls
of a row (column ``calls``) after each other. Its result is put into the dialogue and carries no
loss. A row whose answer does not occur in the result is dropped and counted (for a guessed query:
whose result shares no name or long word with the answer). The index holds the given pages and those
that rows bring along (``page``; ``pages`` as JSON), in passages. The artifact carries it, for
evaluation and chat. Its column ``sources`` (JSON) says where the results of a row come from: id,
start, source, url and title of each passage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.data.passages import Page
from llmstages.plugins.tools import index
from llmstages.plugins.tools.indexes import words
from llmstages.plugins.tools.pages import pages_of
from llmstages.text.messages import Message, message
from llmstages.text.tool_runs import call_tool

NO_TOOL = "no such tool"
NO_ANSWER = "the result does not hold the answer"
TOO_LONG = "result too long"
NO_OVERLAP = "the result of a guessed query has no name or long word of the answer"
QUERY_WORDS = 6  # of a question without names
QUERY_CHARACTERS = 60  # of a question without long words
COLUMNS = ("messages", "task", "tool", "tools", "sources")
INDEX = "index"  # the member of ``indexes``
SHARED_CHARACTERS = 3  # in a row, that count as a word in scripts without blanks


@dataclass(frozen=True)
class SearchTokensConfig:
    tools: dict[str, Any] = option(
        help="the tools to teach: name -> tool and its settings", factory=dict
    )
    max_result: int = option(
        600, "rows whose result has more characters are dropped and counted", ge=1
    )
    guess: bool = option(
        True,
        "guess the query of rows that name no tool from the capitalized words of their question; "
        "otherwise they stay without a call",
    )
    indexes: dict[str, Any] = option(
        help="the index of the pages, named `index`: a component and its settings",
        factory=lambda: {INDEX: dict(index.DEFAULT)},
    )
    passage_characters: int = option(
        index.CHARACTERS, "longest passage of a page that is found as a whole, in characters", ge=50
    )
    passage_overlap: int = option(
        0, "characters that a passage repeats of the one before it, at most; whole sentences", ge=0
    )

    def __post_init__(self) -> None:
        if set(self.indexes) != {INDEX}:
            raise ValueError(
                f"indexes needs one member, {INDEX}; it has {', '.join(self.indexes) or 'none'}. "
                f"Choose with STEP.indexes.{INDEX}=tantivy"
            )
        if self.passage_overlap >= self.passage_characters:
            raise ValueError(
                f"passage_overlap={self.passage_overlap} must be less than "
                f"passage_characters={self.passage_characters}"
            )


class SearchTokens:
    """Dialogues in which tools are called."""

    Config = SearchTokensConfig
    inputs: ClassVar[Mapping[str, str]] = {"dialogues": "dialogues*", "pages": "documents|corpus"}
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "4"
    components: ClassVar[Mapping[str, Any]] = {
        "tools": ("search", "calculator"),
        "indexes": {INDEX: "fts5"},
    }

    def run(self, config: SearchTokensConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables
        from llmstages.text import generate

        rows = load_rows(ctx, config.guess)
        counts = build_index(config, ctx, rows)
        tables.write_json(ctx.out / "tools.json", config.tools)
        tools = generate.open_tools(ctx.out)
        kept = []
        dropped: dict[str, int] = dict.fromkeys((NO_TOOL, NO_ANSWER, TOO_LONG, NO_OVERLAP), 0)
        calling = 0
        without_tool = 0
        for row in rows:
            own = {name: row.get(name) or "" for name in ("task", "tool", "tools")}
            calls_itself = calls_for_last_answer(row["messages"])
            if calls_itself or not (row.get("tool") or row.get("calls")):
                calling += calls_itself
                without_tool += not calls_itself
                sources = row.get("sources") or "[]"
                kept.append({**own, "sources": sources, "messages": row["messages"]})
                continue
            messages, sources, reason = augment(row, tools, config.max_result)
            if reason:
                dropped[reason] += 1
                continue
            written = json.dumps(sources, ensure_ascii=False, default=str)
            kept.append({**own, "sources": written, "messages": messages})
        if calling:
            ctx.say(f"{ctx.step}: {calling} of {len(rows)} dialogues call a tool already: kept")
        if without_tool:
            ctx.say(
                f"{ctx.step}: {without_tool} of {len(rows)} dialogues name no tool: kept without "
                "a call"
            )
        for reason, count in dropped.items():
            if count:
                ctx.say(f"{ctx.step}: {count} of {len(rows)} dialogues dropped: {reason}")
        tables.save(kept, ctx.out / "data", columns=COLUMNS)
        return {
            "dialogues": len(kept),
            "dropped": sum(dropped.values()),
            "indexed_pages": counts["pages"],
            "passages": counts["passages"],
        }


def build_index(
    config: SearchTokensConfig, ctx: Context, rows: Sequence[Mapping[str, Any]]
) -> Mapping[str, int]:
    """Index the pages and those that rows bring along; returns the counts of ``index.build``."""

    def pages() -> Iterator[Page]:
        yield from pages_of(ctx.one("pages"))
        for row in rows:
            own = [row.get("page"), *json.loads(row.get("pages") or "[]")]
            yield from (Page(text) for text in own if text)

    counts = index.build(
        ctx.out / index.FOLDER,
        pages(),
        config.indexes[INDEX],
        config.passage_characters,
        config.passage_overlap,
    )
    for name, why in (("repeated", "equal to one before"), ("empty", "without text")):
        if counts[name]:
            ctx.say(f"{ctx.step}: {counts[name]} pages {why} are not indexed")
    return counts


def load_rows(ctx: Context, guess: bool) -> list[dict[str, Any]]:
    """The dialogues, each with ``tool``, ``argument`` and whether they were ``guessed``."""
    from llmstages.data import tables

    rows = []
    for source in ctx.many("dialogues"):
        rows += [dict(row) for row in tables.load(source.path / "data")]
    for row in rows:
        calls_itself = calls_for_last_answer(row["messages"])
        names_tool = row.get("tool") or row.get("calls")
        row["guessed"] = guess and not names_tool and not calls_itself
        if row["guessed"]:
            row["tool"], row["argument"] = "search", guess_query(row["messages"])
    return rows


def calls_for_last_answer(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a tool is called after the last question."""
    for turn in reversed(messages):
        if turn["role"] == "user":
            return False
        if turn["role"] == "assistant" and turn["tool"]:
            return True
    return False


def guess_query(messages: list[Mapping[str, Any]]) -> str:
    """The query of the last question: its capitalized words after the first, or its long words."""
    questions = [str(turn["content"]) for turn in messages if turn["role"] == "user"]
    question = questions[-1] if questions else ""
    words = re.findall(r"\w+", question)
    names = [word for word in words[1:] if word[:1].isupper()]
    if names:
        return " ".join(names)
    long_words = [word for word in words if len(word) > 4]
    return " ".join(long_words[:QUERY_WORDS]) or question[:QUERY_CHARACTERS]


def keywords(text: str) -> set[str]:
    """Names and long words of a text, in lower case; of scripts without blanks, their parts."""
    found: set[str] = set()
    for term in words.terms(text):
        if words.UNSPACED_CHARACTER.match(term):
            last = max(1, len(term) - SHARED_CHARACTERS + 1)
            found.update(term[start : start + SHARED_CHARACTERS] for start in range(last))
        elif len(term) > 6 or (term[:1].isupper() and len(term) > 3):
            found.add(term.lower())
    return found


def augment(
    row: Mapping[str, Any], tools: Mapping[str, Any], max_result: int
) -> tuple[list[Message], list[Any], str]:
    """(the dialogue with calls and results before its last answer, their sources, "").

    Where it is dropped, the last is the reason why, and the others are empty. Where the row states
    its answer value, the result must hold it: otherwise the lesson would be to ignore results.
    """
    *turns, last = row["messages"]
    sources: list[Any] = []
    found: set[str] = set()
    for call in calls_of(row):
        if call["tool"] not in tools:
            return [], [], NO_TOOL
        result = call_tool(tools, call["tool"], call["argument"], turns)
        if len(result) > max_result:
            return [], [], TOO_LONG
        if call["answer"] and call["answer"] not in result:
            return [], [], NO_ANSWER
        turns.append(message("assistant", call["argument"], call["tool"]))
        turns.append(message("tool", result, call["tool"]))
        sources += getattr(tools[call["tool"]], "sources", [])
        found |= keywords(result)
    if row.get("guessed") and not keywords(str(last["content"])) & found:
        return [], [], NO_OVERLAP
    if last["role"] != "assistant":
        raise StageError("a dialogue for tools must end with the assistant's answer")
    return [*turns, last], sources, ""


def calls_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The calls of a row, in order: tool, argument, and what the result must hold ("": anything).

    They are in the column ``calls`` as JSON; one call may be in ``tool``, ``argument``, ``answer``.
    """
    if row.get("calls"):
        calls = json.loads(row["calls"])
    else:
        calls = [{name: row.get(name) for name in ("tool", "argument", "answer")}]
    for call in calls:
        if call["tool"] and call["argument"] is None:
            raise StageError(
                f"a dialogue names the tool {call['tool']!r} but has no column `argument` for the "
                "call"
            )
    return [{**call, "answer": call.get("answer") or ""} for call in calls]
