"""Texts as tokens: the sample of each tokenizer, and dialogues with the mask that says where the loss looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmstages.plugins.report.steps import Chain, View

LONGEST = 400  # tokens of a dialogue that are shown


def build(chain: Chain) -> list[dict[str, Any]]:
    """One entry a tokenizer: its sample, and what it measured of itself where it did."""
    return [
        {
            "name": step.name,
            "view": step.json("view.json", {}),
            "metrics": step.metrics,
            "config": step.config,
            "report": step.json("report.json", {}),
            "languages": _languages(step),
        }
        for step in chain.kind("tokenizer")
    ]


def _languages(step: View) -> dict[str, Any]:
    """One text in many languages: {columns, missing, rows: [{name, costs: tokens a word, most}]}, this tokenizer first."""
    others = step.json("comparison.json", [])
    made = [one for one in others if not one.get("missing")]
    samples = step.json("report.json", {}).get("samples", {})
    rows = [
        (
            name,
            [one["languages"][name]["tokens_per_word"] for one in made]
            or [cost["tokens_per_word"]],
            cost.get("unknown_share", 0.0),
        )
        for name, cost in samples.items()
    ]
    most = max((cost for _, costs, _ in rows for cost in costs), default=1.0)
    return {
        "columns": [one["name"] for one in made] or [step.name],
        "rows": [
            {"name": name, "unknown": unknown, "costs": [(c, c / most) for c in costs]}
            for name, costs, unknown in rows
        ],
        "missing": [one["name"] for one in others if one.get("missing")],
        "sizes": [
            (one["name"], one["documents"]["bytes_per_token"], one["vocab_size"]) for one in made
        ],
    }


def masked(chain: Chain, model: View, most: int = 2) -> list[dict[str, Any]]:
    """Dialogues as the model was trained on them, one a source: {source, tokens: [{text, id, on, control}], share}.

    Rendered with the model's own tokenizer by the renderer of training, so what is shown is what was trained on.
    """
    sources = [p for p in chain.parents(model) if p.kind == "dialogues" and p.has("data")]
    if not sources or not model.has("tokenizer_config.json"):
        return []
    from llmstages.text import chat_format
    from llmstages.text.render import render
    from llmstages.text.templates import template_of
    from llmstages.text.token_view import view_tokens
    from llmstages.train.trainer import load_tokenizer

    tokenizer = load_tokenizer(model.path)
    if not template_of(tokenizer):
        return []
    out = []
    for source in sorted(sources, key=lambda s: not s.has("tools.json"))[:most]:
        table = source.table()
        if not len(table):
            continue
        plain = "render" in table.column_names and set(table["render"]) == {"plain"}
        messages = _telling(table)
        rendered = (chat_format.render_plain if plain else render)(tokenizer, [messages])[0]
        tokens = [
            {"text": piece.text, "id": piece.id, "on": on, "control": piece.control}
            for piece, on in zip(
                view_tokens(tokenizer, rendered.ids), rendered.supervised, strict=True
            )
        ]
        share = sum(rendered.supervised) / max(len(tokens), 1)
        out.append(
            {
                "source": source.name,
                "tokens": tokens[:LONGEST],
                "cut": max(0, len(tokens) - LONGEST),
                "share": share,
                "plain": plain,
            }
        )
    return out


def _telling(table: Any) -> Sequence[Any]:
    """A dialogue that shows much: the first with a tool call of another tool than most, else the first one."""
    some = [table[i]["messages"] for i in range(min(len(table), 50))]
    called = [m for m in some if any(turn["role"] == "tool" for turn in m)]
    return min(called, key=lambda m: sum(len(t["content"]) for t in m)) if called else some[0]
