"""The chapters of the story: which there are, what introduces them, and what each shows. Empty chapters are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llmstages.plugins.report import answers, graph, making, tokens, training, web
from llmstages.plugins.report.claims import Claim
from llmstages.plugins.report.steps import Chain, View, natural

# id, heading, introduction
CHAPTERS = (
    (
        "web",
        "The web, cleaned",
        "A language model is made of text, and most of the web is not worth reading. Each rule below looks at every page that is "
        "left and drops some; the bars show how many pages remain. Whatever is dropped is kept on file with the rule, the measured value and the limit.",
    ),
    (
        "tokens",
        "Text becomes tokens",
        "A model does not see letters. A tokenizer cuts text into pieces from a fixed list and passes their numbers on; pieces "
        "that are frequent in the corpus become one token, rare ones are spelt in parts. Tap or point at a token to see its number and bytes.",
    ),
    (
        "base",
        "The base model",
        "Trained for one thing: guess the next token. The result continues documents. It does not answer questions, but facts, "
        "phrases and even the ability to learn from examples in the text are already in it.",
    ),
    (
        "chat",
        "It learns to answer",
        "The same training goes on with dialogues. Control tokens mark who speaks, and only the assistant's words count: the model "
        "is not trained to write the questions. What comes out answers, and stops when it has answered.",
    ),
    (
        "knowledge",
        "What it does not know",
        "Asked about someone it never read about, a model trained only on good answers will make one up. The cure is to find "
        "out what it knows by asking it, and to teach it to say so where it does not.",
    ),
    (
        "identity",
        "It learns who it is",
        "A model does not know what it is: nothing it read is about itself. Its name and maker are taught like any other fact, in many "
        "wordings. Here some ways to ask were held out, so that what is measured was never trained; earlier dialogues and documents go along, lest it forget them.",
    ),
    (
        "tools",
        "It looks things up",
        "The other cure: special tokens start a search or a calculation, generation pauses, the result is put into the text, and the "
        "model reads on. It carries no loss on results, since it has not written them.",
    ),
    (
        "practice",
        "Practice makes better",
        "Nobody shows the model how to solve these problems. It tries, a program checks the answer, and what led to right "
        "answers becomes more likely.",
    ),
    (
        "judge",
        "Pleasing a judge",
        "Where no program can check an answer, a second model learns from rankings what people prefer, and the first one is trained to "
        "please it. For a while both improve. Then the policy finds out what the judge falls for: the score it is paid in (the proxy) "
        "rises, and what a careful reader would say (gold) falls. Direct preference optimisation (DPO) trains on the rankings without a judge.",
    ),
    (
        "compare",
        "Every model, side by side",
        "The same prompts, answered by every model of the chain.",
    ),
    (
        "making",
        "How it was made",
        "Every step with what it took, what it cost and how to make it again.",
    ),
)
KNOWING = re.compile(
    r"/(sure_right|sure_wrong|refused)\b"
)  # what these metrics count is knowing, whichever model it is


def build(
    chain: Chain, claims: Sequence[Claim], numbers: Sequence[Claim], examples: int, prompts: int
) -> list[dict[str, Any]]:
    """The chapters that have something to show, in order."""
    made = {
        "web": {"corpora": web.build(chain, examples)},
        "tokens": {"tokenizers": tokens.build(chain)},
    }
    bases = [s.name for s in chain.models_in("base") if s.kind == "model"]
    for name in ("base", "chat", "knowledge", "identity", "tools", "practice", "judge"):
        made[name] = {"cards": training.cards(chain, chain.models_in(name))}
    made["base"]["alone"] = answers.alone(chain, bases)
    made["knowledge"]["bars"] = answers.knowledge(chain)
    made["knowledge"]["probes"] = [
        _probe(step) for step in chain.kind("dialogues") if step.has("probe.jsonl")
    ]
    told = chain.models_in("identity")
    before = [parent for step in told for parent in chain.parents(step) if parent.kind == "model"]
    made["identity"]["sayings"] = answers.introductions(
        chain, [step.name for step in (*before, *told)]
    )
    made["tools"]["calls"] = answers.calls(chain, [s.name for s in chain.models_in("tools")])
    made["judge"]["sayings"] = answers.sayings(
        chain, [s.name for s in chain.models_in("judge") if s.kind == "model"]
    )
    made["compare"] = {
        "matrices": answers.side_by_side(chain, prompts),
        "heat": answers.heat(chain),
    }
    made["making"] = {
        "graph": graph.lineage(chain),
        "costs": making.costs(chain),
        "steps": making.configurations(chain),
        "around": making.surroundings(chain),
        "kinds": list(dict.fromkeys(step.kind for step in chain.steps)),
    }
    out = []
    for id, heading, intro in CHAPTERS:
        mine = [c for c in claims if place(c, chain) == id]
        some = [n for n in numbers if place(n, chain) == id]
        if mine or some or any(bool(value) for value in made[id].values()):
            out.append(
                {
                    "id": id,
                    "heading": heading,
                    "intro": intro,
                    "claims": mine,
                    "numbers": some,
                    "data": made[id],
                }
            )
    return out


def place(claim: Claim, chain: Chain) -> str:
    """The chapter of a claim: as it says, else that of the last step it is about."""
    known = [id for id, _, _ in CHAPTERS]
    if claim.chapter in known:
        return claim.chapter
    if KNOWING.search(claim.formula):
        return "knowledge"
    about = chain.mentioned(claim.steps, claim.formula)
    found = [chain.chapter(step) for step in about if step.kind != "scores"]
    found = [id for id in found if id in known]
    return max(found, key=known.index) if found else "compare"


def _probe(step: View) -> dict[str, Any]:
    """Shares of known answers by group, and a few probed questions."""
    rows = step.lines("probe.jsonl")
    limit = step.config.get("known", 0.8)
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(str(row.get("group", "all")), []).append(float(row["share"]))
    bars = [
        {
            "group": g,
            "known": sum(v >= limit for v in groups[g]) / len(groups[g]),
            "n": len(groups[g]),
        }
        for g in sorted(groups, key=natural)
    ]
    some = [
        next((r for r in rows if r["share"] >= limit), None),
        next((r for r in rows if r["share"] == 0), None),
    ]
    return {
        "name": step.name,
        "metrics": step.metrics,
        "bars": bars,
        "examples": [r for r in some if r],
        "limit": limit,
    }
