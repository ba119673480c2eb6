"""tools.augment: useless calls go, useful ones stay, and every row that is left out is counted."""

from __future__ import annotations

import json

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.core.registry import fill_components
from llmstages.data import tables
from llmstages.plugins.tools import augment, selection, usefulness
from llmstages.plugins.tools.augment import Augment, AugmentConfig
from llmstages.plugins.tools.proposals import Candidate
from llmstages.text import generate
from llmstages.text.messages import message
from tests.tiny import perform, saved, saved_model

CALCULATOR = {"calculator": {"use": "calculator"}}
BOTH = {"search": {"use": "search"}, **CALCULATOR}
PAGES = [
    {"id": "1", "url": "u", "text": "Bo Li was born in Ra."},
    {"id": "2", "url": "u", "text": "The river Lo flows past Su."},
]


def chat(asked: str, said: str, **more) -> dict:
    turns = [message("user", asked), message("assistant", said)]
    return {"messages": turns, **more}


def make(tmp_path, rows, **config):
    """Run the stage; ``pages`` and ``model`` are inputs, the rest is its config."""
    inputs = {name: config.pop(name, None) for name in ("pages", "model")}
    tmp_path.mkdir(exist_ok=True)
    return perform(
        Augment,
        tmp_path / "tools",
        AugmentConfig(**{"tools": CALCULATOR, **config}),
        dialogues=(saved(tmp_path / "rows", "dialogues", rows),),
        **inputs,
    )


def turns_of(artifact):
    return [
        [(turn["role"], turn["tool"], turn["content"]) for turn in row["messages"]]
        for row in tables.load(artifact.path / "data")
    ]


def test_calls_that_agree_with_the_answer_become_rows_that_open_as_tools(tmp_path):
    rows = [
        chat("Where was Bo Li born?", "Bo Li was born in Ra.", task="facts"),
        chat("What is 347 * 86?", "347 * 86 = 29842"),
        chat("What is 2 + 2?", "It is five."),
        chat("Say hello.", "Hello!"),
    ]
    pages = saved(tmp_path / "pages", "corpus", PAGES)
    made, metrics = make(
        tmp_path, rows, tools=BOTH, keep="agreeing", pages=pages, no_call_share=0.5
    )
    searched, calculated, *without = turns_of(made)
    assert searched[1:3] == [
        ("assistant", "search", "Bo Li"),
        ("tool", "search", "Bo Li was born in Ra."),
    ]
    assert calculated[1:3] == [
        ("assistant", "calculator", "347 * 86"),
        ("tool", "calculator", "29842"),
    ]
    assert without == [
        [("user", "", "What is 2 + 2?"), ("assistant", "", "It is five.")],
        [("user", "", "Say hello."), ("assistant", "", "Hello!")],
    ]
    assert [row["tool"] for row in tables.load(made.path / "data")] == [
        "search",
        "calculator",
        "",
        "",
    ]
    assert metrics["calls"] == 2 and metrics["no_call"] == 2 and metrics["dropped"] == 0
    assert metrics["calls/search"] == metrics["calls/calculator"] == 1
    assert metrics["indexed_pages"] == 2 and metrics["forward_passes"] == 0
    opened = generate.open_tools(made.path)
    assert opened["search"]("Lo Su") == PAGES[1]["text"] and opened["calculator"]("1+1") == "2"


@pytest.fixture
def python_ends(monkeypatch):
    """The interpreters that the stage opens end with the test."""
    opened = []
    plain = generate.open_tools

    def recorded(folder):
        opened.append(plain(folder))
        return opened[-1]

    monkeypatch.setattr(generate, "open_tools", recorded)
    yield
    for tools in opened:
        tools["python"].interpreter.stop()


def test_one_artifact_may_have_all_tools(tmp_path, python_ends):
    pytest.importorskip("pydantic_monty")
    rows = [
        chat("How many r's are in strawberry?", "There are 3."),
        chat("What is 347 * 86?", "347 * 86 = 29842"),
        chat("Where was Bo Li born?", "Bo Li was born in Ra."),
    ]
    pages = saved(tmp_path / "pages", "corpus", PAGES)
    tools = {**BOTH, "python": {"use": "python"}}
    made, metrics = make(tmp_path, rows, tools=tools, keep="agreeing", pages=pages)
    calls = [turns[1][1:] for turns in turns_of(made)]
    assert calls == [
        ("python", '"strawberry".count("r")'),
        ("calculator", "347 * 86"),
        ("search", "Bo Li"),
    ]
    assert metrics["candidates"] > metrics["calls"] == 3


def test_a_stated_answer_must_stand_in_the_result(tmp_path):
    rows = [
        chat("What is 6 * 7?", "A lot: 42.", answer="42"),
        chat("What is 6 * 8?", "It is 48, or 49.", answer="49"),
    ]
    made, metrics = make(tmp_path, rows, keep="agreeing", no_call_share=0.0)
    assert metrics["calls"] == 1 and metrics["dropped"] == 1
    assert any(selection.DISAGREES in line for line in perform.said)


class PlantedLosses:
    """Instead of a model: a call of "37 * 43" helps by 1.5 nats, any other call hurts."""

    def __init__(self, *args):
        self.passes = 0

    def sequences(self, messages, candidate):
        helps = candidate.argument == "37 * 43"
        losses = {"no_call": 2.0, "no_result": 2.5, "result": 0.5 if helps else 2.2}
        return [([0, losses[variant]], 1) for variant in usefulness.VARIANTS]

    def losses(self, rows, advance):
        self.passes += len(rows)
        advance(len(rows))
        return [ids[first:] for ids, first in rows]

    def first_token(self, ids, answer, character):
        return 0


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setattr(usefulness, "Scorer", PlantedLosses)


def test_the_planted_useful_call_stays_and_the_useless_one_goes(tmp_path, planted):
    rows = [
        chat("What is 37 * 43?", "It is 1591."),
        chat("What is 2 + 2?", "It is 4."),
        chat("What is 1 / 0?", "Nobody knows."),
        chat("Say hello.", "Hello!"),
    ]
    model = saved_model(tmp_path / "model")
    made, metrics = make(tmp_path, rows, model=model, no_call_share=0.5)
    called, without = turns_of(made)
    assert ("assistant", "calculator", "37 * 43") in called and len(without) == 2
    expected = {
        "dialogues": 2,
        "calls": 1,
        "no_call": 1,
        "dropped": 2,
        "candidates": 3,
        "candidates/rules": 3,
        "scored": 2,
        "kept_share": 0.5,
        "forward_passes": 6,
        "loss_no_call": 2.0,
        "loss_no_result": 2.5,
        "loss_result": 1.35,
        "helpful/loss_no_call": 2.0,
        "helpful/loss_no_result": 2.5,
        "helpful/loss_result": 0.5,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    lines = [json.loads(line) for line in (made.path / "candidates.jsonl").open()]
    fates = [(line["argument"], line["kept"], line["reason"], line["gain"]) for line in lines]
    assert fates == [
        ("37 * 43", True, "", 1.5),
        ("2 + 2", False, selection.NO_GAIN, -0.2),
        ("1 / 0", False, selection.FAILED, None),
    ]
    assert lines[0]["losses"] == {"no_call": 2.0, "no_result": 2.5, "result": 0.5}
    said = "\n".join(perform.said)
    assert f"2 of 4 dialogues left out: {selection.BEYOND_SHARE}" in said
    assert f"1 of 3 calls not kept: {selection.NO_GAIN}" in said
    assert f"1 of 3 calls not kept: {selection.FAILED}" in said


@pytest.mark.parametrize("margin, calls", [(1.5, 1), (1.51, 0)])
def test_the_margin_is_reached_or_not(tmp_path, planted, margin, calls):
    rows = [chat("What is 37 * 43?", "It is 1591.")]
    model = saved_model(tmp_path / "model")
    _, metrics = make(tmp_path, rows, model=model, min_gain=margin, allow_empty=True)
    assert metrics["calls"] == calls


def test_nothing_kept_is_an_error_that_says_what_to_change(tmp_path, planted):
    rows = [chat("What is 2 + 2?", "It is 4.")]
    with pytest.raises(StageError, match="no call is kept.*min_gain.*allow_empty"):
        make(tmp_path, rows, model=saved_model(tmp_path / "model"))


def test_a_model_scores_and_proposes(tmp_path):
    rows = [chat("What is 37 * 43?", "It is 1591."), chat("Hello?", "Hello.")]
    made, metrics = make(
        tmp_path,
        rows,
        model=saved_model(tmp_path / "model"),
        proposals=["rules", "model"],
        samples=2,
        temperature=1.0,
        max_new_tokens=4,
        min_gain=-100.0,
        no_call_share=0.5,
    )
    # A random model proposes nothing that can be parsed: its four proposals are counted.
    assert metrics["proposals_failed"] == 4 and metrics["calls"] == metrics["no_call"] == 1
    assert metrics["forward_passes"] == 3 and metrics["loss_no_call"] > 1
    assert any("proposals of the model not used" in line for line in perform.said)


@pytest.mark.parametrize("share, number", [(0.0, 0), (0.2, 1), (0.5, 4), (0.6, 6), (0.9, 9)])
def test_the_share_of_rows_without_a_call(share, number):
    others = list(range(10, 19))
    drawn = selection.choose_without(others, 4, share, seed=1)
    assert len(drawn) == number and drawn == sorted(set(drawn)) and set(drawn) <= set(others)
    assert drawn == selection.choose_without(others, 4, share, seed=1)


def test_too_few_rows_without_a_call_are_reported(tmp_path):
    rows = [chat("What is 37 * 43?", "It is 1591."), chat("What is 37 * 44?", "It is 1628.")]
    _, metrics = make(tmp_path, rows, keep="agreeing", no_call_share=0.5)
    assert metrics["no_call"] == 0
    assert any("0 rows without a call, not the 2" in line for line in perform.said)


def test_the_best_call_of_a_dialogue_is_kept():
    def call(argument, result):
        losses = {"no_call": 3.0, "no_result": 3.0, "result": result}
        return Candidate(0, "calculator", argument, "rules", losses=losses)

    calls = [call("a", 2.0), call("b", 1.0), call("c", 1.5), call("d", 2.9)]
    selection.require_gain(calls, 0.5)
    assert selection.choose_best(calls) == {0: calls[1]}
    reasons = [one.reason for one in calls]
    assert reasons == [selection.NOT_BEST, "", selection.NOT_BEST, selection.NO_GAIN]


def test_rows_that_cannot_be_lessons_are_counted_and_calling_ones_stay(tmp_path):
    called = [
        message("user", "What is 6 * 7?"),
        message("assistant", "6 * 7", "calculator"),
        message("tool", "42", "calculator"),
        message("assistant", "It is 42."),
    ]
    no_answer = [message("user", "Hm?")]
    rows = [
        {"messages": called, "tool": "calculator", "split": "", "tools": ""},
        {**chat("What is 2 + 3?", "5"), "tool": "", "split": "test", "tools": ""},
        {"messages": no_answer, "tool": "", "split": "", "tools": ""},
        {**chat("What is 4 * 25?", "100"), "tool": "", "split": "", "tools": "[{}]"},
    ]
    made, metrics = make(tmp_path, rows, keep="agreeing")
    assert len(turns_of(made)[0]) == 4 and metrics["called_already"] == 1
    assert metrics["dialogues"] == 1 and metrics["dropped"] == 3
    said = "\n".join(perform.said)
    for reason in (selection.TEST_ROW, selection.NO_ANSWER, selection.OTHER_TOOLS):
        assert f"1 of 4 dialogues left out: {reason}" in said


def test_long_results_are_not_kept(tmp_path):
    rows = [chat("What is 12345 * 6789?", "It is 83810205.")]
    with pytest.raises(StageError, match="no call is kept"):
        make(tmp_path, rows, keep="agreeing", max_result=5)
    assert any(selection.LONG_RESULT in line for line in perform.said)


@pytest.mark.parametrize(
    "values, error",
    [
        ({"proposals": ["guess"]}, "proposals has guess"),
        ({"proposals": []}, "proposals has empty"),
        ({"samples": 3}, "would all be the same"),
        ({"keep": "all"}, "keep"),
        ({"no_call_share": 1.0}, "no_call_share"),
        ({"tools": {"search": {"use": "serach"}}}, "serach"),
        ({"tools": {"calculator": None}}, "tools is empty"),
    ],
)
def test_plan_refuses_what_means_nothing(values, error):
    with pytest.raises(StageError, match=error):
        config = build_config(AugmentConfig, fill_components(Augment, values, "tools"), "tools")
        Augment().validate(config, "tools")


def test_plan_refuses_a_tool_that_nobody_would_call(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def look_up(argument):\n    return argument\n")
    tools = {"mine": {"use": f"{file}:look_up"}}
    with pytest.raises(StageError, match="no rule proposes calls of the tool 'mine'"):
        Augment().validate(AugmentConfig(tools=tools), "tools")
    Augment().validate(AugmentConfig(tools=tools, proposals=["model"]), "tools")


def test_plan_counts_forward_passes_and_refuses_missing_inputs():
    from llmstages.cost.model import model_from_config

    sizes = {
        "model_type": "llama",
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    model = {"name": "model", "model": model_from_config(sizes)}
    known = {"dialogues": [{"examples": 100, "name": "d"}], "model": [model], "pages": []}
    config = AugmentConfig(tools=CALCULATOR)
    expected = Augment().estimate(config, known)
    assert expected["forward_passes"] == 100 + 2 * augment.RULE_CANDIDATES * 100
    assert "500 forward passes over 100 dialogues" in expected["generation"].because
    both = AugmentConfig(tools=CALCULATOR, proposals=["rules", "model"])
    assert Augment().estimate(both, known)["forward_passes"] == 700
    assert Augment().estimate(both, known)["generation"].prompts == 100
    with pytest.raises(StageError, match="needs a model"):
        Augment().estimate(config, {**known, "model": []})
    with pytest.raises(StageError, match="nothing to search in"):
        Augment().estimate(AugmentConfig(tools=BOTH), known)
    agreeing = AugmentConfig(tools=CALCULATOR, keep="agreeing")
    assert Augment().estimate(agreeing, {**known, "model": []}) == {}
