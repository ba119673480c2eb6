"""A run made by hand: artifacts as stages would write them, with hostile text wherever it fits."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from llmstages.core.config import build_config
from llmstages.core.stage import Artifact, Context
from llmstages.data import tables
from llmstages.plugins.report.html import HTML
from llmstages.text.messages import message

EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[31m\u202e"
    "</style></title>{{ 7*7 }}"
)
VOID = {"meta", "br", "img", "link", "input", "hr"}
FETCHING = {"src", "href", "srcset", "data", "xlink:href", "action"}


class Parsed(HTMLParser):
    """A page: its tags have to close in order; attributes that could fetch or run are collected."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            if key in FETCHING:
                self.links.append(value)
            if key.startswith("on"):
                self.handlers.append(key)
            if key == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        position = f"line {self.getpos()}"
        assert self.open, f"</{tag}> closes nothing, {position}"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>, {position}"
        self.open.pop()

    def handle_data(self, data):
        self.texts.append(data)


class Run:
    """Artifacts written one by one, and the report of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[Artifact] = []

    def step(
        self,
        name: str,
        kind: str,
        stage: str = "",
        inputs: dict[str, list[str]] | None = None,
        metrics: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        record: bool = True,
    ) -> Path:
        """The folder of a new artifact."""
        path = self.folder / name
        path.mkdir(parents=True)
        if record:
            values = {
                "step": name,
                "stage": stage or f"{name}.x",
                "kind": kind,
                "config": config or {"note": EVIL},
                "metrics": metrics or {},
                "inputs": inputs or {},
                "seconds": 1.5,
                "peak_mb": 100,
                "versions": {"torch": "2"},
                "argv": ["llmstages", "run", EVIL],
                "launch": {"backend": "ddp", "processes": 8},
                "files": {},
                "version": "1",
                "package": "llmstages 0",
                "fingerprint": "0123456789",
                "why": EVIL,
                "commit": None,
            }
            tables.write_json(path / "record.json", values)
        self.made.append(Artifact(name, kind, path, name))
        return path

    def report(self, out: Path, **config):
        """(text, parsed page, claims.json, metrics, printed lines) of a report in ``out``."""
        printed: list[str] = []
        out.mkdir()
        inputs = {"steps": tuple(self.made)}
        context = Context("report", out, out, inputs, say=printed.append)
        metrics = HTML().run(build_config(HTML.Config, config, "report"), context)
        text = (out / "index.html").read_text(encoding="utf-8")
        return text, Parsed(text), json.loads((out / "claims.json").read_text()), metrics, printed


def write_whole_run(folder: Path, tokenizer: Any) -> Run:
    """A run with every kind of artifact."""
    run = Run(folder)
    _write_data(run)
    _write_base_model(run)
    _write_fine_tuning(run, tokenizer)
    _write_reinforcement(run)
    _write_scores(run)
    return run


def _write_data(run: Run) -> None:
    run.step("pages", "documents", metrics={"pages": 10})
    corpus = run.step(
        "corpus",
        "corpus",
        inputs={"documents": ["pages"]},
        metrics={"read": 10, "kept": 7, "gold_recall": 1.0},
    )
    tables.save([{"id": "1", "url": "https://x.example", "text": EVIL}], corpus / "data")
    dropped = {
        "id": "2",
        "url": f"https://x.example/{EVIL}",
        "rule": EVIL,
        "value": EVIL,
        "limit": EVIL,
        "excerpt": EVIL,
    }
    tables.save([dropped], corpus / "dropped")
    funnel = [
        {"rule": EVIL, "kind": "judge", "seen": 10, "dropped": 3, "edited": 1},
        {"rule": "split.short", "kind": "split", "seen": 20, "dropped": 2, "edited": 0},
    ]
    tables.write_json(corpus / "funnel.json", funnel)
    gold = {
        EVIL: {"precision": None, "recall": 1.0, "n": 3},
        "overall": {"precision": 1.0, "recall": 0.5, "n": 3},
    }
    tables.write_json(corpus / "gold.json", gold)
    tokenizer = run.step(
        "tokenizer",
        "tokenizer",
        inputs={"corpus": ["corpus"]},
        metrics={"vocab_size": 320, "bytes_per_token": 2.5},
    )
    view = {"text": EVIL, "tokens": [{"id": 1, "text": EVIL, "bytes": "3c"}]}
    tables.write_json(tokenizer / "view.json", view)


def _write_base_model(run: Run) -> None:
    base = run.step(
        "base",
        "model",
        "pretrain.x",
        {"corpus": ["corpus"], "tokenizer": ["tokenizer"]},
        {"parameters": 1000, "unigram_loss": 5.0},
    )
    log = [{"step": i, "loss": 5.0 / i} for i in range(1, 9)]
    tables.write_lines(base / "log.jsonl", [*log, {"step": 8, "eval_loss": 1.0}])
    samples = [{"step": i, "prompt": EVIL, "text": f"grown to {i} {EVIL}"} for i in (4, 8)]
    tables.write_lines(base / "samples.jsonl", samples)
    derived = {"depth": 7, "hidden_size": 448, "set_explicitly": []}
    tables.write_json(base / "derived.json", derived)
    check = {
        "id": "evil",
        "title": EVIL,
        "value": 1.0,
        "limit": 2,
        "passed": False,
        "fix": EVIL,
        "allowed": True,
        "rows": [EVIL],
    }
    tables.write_json(base / "checks.json", [check])


def _write_fine_tuning(run: Run, tokenizer: Any) -> None:
    talks = run.step("talks", "dialogues")
    messages = [
        message("user", EVIL),
        message("assistant", "the cat", "search"),
        message("tool", EVIL, "search"),
        message("assistant", EVIL),
    ]
    tables.save([{"messages": messages}], talks / "data")
    tables.write_json(talks / "tools.json", {"search": {"use": "search"}})
    known = run.step(
        "known",
        "dialogues",
        "knowledge.probe",
        {"model": ["base"]},
        config={"refusal": "I do not know.", "known": 0.8},
    )
    question = {"question": EVIL, "answer": EVIL, "said": EVIL, "group": EVIL}
    tables.write_lines(known / "probe.jsonl", [question | {"share": s} for s in (0.0, 1.0)])
    helper = run.step("helper", "model", "sft.x", {"model": ["base"], "dialogues": ["talks"]})
    tokenizer.save_pretrained(helper)
    identity = run.step("identity", "dialogues", "knowledge.identity")
    tables.write_json(identity / "identity.json", {"name": EVIL, "maker": EVIL, "questions": []})
    named = run.step("named", "model", "sft.x", {"model": ["helper"], "dialogues": ["identity"]})
    log = [{"step": i, "loss": 5.0 / i} for i in range(1, 5)]
    tables.write_lines(named / "log.jsonl", log)


def _write_reinforcement(run: Run) -> None:
    run.step("ranked", "preferences")
    dpo = run.step("dpo", "model", "rl.x", {"policy": ["helper"], "preferences": ["ranked"]})
    log = [
        {"step": i, "loss": 1.0, "rewards/margins": 0.1 * i, "rewards/accuracies": 0.5}
        for i in range(1, 5)
    ]
    tables.write_lines(dpo / "log.jsonl", log)
    run.step("judge", "reward_model", "reward.x", {"model": ["helper"]}, {"accuracy": 0.9})
    rewards = {
        "proxy": {"use": "reward_model", "weight": 1.0},
        "gold": {"use": "g", "weight": 0.0},
    }
    policy = run.step(
        "policy",
        "model",
        "rl.x",
        {"policy": ["helper"], "reward": ["judge"]},
        config={"rewards": rewards},
    )
    log = [
        {
            "step": i,
            "loss": 0.0,
            "reward": i,
            "rewards/proxy/mean": i,
            "rewards/gold/mean": -i,
            "kl": 0.1,
            "entropy": 1.0,
            "completions/mean_length": 5,
            "completions/clipped_ratio": 0.5,
            "signals/repetition": 0.1 * i,
            "explained_variance": 0.2 * i,
        }
        for i in range(1, 5)
    ]
    tables.write_lines(policy / "log.jsonl", log)
    alarm = {"update": 3, "signal": "gap/gold", "begin": 1.0, "now": 0.0, "sentence": f"3: {EVIL}"}
    tables.write_lines(policy / "alarms.jsonl", [alarm])
    sampled = [
        {
            "update": i,
            "which": "best",
            "reward": 0.625,
            "prompt": EVIL,
            "answer": f"said {i} {EVIL}",
        }
        for i in range(11, 14)
    ]
    tables.write_lines(policy / "rollouts.jsonl", sampled)


def _write_scores(run: Run) -> None:
    step = run.step(
        "marks",
        "scores",
        "evaluate.x",
        {"models": ["base", "helper", "policy"]},
        {"facts/rare/helper/right": 0.5, "facts/rare/base/right": 0.25, "helper/threshold": 0.5},
    )
    models = ("base", "helper", "policy", EVIL)
    values = {
        "right": 0.5,
        "refused": 0.25,
        "wrong": 0.25,
        "n": 4,
        "sure_right": 0.25,
        "sure_wrong": 0.0,
        "sampled": 0.3,
    }
    by_model = dict.fromkeys(models, values)
    scores = {
        "facts": {"rare": by_model, EVIL: by_model},
        "few-shot": {
            "0 examples": {"base": {"right": 0.0, "n": 2, "bits_per_byte": 2.345}},
            "10 examples": {"base": {"right": 1.0}},
        },
        "copied text": {"written freely": {"base": {"copied": 0.5, "longest_mean": 7.0, "n": 2}}},
    }
    tables.write_json(step / "scores.json", scores)

    rows = []
    for group in ("rare", EVIL):
        for model in models:
            answer = f"[search: {EVIL}] [result: {EVIL}] the cat {EVIL}"
            rows.append(_answer("facts", group, model, EVIL, "cat", answer))
    for group in ("name", "maker"):
        for number in (1, 2):
            for model in ("helper", "named"):
                said = f"{model} says {EVIL}"
                rows.append(_answer("identity", group, model, f"Who? {number}", "Ada", said))
    for said in ("cat" + EVIL, EVIL):
        rows.append(_answer("few-shot", "0 examples", "base", EVIL, "cat", said))
    for length in (3, 41, 7):
        row = _answer("copied text", "written freely", "base", "", "", f"{length} {EVIL}")
        rows.append(row | {"longest": length})
    tables.write_lines(step / "answers.jsonl", rows)


def _answer(
    task: str, group: str, model: str, prompt: str, wanted: str, answer: str
) -> dict[str, Any]:
    return {
        "task": task,
        "group": group,
        "model": model,
        "prompt": prompt,
        "wanted": wanted,
        "answer": answer,
    }
