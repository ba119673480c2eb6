"""tools.search_tokens: teach a model to call tools, with calls that really ran.

Rows name a tool and its argument (who made the dialogues knows them, or they are guessed: the capitalised words of a
question are its query). Each call is run on the real tool; its result is put into the dialogue and carries no loss, and
a row whose answer does not occur in the result (for a guessed
query: that shares no name or long word with it) is dropped and counted. The index is built from the pages given plus
the pages that rows bring along; the artifact carries it, for evaluation and chat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context, option
from llmstages.text.messages import message


@dataclass(frozen=True)
class SearchTokensConfig:
    tools: dict[str, Any] = option(
        help="the tools to teach: name -> tool and its settings", factory=dict
    )
    max_result: int = option(600, "rows whose result has more characters are dropped and counted")
    guess: bool = option(
        True,
        "guess the query of rows that name no tool from the capitalised words of their question",
    )


class SearchTokens:
    """Dialogues in which tools are called."""

    Config = SearchTokensConfig
    inputs: ClassVar[Mapping[str, str]] = {"dialogues": "dialogues*", "pages": "documents|corpus"}
    output: ClassVar[str] = "dialogues"
    version: ClassVar[str] = "1"
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {"tools": ("search", "calculator")}

    def run(self, config: SearchTokensConfig, ctx: Context) -> Mapping[str, float]:
        from llmstages.data import tables
        from llmstages.plugins.tools import index
        from llmstages.text import generate

        rows = [
            dict(row)
            for source in ctx.many("dialogues")
            for row in tables.load(source.path / "data")
        ]
        for row in rows:
            row["guessed"] = config.guess and not row.get("tool")
            if row["guessed"]:
                row["tool"], row["argument"] = "search", guess(row["messages"])
        own = [row["page"] for row in rows if row.get("page")]
        indexed = index.build(ctx.out / "index.sqlite", [*texts(ctx.one("pages")), *own])
        tables.write_json(ctx.out / "tools.json", config.tools)
        tools = generate.open_tools(ctx.out)
        kept, dropped = (
            [],
            {
                "no such tool": 0,
                "the result does not hold the answer": 0,
                "result too long": 0,
                "the result of a guessed query has no name or long word of the answer": 0,
            },
        )
        for row in rows:
            messages, why = augment(row, tools, config.max_result)
            if why:
                dropped[why] += 1
            else:
                kept.append(
                    {"messages": messages, "task": row.get("task", ""), "tool": row["tool"] or ""}
                )
        for why, count in dropped.items():
            if count:
                ctx.say(f"{ctx.step}: {count} of {len(rows)} dialogues dropped: {why}")
        tables.save(kept, ctx.out / "data", columns=("messages", "task", "tool"))
        return {"dialogues": len(kept), "dropped": sum(dropped.values()), "indexed_pages": indexed}


def texts(artifact: Artifact) -> list[str]:
    """Texts of documents or of a corpus."""
    from llmstages.data import tables

    table = tables.load(artifact.path / "data")
    return (
        list(table["text"])
        if "text" in table.column_names
        else [body.decode("utf-8", "replace") for body in table["body"]]
    )


def guess(messages: list[Mapping[str, Any]]) -> str:
    """The query of a question: its capitalised words after the first, or else its long words."""
    asked = next((str(m["content"]) for m in messages if m["role"] == "user"), "")
    words = re.findall(r"\w+", asked)
    return (
        " ".join([w for w in words[1:] if w[:1].isupper()] or [w for w in words if len(w) > 4][:6])
        or asked[:60]
    )


def keywords(text: str) -> set[str]:
    """Names and long words of a text, in lower case."""
    return {
        w.lower()
        for w in re.findall(r"\w+", text)
        if len(w) > 6 or (w[:1].isupper() and len(w) > 3)
    }


def augment(
    row: Mapping[str, Any], tools: Mapping[str, Any], max_result: int
) -> tuple[list[dict[str, Any]], str]:
    """The dialogue with call and result before its last answer, or the reason why not.

    Where the row states its answer value, the result must hold it, else the lesson would be to ignore results.
    """
    tool = tools.get(row.get("tool") or "")
    if tool is None:
        return [], "no such tool"
    if row.get("argument") is None:
        raise StageError(
            f"a dialogue names the tool {row['tool']!r} but has no column `argument` to call it with"
        )
    result = tool(row["argument"])
    if len(result) > max_result:
        return [], "result too long"
    if row.get("answer") and row["answer"] not in result:
        return [], "the result does not hold the answer"
    *before, last = row["messages"]
    if row.get("guessed") and not keywords(str(last["content"])) & keywords(result):
        return [], "the result of a guessed query has no name or long word of the answer"
    if last["role"] != "assistant":
        raise StageError("a dialogue for tools must end with the assistant's answer")
    return [
        *before,
        message("assistant", row["argument"], row["tool"]),
        message("tool", result, row["tool"]),
        last,
    ], ""
