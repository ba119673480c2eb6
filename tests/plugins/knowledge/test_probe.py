"""Probing: a repeated right answer is known, the rest is refused, test questions are never used."""

from __future__ import annotations

import json

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.plugins.knowledge.probe import Probe, ProbeConfig
from llmstages.plugins.tools.search_tokens import SearchTokens, SearchTokensConfig
from llmstages.text import generate
from llmstages.text.messages import message
from tests.tiny import perform, saved, saved_model


def question(text, answer, role="probe"):
    return {
        "prompt": [message("user", text)],
        "answer": answer,
        "task": "probe",
        "group": "all",
        "role": role,
    }


def test_known_answers_and_refusals(tmp_path, monkeypatch):
    asked = []

    def oracle(model, tokenizer, prompts, *_, **__):
        asked.extend(p[0]["content"] for p in prompts)
        return [
            generate.Reply(
                [
                    message(
                        "assistant", "It is Ra." if "known" in p[0]["content"] else f"It is {i}."
                    )
                ],
                True,
            )
            for i, p in enumerate(prompts)
        ]

    monkeypatch.setattr(generate, "reply", oracle)
    rows = [
        question("known a?", "Ra"),
        question("known b?", "Ra"),
        question("strange?", "Su"),
        question("odd?", "Du"),
        question("secret?", "Ra", "test"),
    ]
    made, metrics = perform(
        Probe,
        tmp_path / "knowledge",
        ProbeConfig(num_generations=3, ratio=0.5),
        model=saved_model(tmp_path / "model"),
        questions=saved(tmp_path / "questions", "problems", rows),
    )
    said = {
        r["messages"][0]["content"]: r["messages"][-1]["content"]
        for r in tables.load(made.path / "data")
    }
    assert said["known a?"] == said["known b?"] == "It is Ra." and "secret?" not in asked
    assert (
        sum(ProbeConfig.refusal == text for text in said.values()) == 1 and metrics["unknown"] == 2
    )
    assert "refusals left out" in perform.said[-1]


class Knower:
    """Knows some facts for sure, some half of the time, and guesses at the others."""

    def __init__(self):
        self.times = {}

    def __call__(self, model, tokenizer, prompts, *_, **__):
        return [generate.Reply([message("assistant", self.say(p[0]["content"]))]) for p in prompts]

    def say(self, question):
        time = self.times[question] = self.times.get(question, -1) + 1
        if "known" in question:
            return "It is Ra." if time % 2 else "Ra"
        if "half" in question:
            return "Ra" if time % 2 else f"Guess{time}"
        return f"Guess{time}"


KNOWN, HALF, UNKNOWN = "known {}?", "half {}?", "strange {}?"


def probe(tmp_path, monkeypatch, *, number=6, extra=(), **options):
    monkeypatch.setattr(generate, "reply", Knower())
    rows = []
    for group, form in (("often", KNOWN), ("sometimes", HALF), ("never", UNKNOWN)):
        rows += [question(form.format(place), "Ra") | {"group": group} for place in range(number)]
    made, metrics = perform(
        Probe,
        tmp_path / "knowledge",
        ProbeConfig(**({"num_generations": 4, "ratio": 99.0} | options)),
        model=saved_model(tmp_path / "model", hidden=16),
        questions=saved(tmp_path / "questions", "problems", [*rows, *extra]),
    )
    return made, metrics


def test_everything_is_kept_and_agreement_is_measured_without_the_right_answer(
    tmp_path, monkeypatch
):
    made, metrics = probe(tmp_path, monkeypatch, known_groups=["often"])
    rows = {row["question"]: row for row in tables.read_lines(made.path / "probe.jsonl")}
    known, half, strange = rows["known 0?"], rows["half 0?"], rows["strange 0?"]
    assert known["answers"] == ["Ra", "It is Ra.", "Ra", "It is Ra."]
    assert (known["agreement"], known["share"], known["fate"]) == (1.0, 1.0, "known")
    assert half["verdicts"] == [False, True, False, True]
    assert (half["agreement"], half["commonest"], half["fate"]) == (0.5, "Ra", "between")
    assert (strange["agreement"], strange["share"], strange["fate"]) == (0.25, 0.0, "unknown")
    calibration = json.loads((made.path / "calibration.json").read_text())
    assert [(b["agreement"], b["right"], b["n"]) for b in calibration["bins"]] == [
        (0.25, 0.0, 6),
        (0.5, 1.0, 6),
        (1.0, 1.0, 6),
    ]
    assert metrics["calibration_error"] == pytest.approx((0.25 + 0.5 + 0) / 3)
    assert metrics["agreement_auc"] == 1.0 and metrics["group_auc"] == 1.0
    assert metrics["share_right"] == pytest.approx(0.5)


def test_refusals_have_several_wordings_and_those_nobody_counts_are_named(tmp_path, monkeypatch):
    made, _ = probe(tmp_path, monkeypatch, refusals=["I don't know that.", "Keine Ahnung."])
    said = [row["messages"][-1]["content"] for row in tables.load(made.path / "data")]
    for wording in (ProbeConfig.refusal, "I don't know that.", "Keine Ahnung."):
        assert said.count(wording) == 2
    assert sum("Keine Ahnung" in line for line in perform.said) == 1
    assert len(said) == 12


@pytest.mark.parametrize(
    ("teach", "known", "unknown"),
    [(["answer"], 6, 0), (["refuse"], 0, 6), (["search"], 0, 6), (["search", "answer"], 6, 6)],
)
def test_what_is_taught_is_chosen(tmp_path, monkeypatch, teach, known, unknown):
    made, _ = probe(tmp_path, monkeypatch, teach=teach)
    rows = list(tables.load(made.path / "data"))
    assert sum(row["known"] for row in rows) == known
    assert sum(not row["known"] for row in rows) == unknown


def test_rows_of_search_are_taken_by_search_tokens(tmp_path, monkeypatch):
    page = "Far away lies Quux, whose capital is Ra."
    fact = question("strange capital of Quux?", "Ra") | {"passage": page, "meta": "{}"}
    named = question("strange thing?", "Ra") | {"passage": page, "meta": '{"name": "Quux"}'}
    made, metrics = probe(tmp_path, monkeypatch, number=0, teach=["search"], extra=[fact, named])
    assert metrics["searches"] == 2 and metrics["refusals"] == 0
    # Words of half the pages weigh nothing in an index, so there are more pages than these two.
    others = [{"id": str(n), "text": f"Page {n} tells nothing of it."} for n in range(8)]
    lookups, counts = perform(
        SearchTokens,
        tmp_path / "tools",
        SearchTokensConfig(tools={"search": {"use": "search"}}, guess=False),
        dialogues=[made],
        pages=saved(tmp_path / "pages", "corpus", others),
    )
    assert counts["dialogues"] == 2
    queries = set()
    for row in tables.load(lookups.path / "data"):
        _, call, result, answer = row["messages"]
        assert (call["tool"], result["content"], answer["content"]) == ("search", page, "Ra")
        queries.add(call["content"])
    assert queries == {"strange capital of Quux?", "Quux"}


def test_where_knowledge_begins_is_found_on_the_threshold_questions(tmp_path, monkeypatch):
    extra = [
        question(form.format(place), "Ra", "threshold")
        for form in ("known t{}?", "half t{}?")
        for place in range(3)
    ]
    # After four answers, the fifth of a half-known fact is a guess.
    made, metrics = probe(tmp_path / "1", monkeypatch, known=0.5, sure=0.9, extra=extra)
    assert metrics["known_from"] == 1.0 and metrics["known"] == 6
    _, plain = probe(tmp_path / "2", monkeypatch, known=0.5, extra=extra)
    assert plain["known"] == 12 and "known_from" not in plain
    kept = tables.read_lines(made.path / "threshold.jsonl")
    assert {len(row["answers"]) for row in kept} == {5} and len(kept) == 6
    asked = {row["question"] for row in tables.read_lines(made.path / "probe.jsonl")}
    assert not asked & {row["question"] for row in kept}
    with pytest.raises(StageError, match="needs questions of the role threshold"):
        probe(tmp_path / "3", monkeypatch, sure=0.9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"teach": ["guess"]}, "teach takes refuse, search, answer"),
        ({"teach": []}, "teach takes"),
        ({"teach": ["refuse", "search"]}, "two things about one question"),
        ({"known": 0.2, "unknown": 0.2}, "unknown must be below known"),
    ],
)
def test_options_that_mean_nothing_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ProbeConfig(**values)


def test_nothing_to_ask_is_said(tmp_path):
    with pytest.raises(StageError, match="no questions"):
        perform(
            Probe,
            tmp_path / "knowledge",
            ProbeConfig(),
            model=saved_model(tmp_path / "model"),
            questions=saved(tmp_path / "questions", "problems", [question("a?", "b", "test")]),
        )
