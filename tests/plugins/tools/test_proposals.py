"""Proposals: what rules find, and what a model's line must look like."""

from __future__ import annotations

import pytest

from llmstages.plugins.tools import model_proposals, proposals
from llmstages.plugins.tools.calculator import Calculator, CalculatorConfig
from llmstages.text.generate import Reply
from llmstages.text.messages import message

CALCULATOR = Calculator(CalculatorConfig())
TOOLS = {"calculator": CALCULATOR, "find": object()}


@pytest.mark.parametrize(
    "question, answer, expected",
    [
        ("What is 347 * 86?", "It is 29842.", ["347 * 86"]),
        ("What is 347 times 86?", "29842", ["347 * 86"]),
        ("What is 1,200 plus 35 minus 4?", "1231", ["1200 + 35 - 4"]),
        ("How many clips?", "48 / 2 = 24 and 48 + 24 = 72.", ["48 / 2", "48 + 24"]),
        ("How many clips?", "<<48/2=24>>24", ["48/2"]),
        ("Who was Bo Li?", "A baker.", []),
        ("Overtime is bad?", "It is.", []),
    ],
)
def test_calculations(question, answer, expected):
    assert proposals.calculations_in(question, answer) == expected


@pytest.mark.parametrize(
    "question, result",
    [
        ("How many r's are in strawberry?", "3"),
        ("How many times does the letter s occur in the word Mississippi?", "4"),
        ('How often is the letter "e" used in "Celebrate"?', "3"),
        ("How many letters are in the word elephant?", "8"),
        ("Reverse the word harvest.", "tsevrah"),
        ("Spell harvest backwards.", "tsevrah"),
        ("Which is larger, 9.11 or 9.9?", "9.9"),
        ("Which number is smaller: -3 or 2?", "-3"),
        ("Spell the word harvest.", None),
        ("How many people live in Ra?", None),
        ("Write a letter to Ana.", None),
    ],
)
def test_programs_run_and_are_right(question, result):
    programs = proposals.programs_for(question, "")
    if result is None:
        assert not programs
        return
    (program,) = programs
    assert str(eval(program)) == result


def test_a_tool_may_bring_its_own_rule_and_a_row_its_own_call():
    class Weather:
        def propose(self, question, answer):
            return ["Ra", "Ra"] if "weather" in question else []

    tools = {"sky": Weather(), "calculator": CALCULATOR}
    rules = proposals.rules_of({"sky": {"use": "mine"}, "calculator": {"use": "calculator"}}, tools)
    turns = [message("user", "The weather for 2 + 2?"), message("assistant", "Fine.")]
    row = {"messages": turns, "tool": "calculator", "argument": "1 + 1"}
    found = [
        (one.tool, one.argument, one.source) for one in proposals.by_rules(7, row, rules, tools)
    ]
    assert found == [
        ("calculator", "1 + 1", "row"),
        ("sky", "Ra", "rules"),
        ("calculator", "2 + 2", "rules"),
    ]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("calculator: 48 * 27", ("calculator", "48 * 27", "")),
        (" find : a: b \n", ("find", "a: b", "")),
        ("none", ("", "", "")),
        ("None", ("", "", "")),
        ("48 * 27", ("", "", model_proposals.MALFORMED)),
        ("calculator:", ("", "", model_proposals.MALFORMED)),
        ("calculator: 1+1\nfind: x", ("", "", model_proposals.MALFORMED)),
        ("Calculator: 1+1", ("", "", model_proposals.UNKNOWN_TOOL)),
        ("I would use calculator: 1+1", ("", "", model_proposals.UNKNOWN_TOOL)),
    ],
)
def test_a_proposal_is_parsed_strictly(text, expected):
    assert model_proposals.parse(text, TOOLS) == expected


def test_the_request_shows_examples_of_the_tools_at_hand_and_never_the_answer():
    specs = {"calculator": {"use": "calculator"}, "find": {"use": "search"}}
    turns = model_proposals.request("How far is Ra?", specs, TOOLS)
    said = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    assert "calculator: 48 * 27" in said and "none" in said
    assert any(text.startswith("find: ") for text in said)
    assert not any(text.startswith(("python", "search")) for text in said)
    assert turns[-1]["content"] == "Question: How far is Ra?"
    roles = [turn["role"] for turn in turns]
    assert roles == ["user", "assistant"] * (len(turns) // 2) + ["user"]


def test_failed_proposals_are_counted_and_equal_ones_are_one(monkeypatch):
    def said(text, **more):
        turns = [message("assistant", text, more.pop("tool", ""))]
        return Reply(turns, **{"ended": True, **more})

    replies = {
        0: [said("calculator: 1+1"), said("calculator: 1+1")],
        1: [said("calculator: 2+", ended=False), said("none")],
        2: [said("hm"), said("3+3", tool="calculator", ended=False)],
        3: [said("oracle: x"), said("x", tool="oracle")],
    }
    waiting = [reply for pair in replies.values() for reply in pair]
    asked = []

    def ask(self, numbers, questions):
        asked.append(list(numbers))
        return [waiting.pop(0) for _ in numbers]

    monkeypatch.setattr(model_proposals.Proposer, "_ask", ask)
    proposer = model_proposals.Proposer(None, None, {}, TOOLS, samples=2, seed=0, batch=3)
    done = []
    found = proposer.propose(dict.fromkeys(range(4), "?"), done.append)
    assert [(one.dialogue, one.argument, one.source) for one in found] == [
        (0, "1+1", "model"),
        (2, "3+3", "model"),
    ]
    assert proposer.counts == {
        model_proposals.UNFINISHED: 1,
        model_proposals.NO_CALL: 1,
        model_proposals.MALFORMED: 1,
        model_proposals.UNKNOWN_TOOL: 2,
    }
    assert asked == [[0, 0, 1], [1, 2, 2], [3, 3]] and sum(done) == 8
