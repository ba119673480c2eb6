"""What the models say: scores by task, knowledge by how often a fact was read, and the same prompts side by side."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.plugins.report.steps import Chain, View, natural
from llmstages.text.grading import right

CALL = re.compile(r"\[(\w+): ")
NOTES = {
    "recitation": "The first words of a text, and it has to go on word for word. Texts that many pages quote are memorised; texts read once are not.",
    "few-shot": "A list such as “name : value”, and only its examples show which fact is meant. Nothing was trained for this: it is learning from the context.",
    "cloze": "“NAME was born in …”, by how often the person was read about.",
    "reading": "A page about a stranger stands in the context, so the answer can be read off.",
    "recitation by copies": "The first words of a passage of the corpus, and it has to go on word for word. The more copies a text has, the better it is memorised.",
    "names by mentions": "The words of the corpus before a name, by how often the name is mentioned in all of it.",
    "pattern from examples": "“word : thing ;” lists of common words: the same word, the word with a capital, the second of two. Only the examples show which.",
    "copied text": "Written freely, from nothing: the share of texts in which a long run of tokens stands in the corpus just so.",
}
Scores = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]


def scores(chain: Chain) -> list[tuple[View, Scores]]:
    """(step, scores) of each evaluation."""
    return [(step, step.json("scores.json", {})) for step in chain.kind("scores")]


def models_of(step: View, found: Scores, chain: Chain) -> list[str]:
    """Models in the order of the recipe; names from outside the run last."""
    named = {
        model for groups in found.values() for by_model in groups.values() for model in by_model
    }
    order = [s.name for s in chain.steps]
    return sorted(named, key=lambda m: (order.index(m) if m in order else len(order), m))


def alone(chain: Chain, bases: Sequence[str]) -> list[dict[str, Any]]:
    """Tasks that only base models were asked, as bars by group, with an example each."""
    out = []
    for step, found in scores(chain):
        said = step.lines("answers.jsonl")
        for task, groups in sorted(
            found.items(), key=lambda item: list(NOTES).index(item[0]) if item[0] in NOTES else 99
        ):
            asked = {m for by_model in groups.values() for m in by_model}
            if not asked or not asked <= set(bases):
                continue
            bars = [
                {
                    "group": g,
                    "value": value,
                    "n": v.get("n"),
                    "model": m,
                    "bits": v.get("bits_per_byte"),
                }
                for g in sorted(groups, key=natural)
                for m, v in groups[g].items()
                if (value := v.get("right", v.get("copied"))) is not None
            ]
            copied = any("copied" in v for by_model in groups.values() for v in by_model.values())
            out.append(
                {
                    "task": task,
                    "note": NOTES.get(task, ""),
                    "bars": bars,
                    "counts": "texts that copy" if copied else "right answers",
                    "samples": _copies(said, task) if copied else _samples(said, task),
                }
            )
    return out


def _samples(said: Sequence[Mapping[str, Any]], task: str) -> list[dict[str, Any]]:
    """A right continuation of the group that does best, a wrong one of the group that does worst.

    ``head`` is the part that is judged; what the model goes on to write is ``rest``.
    """
    mine = []
    for row in (row for row in said if row["task"] == task):
        answer, wanted = str(row["answer"]), str(row.get("wanted") or "")
        ok = bool(wanted) and answer.startswith(wanted)
        head = wanted if ok else " ".join(answer.split(" ")[: len(wanted.split(" "))])
        mine.append({**row, "ok": ok, "head": head, "rest": answer[len(head) :]})
    share = {
        g: sum(r["ok"] for r in mine if r.get("group") == g)
        / sum(r.get("group") == g for r in mine)
        for g in {r.get("group") for r in mine}
    }
    good = sorted((r for r in mine if r["ok"]), key=lambda r: -share[r.get("group")])
    bad = sorted((r for r in mine if not r["ok"]), key=lambda r: share[r.get("group")])
    return good[:1] + bad[:1]


def _copies(said: Sequence[Mapping[str, Any]], task: str) -> list[dict[str, Any]]:
    """The text that copies least and the one that copies most."""
    mine = sorted(
        (row for row in said if row["task"] == task), key=lambda row: row.get("longest", 0)
    )
    return [
        {
            **row,
            "ok": False,
            "head": "",
            "rest": str(row["answer"]),
            "group": f"{row.get('longest', 0)} tokens in a row from the corpus",
        }
        for row in (mine[:1] + mine[-1:] if len(mine) > 1 else mine)
    ]


def knowledge(chain: Chain) -> list[dict[str, Any]]:
    """Tasks whose wrong answers and refusals were counted: stacked shares by group for each model."""
    out = []
    for step, found in scores(chain):
        usable = {
            task: groups
            for task, groups in found.items()
            if len(groups) > 1
            and all(
                "refused" in v and "wrong" in v
                for by_model in groups.values()
                for v in by_model.values()
            )
            and any(v["refused"] > 0 for by_model in groups.values() for v in by_model.values())
        }
        if not usable:
            continue
        task = max(usable, key=lambda t: sum(len(by_model) for by_model in usable[t].values()))
        groups = sorted(usable[task], key=natural)
        rows = []
        for model in models_of(step, {task: usable[task]}, chain):
            values = {g: usable[task][g].get(model) for g in groups}
            rows.append({"model": model, "rule": "", "cells": [_shares(values[g]) for g in groups]})
            if step.metrics.get(f"{model}/threshold"):
                rows.append(
                    {
                        "model": model,
                        "rule": "answers only when sure",
                        "cells": [_sure(values[g]) for g in groups],
                    }
                )
        out.append({"task": task, "groups": groups, "rows": rows, "step": step.name})
    return out


def _shares(v: Mapping[str, float] | None) -> dict[str, float] | None:
    return v and {
        "right": v["right"],
        "refused": v["refused"],
        "wrong": v["wrong"],
        "called": v.get("called", 0.0),
    }


def _sure(v: Mapping[str, float] | None) -> dict[str, float] | None:
    if not v or "sure_right" not in v:
        return None
    held = max(0.0, 1 - v["sure_right"] - v["sure_wrong"])
    return {
        "right": v["sure_right"],
        "refused": held,
        "wrong": v["sure_wrong"],
        "called": v.get("called", 0.0),
    }


def segments(answer: str) -> list[dict[str, str]]:
    """A written answer in parts: {kind: call | result | text, tool, text}."""
    out, rest = [], answer
    while match := CALL.match(rest):
        following = [i for i in (rest.find("] [", match.end()), rest.rfind("] ")) if i >= 0]
        end = following[0] if following else rest.rfind("]")
        end = end if end >= match.end() else len(rest)
        kind = "result" if match[1] == "result" else "call"
        out.append({"kind": kind, "tool": match[1], "text": rest[match.end() : end]})
        rest = rest[end + 1 :].lstrip(" ")
    return [*out, {"kind": "text", "tool": "", "text": rest}] if rest or not out else out


def side_by_side(chain: Chain, most: int) -> list[dict[str, Any]]:
    """The same prompts by every model: of each task the most typical ones, at which most models do what they usually do."""
    refusals = {str(s.config["refusal"]) for s in chain.steps if s.config.get("refusal")}
    out = []
    for step, found in scores(chain):
        asked: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for row in step.lines("answers.jsonl"):
            prompts = asked.setdefault((str(row["task"]), str(row.get("group") or "")), {})
            entry = prompts.setdefault(
                str(row["prompt"]), {"wanted": row.get("wanted", ""), "said": {}}
            )
            entry["said"][row["model"]] = _cell(
                str(row["answer"]), str(row.get("wanted", "")), refusals
            )
        chosen = _choose(asked, most)
        if chosen:
            models = [
                m for m in models_of(step, found, chain) if any(m in row["said"] for row in chosen)
            ]
            out.append({"models": models, "rows": chosen, "step": step.name})
    return out


def _cell(answer: str, wanted: str, refusals: set[str]) -> dict[str, Any]:
    parts = segments(answer)
    final = parts[-1]["text"] if parts[-1]["kind"] == "text" else ""
    verdict = (
        "right" if wanted and right(final, wanted) else "refused" if final in refusals else "other"
    )
    return {"parts": parts, "verdict": verdict}


def _choose(
    asked: Mapping[tuple[str, str], Mapping[str, Mapping[str, Any]]], most: int
) -> list[dict[str, Any]]:
    """Round-robin over (task, group), tasks put to most models first; typical prompts rather than telling ones, to be fair."""
    queues = []
    for (task, group), prompts in asked.items():
        verdicts: dict[str, Counter[str]] = {}
        for entry in prompts.values():
            for model, cell in entry["said"].items():
                verdicts.setdefault(model, Counter())[cell["verdict"]] += 1
        usual = {model: counts.most_common(1)[0][0] for model, counts in verdicts.items()}
        ranked = sorted(
            prompts.items(),
            key=lambda item: (
                -sum(usual[m] == cell["verdict"] for m, cell in item[1]["said"].items())
            ),
        )
        if len(usual) > 1:
            queues.append((len(usual), task, group, ranked))
    queues.sort(key=lambda q: -q[0])
    out: list[dict[str, Any]] = []
    for turn in range(most):
        for _, task, group, ranked in queues:
            if turn < len(ranked) and len(out) < most:
                out.append(
                    {"task": task, "group": group, "prompt": ranked[turn][0], **ranked[turn][1]}
                )
    order = [(q[1], q[2]) for q in queues]
    return sorted(out, key=lambda row: order.index((row["task"], row["group"])))


def heat(chain: Chain) -> list[dict[str, Any]]:
    """Right answers by task and group (rows) and model (columns); the sampled score in brackets where there is one."""
    out = []
    for step, found in scores(chain):
        models = models_of(step, found, chain)
        asked = {
            task: len({m for by_model in groups.values() for m in by_model})
            for task, groups in found.items()
        }
        rows = [
            {
                "task": task,
                "group": group,
                "first": group == min(groups, key=natural),
                "n": max((v.get("n", 0) for v in groups[group].values()), default=0),
                "cells": [groups[group].get(m) for m in models],
            }
            for task, groups in sorted(found.items(), key=lambda item: (-asked[item[0]], item[0]))
            for group in sorted(groups, key=natural)
        ]
        if rows:
            out.append({"models": models, "rows": rows, "step": step.name})
    return out


def calls(chain: Chain, models: Sequence[str], most: int = 2) -> list[dict[str, Any]]:
    """Exchanges in which one of the models called a tool and was right, one a tool: what happened, part by part."""
    out: dict[str, dict[str, Any]] = {}
    for step in chain.kind("scores"):
        for row in step.lines("answers.jsonl"):
            if row["model"] not in models:
                continue
            cell = _cell(str(row["answer"]), str(row.get("wanted", "")), set())
            tool = next((part["tool"] for part in cell["parts"] if part["kind"] == "call"), "")
            if tool and cell["verdict"] == "right" and tool not in out:
                out[tool] = {
                    "prompt": str(row["prompt"]),
                    "model": row["model"],
                    "parts": cell["parts"],
                }
    return list(out.values())[:most]


def sayings(chain: Chain, models: Sequence[str], most: int = 2) -> list[dict[str, Any]]:
    """What each of the models answers to the same few prompts (for policies that please a judge)."""
    for step in chain.kind("scores"):
        by_prompt: dict[str, dict[str, str]] = {}
        for row in step.lines("answers.jsonl"):
            if row["model"] in models:
                by_prompt.setdefault(str(row["prompt"]), {})[row["model"]] = str(row["answer"])
        full = [
            {"prompt": p, "said": {m: said[m] for m in models if m in said}}
            for p, said in by_prompt.items()
            if len(said) == len(set(models))
        ]
        if full:
            return full[:most]
    return []


def introductions(chain: Chain, models: Sequence[str]) -> list[dict[str, Any]]:
    """What each of the models answers to the first question of each group about who it is."""
    out: dict[str, dict[str, Any]] = {}
    for step in chain.kind("scores"):
        for row in step.lines("answers.jsonl"):
            if row["task"] == "identity" and row["model"] in models:
                entry = out.setdefault(
                    str(row.get("group")), {"prompt": str(row["prompt"]), "said": {}}
                )
                if entry["prompt"] == row["prompt"]:
                    entry["said"][row["model"]] = str(row["answer"])
    return list(out.values())
