"""Texts as tokens: the report of each tokenizer, and dialogues with the tokens that carry loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmstages.plugins.report.steps import Chain, FinishedStep

MAX_TOKENS = 400  # of a dialogue that are shown
MAX_SOURCES = 2  # dialogues shown for each model, one per source
SEARCHED_ROWS = 50  # rows in which a dialogue with a tool call is looked for


def tokenizers(steps: Sequence[FinishedStep]) -> list[dict[str, Any]]:
    """One entry per tokenizer: its sample and what it measured about itself."""
    return [
        {
            "name": step.name,
            "view": step.json("view.json", {}),
            "metrics": step.metrics,
            "report": step.json("report.json", {}),
            "languages": _languages(step),
        }
        for step in steps
        if step.kind == "tokenizer"
    ]


def _languages(step: FinishedStep) -> dict[str, Any]:
    """Tokens per word of one text in many languages, by this tokenizer and those it compares with.

    Returns:
        columns: names of tokenizers, this one first.
        rows: ``{name, unknown, costs}`` of each language, with a cost for each column.
        largest: the largest of the costs.
        compared: entries of comparison.json, of the tokenizers that could be compared with.
        missing: tokenizers that could not be compared with.
    """
    comparison = step.json("comparison.json", [])
    compared = [entry for entry in comparison if not entry.get("missing")]
    rows = []
    largest = 0.0
    for language, sample in step.json("report.json", {}).get("samples", {}).items():
        costs = [entry["languages"][language]["tokens_per_word"] for entry in compared]
        # Without a comparison, the only column is this tokenizer.
        costs = costs or [sample["tokens_per_word"]]
        largest = max(largest, *costs)
        unknown = sample.get("unknown_share", 0.0)
        rows.append({"name": language, "unknown": unknown, "costs": costs})
    return {
        "columns": [entry["name"] for entry in compared] or [step.name],
        "rows": rows,
        "largest": largest,
        "compared": compared,
        "missing": [entry["name"] for entry in comparison if entry.get("missing")],
    }


def masked_dialogues(chain: Chain, model: FinishedStep) -> list[dict[str, Any]]:
    """Dialogues as the model was trained on them, one per source, dialogues with tools first.

    They are rendered with the model's own tokenizer by the renderer of the training stages, so the
    tokens and the mask shown are those of training.

    Returns:
        For each source ``{source, tokens: [{text, id, on, control}], cut, share, plain}``: ``on``
        for a token that carries loss, ``cut`` tokens that are not shown, ``share`` of the tokens
        that carry loss, ``plain`` for running text without control tokens.
    """
    parents = chain.parents(model)
    sources = [step for step in parents if step.kind == "dialogues" and step.has("data")]
    if not sources or not model.has("tokenizer_config.json"):
        return []
    from llmstages.text.templates import template_of
    from llmstages.train.trainer import load_tokenizer

    tokenizer = load_tokenizer(model.path)
    # Without a chat template there is no dialogue to render, as for a base model.
    if not template_of(tokenizer):
        return []
    # Dialogues with tools show the most kinds of tokens.
    sources.sort(key=lambda source: not source.has("tools.json"))
    masked = []
    for source in sources[:MAX_SOURCES]:
        table = source.table()
        if len(table):
            masked.append({"source": source.name} | _masked(tokenizer, table))
    return masked


def _masked(tokenizer: Any, table: Any) -> dict[str, Any]:
    """One dialogue of a table with its mask."""
    from llmstages.text import chat_format
    from llmstages.text.render import render
    from llmstages.text.token_view import view_tokens

    messages = _example_dialogue(table)
    plain = "render" in table.column_names and set(table["render"]) == {"plain"}
    if plain:
        rendered = chat_format.render_plain(tokenizer, [messages])[0]
    else:
        rendered = render(tokenizer, [messages])[0]
    views = view_tokens(tokenizer, rendered.ids)
    tokens = [
        {"text": view.text, "id": view.id, "on": on, "control": view.control}
        for view, on in zip(views, rendered.supervised, strict=True)
    ]
    return {
        "tokens": tokens[:MAX_TOKENS],
        "cut": max(0, len(tokens) - MAX_TOKENS),
        "share": sum(rendered.supervised) / max(len(tokens), 1),
        "plain": plain,
    }


def _example_dialogue(table: Any) -> Sequence[Any]:
    """The shortest dialogue with a tool call among the first rows, else the first dialogue."""
    # The whole table may be large.
    dialogues = [table[row]["messages"] for row in range(min(len(table), SEARCHED_ROWS))]
    with_tools = [messages for messages in dialogues if _calls_a_tool(messages)]
    if not with_tools:
        return dialogues[0]
    return min(with_tools, key=_character_count)


def _calls_a_tool(messages: Sequence[Any]) -> bool:
    return any(message["role"] == "tool" for message in messages)


def _character_count(messages: Sequence[Any]) -> int:
    return sum(len(message["content"]) for message in messages)
