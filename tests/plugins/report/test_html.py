"""The page of a run made by hand: hostile text, missing parts, and no request to anywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.plugins.report import chapters, cleaning, outline, page, plots
from llmstages.text.render import render
from tests.plugins.report.handmade import EVIL, Run, write_whole_run

CLAIMS = {
    f"a {EVIL}": {
        "value": "marks:facts/rare/helper/right - marks:facts/rare/base/right",
        "target": ">= 0.2",
        "about": EVIL,
    },
    "missed": {"value": "marks:facts/rare/helper/right", "target": ">= 0.9", "about": "x"},
    "gone": {"value": "marks:nothing", "target": ">= 0.9", "about": "x"},
}
CHAPTERS = {
    "who": {
        "title": "Who it is",
        "steps": ["identity", "named"],
        "show": ["first_answers", "training"],
        "task": "identity",
    },
    "start": {"title": f"Start {EVIL}", "text": EVIL, "steps": ["base", "helper"]},
    "empty": {"title": "Nothing", "steps": ["not_in_the_run"]},
    "end": {"title": "The end", "show": ["scores"]},
}


@pytest.fixture(scope="module")
def tokenizer():
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build

    text = "the cat sat on the mat user assistant system tool"
    return build([text] * 20, BPEConfig(vocab_size=320))


@pytest.fixture
def run(tmp_path, tokenizer) -> Run:
    return write_whole_run(tmp_path / "run", tokenizer)


def sections_of(text: str) -> dict[str, str]:
    """Chapter id -> its HTML, in the order of the page."""
    pattern = r'<section class="chapter wrap" id="(\w+)"(.*?)</section>'
    return dict(re.findall(pattern, text, re.DOTALL))


def test_the_page_stands_alone_and_hostile_text_stays_text(run, tmp_path):
    text, page, *_ = run.report(
        tmp_path / "out",
        claims=CLAIMS,
        numbers={"n": {"value": "corpus:kept", "about": EVIL}},
        task_notes={"few-shot": EVIL},
        title=f"T {EVIL}",
    )
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not page.handlers
    within = [link for link in page.links if not link.startswith("http://127.0.0.1:8321/#/")]
    assert all(link.startswith("#") for link in within), within
    for link in within:
        assert link[1:] in page.ids, "every link leads somewhere on the page"
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert not re.search(r"url\(|@import|https?:", style)
    assert "default-src 'none'" in text
    assert 'name="viewport"' in text
    assert 'lang="en"' in text
    assert "{{ 7*7 }}" in page.text, "text is not a template"
    assert "\x1b" not in text, "control characters could disguise what follows"
    assert "\u202e" not in text
    assert len(text.encode()) < 3_000_000
    assert len(page.ids) == len(set(page.ids))


def test_claims_are_counted_kept_in_order_and_written(run, tmp_path):
    text, page, claims, metrics, printed = run.report(tmp_path / "out", claims=CLAIMS)
    assert [(c["value"], c["met"]) for c in claims] == [(0.25, True), (0.5, False), (None, False)]
    assert list(claims[0]) == [
        *("about", "certain", "chance", "interval", "met", "n", "name", "target", "value")
    ]
    assert metrics["met"] == 1
    assert metrics["claims"] == 3
    assert "1 of 3 claims met" in page.text
    assert len(printed) == 1
    assert "marks:nothing" in printed[0]
    missed = text.index("<caption>Missed</caption>")
    assert missed < text.index("All 3 claims"), "what was missed is seen first"


def test_everything_that_a_run_holds_is_shown(run, tmp_path):
    text, page, *_ = run.report(tmp_path / "out", claims=CLAIMS)
    words = " ".join(page.text.split())
    for part in (
        "Pages left after each rule",
        "carries loss",
        "proxy (paid for)",
        "gold (only watched)",
        "entropy and KL",
        "chosen over rejected",
        "0 of 1 checks passed",
        "says it does not know",
        "answers only when sure",
        "What was made from what",
        "Make it again",
        "Launched ddp, 8 processes",
        "10 examples",
        "grown to 4",
        "grown to 8",
        "texts that copy",
        "41 tokens in a row",
        "3 tokens in a row",
        "2.35 bits per byte",
        "7 depth, which sets the sizes",
        "448 width",
        "split into 20 paragraphs",
        "Alarm at 3: ",
        "what the critic foresees",
        "signs of a gamed reward",
        "11best0.62",
        "said 12",
        "said 13",
    ):
        assert part in words, part
    assert words.index("0 examples") < words.index("10 examples")
    assert 'class="tok on' in text
    assert 'class="tok off' in text


def test_without_chapters_kind_and_slot_decide_the_order(run, tmp_path):
    sections = sections_of(run.report(tmp_path / "out")[0])
    assert list(sections) == list(outline.GENERAL_CHAPTERS)
    for step, chapter in (
        ("base", "pretraining"),
        ("helper", "fine_tuning"),
        ("named", "fine_tuning"),
        ("judge", "reinforcement"),
        ("dpo", "reinforcement"),
        ("policy", "reinforcement"),
    ):
        assert f"<h3>{step} <small>" in sections[chapter], step


def test_a_recipe_tells_its_own_chapters(run, tmp_path):
    claims = {
        "of named": {"value": "marks:facts/rare/named/right", "target": ">= 0"},
        "of helper": {"value": "marks:facts/rare/helper/right", "target": ">= 0"},
        "placed": {"value": "marks:facts/rare/helper/right", "target": ">= 0", "chapter": "who"},
        "of nothing": {"value": "gone:away", "target": ">= 0"},
    }
    sections = sections_of(run.report(tmp_path / "out", chapters=CHAPTERS, claims=claims)[0])
    assert list(sections) == ["claims", "who", "start", "end"], "the empty chapter is left out"
    assert sections["who"].count("<figcaption>Who? 1") == 2, "one question of each group"
    assert "Who? 2" not in sections["who"]
    assert "helper says" in sections["who"], "the model before is asked too"
    assert "named says" in sections["who"]
    assert "<h3>named <small>" in sections["who"]
    assert "<h3>policy <small>" in sections["start"], "it joins the steps that it was made from"
    assert "<h3>of named</h3>" in sections["who"]
    assert "<h3>placed</h3>" in sections["who"]
    assert "<h3>of helper</h3>" in sections["start"]
    assert "<h3>of nothing</h3>" in sections["end"]


@pytest.mark.parametrize(
    ("chapters", "words"),
    [
        ({"a b": {"title": "x"}}, ["report.chapters.a b", "anchor"]),
        ({"claims": {"title": "x"}}, ["report.chapters.claims", "anchor"]),
        ({"a": {"text": "x"}}, ["report.chapters.a has no title"]),
        ({"a": {"title": "x", "stepz": []}}, ["'stepz'", "Did you mean 'steps'"]),
        ({"a": {"title": "x", "show": ["trainin"]}}, ["Did you mean 'training'"]),
        (
            {"a": {"title": "x", "steps": ["sft"]}, "b": {"title": "y", "steps": ["sft"]}},
            ["report.chapters.b.steps", "'sft' is also in the chapter 'a'"],
        ),
    ],
)
def test_mistakes_in_chapters_are_named_before_the_run(tmp_path, chapters, words):
    with pytest.raises(StageError) as error:
        Run(tmp_path).report(tmp_path / "out", chapters=chapters)
    for word in words:
        assert word in str(error.value)


def test_a_claim_names_a_chapter_that_exists(tmp_path):
    claims = {"x": {"value": "a:b", "target": ">= 0", "chapter": "star"}}
    with pytest.raises(StageError, match=r"report\.claims\.x\.chapter.*Did you mean 'start'"):
        Run(tmp_path).report(tmp_path / "out", chapters=CHAPTERS, claims=claims)


def test_every_section_has_a_name_and_a_template():
    assert set(chapters.SECTIONS) == set(outline.SECTION_NAMES)
    for name in outline.SECTION_NAMES:
        assert (page.TEMPLATES / f"{name}.html.j2").is_file(), name


def test_the_groups_are_shown_in_the_configured_order(run, tmp_path):
    group_order = ("written freely", "rare", "10 examples")
    page = run.report(tmp_path / "out", group_order=list(group_order))[1]
    scores = page.text[page.text.index("share of right answers") :]
    assert scores.index("10 examples") < scores.index("0 examples n=")


def test_parts_of_a_run_and_nothing_at_all(run, tmp_path):
    whole = run.made
    for index in range(len(whole)):
        run.made = whole[:index] + whole[index + 1 :]
        run.report(tmp_path / f"without{index}")
        run.report(tmp_path / f"chapters_without{index}", chapters=CHAPTERS)
    run.made = []
    assert "0 steps" in run.report(tmp_path / "nothing")[1].text


def test_artifacts_without_the_files_that_the_sections_read(tmp_path):
    run = Run(tmp_path / "run")
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
        run.step(kind, kind, record=kind != "model")
    run.report(tmp_path / "out")


def test_examples_and_prompts_can_be_left_out(run, tmp_path):
    words = run.report(tmp_path / "out", max_examples=0, max_prompts=0)[1].text
    assert "What was dropped" not in words
    assert "Typical prompts" not in words


def test_a_damaged_file_is_named(run, tmp_path):
    (run.folder / "corpus" / "funnel.json").write_text("{")
    with pytest.raises(StageError, match=r"funnel\.json.*llmstages redo corpus"):
        run.report(tmp_path / "out")


def test_the_mask_shown_is_the_mask_trained_on(run, tmp_path, tokenizer):
    text = run.report(tmp_path / "out")[0]
    messages = tables.load(Path(run.folder) / "talks" / "data")[0]["messages"]
    rendered = render(tokenizer, [messages])[0]
    shown = re.findall(r'class="tok (on|off)', text)
    assert shown
    assert [s == "on" for s in shown] == rendered.supervised[: len(shown)]


def test_a_sweep_counts_equal_values_once_and_leaves_out_what_has_no_limit(monkeypatch):
    drawn = []

    def lines(title, series, **options):
        drawn.append((title, series[0].points))

    monkeypatch.setattr(plots, "lines", lines)
    zeros = [0.0] * 87 + [float(i) for i in range(1, 15)]
    cleaning.sweep_charts(
        [
            {"filter": "a", "rule": "most", "least": None, "most": 3.0, "quantiles": zeros},
            {"filter": "b", "rule": "", "least": 2.0, "most": None, "quantiles": zeros},
            {"filter": "c", "rule": "count", "least": None, "most": None, "quantiles": zeros},
        ]
    )
    assert [title for title, _ in drawn] == ["a.most", "b"]
    assert drawn[0][1][:2] == [(0.0, 14), (1.0, 13)], "86 of 100 have 0, so allowing none drops 14"
    assert drawn[1][1][:2] == [(0.0, 0), (1.0, 87)]
