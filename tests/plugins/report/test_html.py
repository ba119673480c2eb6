"""The page on a hand-made run: every kind of artifact, hostile text in each, missing pieces, and no request to anywhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data import tables
from llmstages.plugins.report.html import HTML
from llmstages.text.messages import message
from llmstages.text.render import render

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[31m\u202e</style></title>{{ 7*7 }}"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Parsed(HTMLParser):
    """Tags must close in order; attributes that could fetch or run are collected."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.links, self.handlers, self.text, self.ids = (
            [],
            [],
            [],
            [],
            [],
            [],
        )
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "srcset", "data", "xlink:href", "action"):
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
        assert self.open and self.open[-1] == tag, (
            f"</{tag}> closes <{self.open[-1:]}>, line {self.getpos()}"
        )
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


class Run:
    """Artifacts written one by one, as stages would."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, []

    def step(
        self, name, kind, stage="", inputs=None, metrics=None, config=None, record=True
    ) -> Path:
        path = self.folder / name
        path.mkdir(parents=True)
        if record:
            tables.write_json(
                path / "record.json",
                {
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
                    "files": {},
                    "version": "1",
                    "package": "llmstages 0",
                    "fingerprint": "0123456789",
                    "why": EVIL,
                    "commit": None,
                },
            )
        self.made.append(Artifact(name, kind, path, name))
        return path

    def report(self, out: Path, **config):
        said = []
        out.mkdir()
        metrics = HTML().run(
            HTML.Config(**config),
            Context("report", out, out, {"steps": tuple(self.made)}, say=said.append),
        )
        text = (out / "index.html").read_text(encoding="utf-8")
        return text, Parsed(text), json.loads((out / "claims.json").read_text()), metrics, said


@pytest.fixture(scope="module")
def tokenizer():
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build

    return build(
        ["the cat sat on the mat user assistant system tool"] * 20, BPEConfig(vocab_size=320)
    )


@pytest.fixture
def run(tmp_path, tokenizer) -> Run:
    made = Run(tmp_path / "run")
    made.step("pages", "documents", metrics={"pages": 10})
    corpus = made.step(
        "corpus",
        "corpus",
        inputs={"documents": ["pages"]},
        metrics={"read": 10, "kept": 7, "gold_recall": 1.0},
    )
    tables.save([{"id": "1", "url": "https://x.example", "text": EVIL}], corpus / "data")
    tables.save(
        [
            {
                "id": "2",
                "url": f"https://x.example/{EVIL}",
                "rule": EVIL,
                "value": EVIL,
                "limit": EVIL,
                "excerpt": EVIL,
            }
        ],
        corpus / "dropped",
    )
    tables.write_json(
        corpus / "funnel.json",
        [
            {"rule": EVIL, "kind": "judge", "seen": 10, "dropped": 3, "edited": 1},
            {"rule": "split.short", "kind": "split", "seen": 20, "dropped": 2, "edited": 0},
        ],
    )
    tables.write_json(
        corpus / "gold.json",
        {
            EVIL: {"precision": None, "recall": 1.0, "n": 3},
            "overall": {"precision": 1.0, "recall": 0.5, "n": 3},
        },
    )
    tok = made.step(
        "tokenizer",
        "tokenizer",
        inputs={"corpus": ["corpus"]},
        metrics={"vocab_size": 320, "bytes_per_token": 2.5},
    )
    tables.write_json(
        tok / "view.json", {"text": EVIL, "tokens": [{"id": 1, "text": EVIL, "bytes": "3c"}]}
    )
    base = made.step(
        "base",
        "model",
        "pretrain.x",
        {"corpus": ["corpus"], "tokenizer": ["tokenizer"]},
        {"parameters": 1000, "unigram_loss": 5.0},
    )
    tables.write_lines(
        base / "log.jsonl",
        [{"step": i, "loss": 5.0 / i} for i in range(1, 9)] + [{"step": 8, "eval_loss": 1.0}],
    )
    tables.write_lines(
        base / "samples.jsonl",
        [{"step": i, "prompt": EVIL, "text": f"grown to {i} {EVIL}"} for i in (4, 8)],
    )
    tables.write_json(base / "derived.json", {"depth": 7, "hidden": 448, "set_explicitly": []})
    tables.write_json(
        base / "gates.json",
        [
            {
                "gate": EVIL,
                "value": 1.0,
                "limit": 2,
                "passed": False,
                "cure": EVIL,
                "allowed": True,
                "rows": [EVIL],
            }
        ],
    )
    talks = made.step("talks", "dialogues")
    tables.save(
        [
            {
                "messages": [
                    message("user", EVIL),
                    message("assistant", "the cat", "search"),
                    message("tool", EVIL, "search"),
                    message("assistant", EVIL),
                ]
            }
        ],
        talks / "data",
    )
    tables.write_json(talks / "tools.json", {"search": {"use": "search"}})
    known = made.step(
        "known",
        "dialogues",
        "knowledge.probe",
        {"model": ["base"]},
        config={"refusal": "I do not know.", "known": 0.8},
    )
    tables.write_lines(
        known / "probe.jsonl",
        [
            {"question": EVIL, "answer": EVIL, "said": EVIL, "share": s, "group": EVIL}
            for s in (0.0, 1.0)
        ],
    )
    sft = made.step("helper", "model", "sft.x", {"model": ["base"], "dialogues": ["talks"]})
    tokenizer.save_pretrained(sft)
    who = made.step("who", "dialogues", "knowledge.identity")
    tables.write_json(who / "identity.json", {"name": EVIL, "maker": EVIL, "questions": []})
    named = made.step("named", "model", "sft.x", {"model": ["helper"], "dialogues": ["who"]})
    tables.write_lines(named / "log.jsonl", [{"step": i, "loss": 5.0 / i} for i in range(1, 5)])
    made.step("ranked", "preferences")
    preferred = made.step(
        "preferred", "model", "rl.x", {"policy": ["helper"], "preferences": ["ranked"]}
    )
    tables.write_lines(
        preferred / "log.jsonl",
        [
            {"step": i, "loss": 1.0, "rewards/margins": 0.1 * i, "rewards/accuracies": 0.5}
            for i in range(1, 5)
        ],
    )
    made.step("judge", "reward_model", "reward.x", {"model": ["helper"]}, {"accuracy": 0.9})
    policy = made.step(
        "policy",
        "model",
        "rl.x",
        {"policy": ["helper"], "reward": ["judge"]},
        config={
            "rewards": {
                "proxy": {"use": "reward_model", "weight": 1.0},
                "gold": {"use": "g", "weight": 0.0},
            }
        },
    )
    tables.write_lines(
        policy / "log.jsonl",
        [
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
            }
            for i in range(1, 5)
        ],
    )
    scores = made.step(
        "marks",
        "scores",
        "evaluate.x",
        {"models": ["base", "helper", "policy"]},
        {"facts/rare/helper/right": 0.5, "facts/rare/base/right": 0.25, "helper/threshold": 0.5},
    )
    values = {
        "right": 0.5,
        "refused": 0.25,
        "wrong": 0.25,
        "n": 4,
        "sure_right": 0.25,
        "sure_wrong": 0.0,
        "sampled": 0.3,
    }
    tables.write_json(
        scores / "scores.json",
        {
            "facts": {
                g: {m: values for m in ("base", "helper", "policy", EVIL)} for g in ("rare", EVIL)
            },
            "few-shot": {
                "0 examples": {"base": {"right": 0.0, "n": 2, "bits_per_byte": 2.345}},
                "10 examples": {"base": {"right": 1.0}},
            },
            "copied text": {
                "written freely": {"base": {"copied": 0.5, "longest_mean": 7.0, "n": 2}}
            },
        },
    )
    tables.write_lines(
        scores / "answers.jsonl",
        [
            {
                "task": "facts",
                "group": g,
                "model": m,
                "prompt": EVIL,
                "wanted": "cat",
                "answer": f"[search: {EVIL}] [result: {EVIL}] the cat {EVIL}",
            }
            for g in ("rare", EVIL)
            for m in ("base", "helper", "policy", EVIL)
        ]
        + [
            {
                "task": "identity",
                "group": g,
                "model": m,
                "prompt": f"Who? {n}",
                "wanted": "Ada",
                "answer": f"{m} says {EVIL}",
            }
            for g in ("name", "maker")
            for n in (1, 2)
            for m in ("helper", "named")
        ]
        + [
            {
                "task": "few-shot",
                "group": "0 examples",
                "model": "base",
                "prompt": EVIL,
                "wanted": "cat",
                "answer": a,
            }
            for a in ("cat" + EVIL, EVIL)
        ]
        + [
            {
                "task": "copied text",
                "group": "written freely",
                "model": "base",
                "prompt": "",
                "wanted": "",
                "answer": f"{n} {EVIL}",
                "longest": n,
            }
            for n in (3, 41, 7)
        ],
    )
    return made


CLAIMS = {
    f"a {EVIL}": {
        "value": "marks:facts/rare/helper/right - marks:facts/rare/base/right",
        "target": ">= 0.2",
        "about": EVIL,
    },
    "missed": {"value": "marks:facts/rare/helper/right", "target": ">= 0.9", "about": "x"},
    "gone": {"value": "marks:nothing", "target": ">= 0.9", "about": "x"},
}


def test_the_page_stands_alone_and_hostile_text_stays_text(run, tmp_path):
    text, page, claims, metrics, said = run.report(
        tmp_path / "out",
        claims=CLAIMS,
        numbers={"n": {"value": "corpus:kept", "about": EVIL}},
        title=f"T {EVIL}",
    )
    assert "script" not in page.tags and "img" not in page.tags and not page.handlers
    assert all(link.startswith("#") for link in page.links), page.links
    assert all(link[1:] in page.ids for link in page.links), (
        "every link leads somewhere on the page"
    )
    assert not re.search(
        r"url\(|@import|https?:", re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    )
    assert "default-src 'none'" in text and 'name="viewport"' in text and 'lang="en"' in text
    assert "{{ 7*7 }}" in "".join(page.text), "text is no template"
    assert "\x1b" not in text and "\u202e" not in text, (
        "control characters could disguise what follows"
    )
    assert len(text.encode()) < 3_000_000 and len(page.ids) == len(set(page.ids))


def test_claims_are_counted_kept_in_order_and_written(run, tmp_path):
    text, page, claims, metrics, said = run.report(tmp_path / "out", claims=CLAIMS)
    assert [(c["value"], c["met"]) for c in claims] == [(0.25, True), (0.5, False), (None, False)]
    assert (
        list(claims[0]) == ["about", "met", "name", "target", "value"]
        and metrics["met"] == 1
        and metrics["claims"] == 3
    )
    assert (
        "1 of 3 claims met" in "".join(page.text) and len(said) == 1 and "marks:nothing" in said[0]
    )
    missed = text.index("<caption>Missed</caption>")
    assert missed < text.index("All 3 claims"), "what was missed is seen first"


def test_every_chapter_is_told(run, tmp_path):
    text, page, *_ = run.report(tmp_path / "out", claims=CLAIMS)
    words = " ".join("".join(page.text).split())
    for part in (
        "Pages left after each rule",
        "carries loss",
        "proxy (paid for)",
        "gold (only watched)",
        "entropy and KL",
        "0 of 1 gates passed",
        "What they say now",
        "says it does not know",
        "answers only when sure",
        "What was made from what",
        "Make it again",
        "10 examples",
        "grown to 4",
        "grown to 8",
        "texts that copy",
        "41 tokens in a row",
        "3 tokens in a row",
        "2.35 bits a byte",
        "7 depth, the dial",
        "split into 20 paragraphs",
    ):
        assert part in words, part
    assert [
        i
        for i in (
            "web",
            "tokens",
            "base",
            "tools",
            "knowledge",
            "identity",
            "judge",
            "compare",
            "making",
        )
        if i not in page.ids
    ] == []
    assert words.index("0 examples") < words.index("10 examples")
    assert 'class="tok on' in text and 'class="tok off' in text


def test_a_name_and_rankings_have_their_chapters(run, tmp_path):
    text = run.report(tmp_path / "out")[0]
    chapters = dict(
        re.findall(r'<section class="chapter wrap" id="(\w+)"(.*?)</section>', text, re.DOTALL)
    )
    assert (
        "<h3>named <small>" in chapters["identity"]
        and chapters["identity"].count("<figcaption>Who? 1") == 2
        and "Who? 2" not in chapters["identity"]
    )
    assert "helper says" in chapters["identity"] and "named says" in chapters["identity"]
    assert (
        "<h3>preferred <small>" in chapters["judge"] and "chosen over rejected" in chapters["judge"]
    )


def test_parts_of_a_run_and_nothing_at_all(run, tmp_path, tokenizer):
    whole = run.made
    for index in range(len(whole)):
        run.made = whole[:index] + whole[index + 1 :]
        run.report(tmp_path / f"without{index}")
    run.made = []
    assert "0 steps" in "".join(run.report(tmp_path / "nothing")[1].text)
    bare = Run(tmp_path / "bare")
    for kind in (
        "documents",
        "corpus",
        "tokenizer",
        "model",
        "reward_model",
        "dialogues",
        "preferences",
        "problems",
        "scores",
    ):
        bare.step(
            kind, kind, record=kind != "model"
        )  # folders without the files that the chapters read
    bare.report(tmp_path / "empty")


def test_a_damaged_file_is_named(run, tmp_path):
    (run.folder / "corpus" / "funnel.json").write_text("{")
    with pytest.raises(StageError, match=r"funnel\.json.*llmstages redo corpus"):
        run.report(tmp_path / "out")


def test_the_mask_shown_is_the_mask_trained_on(run, tmp_path, tokenizer):
    text = run.report(tmp_path / "out")[0]
    messages = tables.load(run.folder / "talks" / "data")[0]["messages"]
    rendered = render(tokenizer, [messages])[0]
    shown = re.findall(r'class="tok (on|off)', text)
    assert [s == "on" for s in shown] == rendered.supervised[: len(shown)] and shown


def test_a_sweep_counts_equal_values_once_and_leaves_out_what_has_no_limit(monkeypatch):
    from llmstages.plugins.report import plots, web

    drawn = []
    monkeypatch.setattr(
        plots, "lines", lambda title, series, **more: drawn.append((title, series[0].points))
    )
    zeros = [0.0] * 87 + [float(i) for i in range(1, 15)]
    web._sweep(
        [
            {"filter": "a", "rule": "most", "least": None, "most": 3.0, "quantiles": zeros},
            {"filter": "b", "rule": "", "least": 2.0, "most": None, "quantiles": zeros},
            {"filter": "c", "rule": "count", "least": None, "most": None, "quantiles": zeros},
        ]
    )
    assert [title for title, _ in drawn] == ["a.most", "b"]
    assert drawn[0][1][:2] == [(0.0, 14), (1.0, 13)], "86 of 100 have 0, so allowing none drops 14"
    assert drawn[1][1][:2] == [(0.0, 0), (1.0, 87)]
