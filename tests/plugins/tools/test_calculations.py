"""Calculator calls of worked answers: each one run, and none that the calculator refutes."""

from __future__ import annotations

import copy

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.data.formats import problem
from llmstages.plugins.sft import dataset
from llmstages.plugins.tools import calculations
from llmstages.plugins.tools.calculations import Calculations, CalculationsConfig
from llmstages.plugins.tools.calculator import Calculator, CalculatorConfig
from tests.tiny import perform, saved, tiny_tokenizer

CALCULATE = Calculator(CalculatorConfig())


def row(answer: str, question: str = "How many?", **more) -> dict:
    return {**problem({"question": question, "answer": answer}), "role": "train", **more}


@pytest.mark.parametrize(
    "solution, calls, refused",
    [
        ("In May <<48/2=24>>24 clips. So <<48+24=72>>72.", [("48/2", "24"), ("48+24", "72")], 0),
        # Plain text, with spaces, other signs, money, groups of digits and parentheses.
        ("That is 48 / 2 = 24 clips.", [("48 / 2", "24")], 0),
        ("He pays 3 x $4 ... no: 3 x 4 = $12.", [("3 x 4".replace("x", "*"), "12")], 0),
        ("2 \u00d7 1,500 = 3,000 people", [("2 * 1500", "3000")], 0),
        ("(2 + 3) * 4 = 20", [("(2 + 3) * 4", "20")], 0),
        ("7 \u00f7 2 = 3.5", [("7 / 2", "3.5")], 0),
        ("3 - 8 = -5", [("3 - 8", "-5")], 0),
        # Rounded to the digits that are stated.
        ("10 / 3 = 3.33", [("10 / 3", "3.33333333333")], 0),
        # Wrong, or only the end of something longer.
        ("2 + 2 = 5", [], 1),
        ("10 / 3 = 3", [], 1),
        ("8 x 1 1/2 = 12", [], 1),
        ("x + 3 = 5, and nothing else", [], 0),
        ("It was on 12-05.", [], 0),
        ("Call 555-1234 now.", [], 0),
    ],
)
def test_equations_of_worked_answers(solution, calls, refused):
    worked = row(f"{solution}\n#### 1")
    assert calculations.confirmed_calls(worked, CALCULATE) == (calls, refused)


@pytest.mark.parametrize(
    "question, answer, calls",
    [
        ("What is 4 + 3 - 2?", "5", [("4 + 3 - 2", "5")]),
        ("6*7=", "42", [("6*7", "42")]),
        ("He was born 12-05 in room 3.", "7", []),
        ("Who was Bo Li?", "a poet", []),
    ],
)
def test_the_question_is_the_expression_where_nothing_is_worked_out(question, answer, calls):
    assert calculations.confirmed_calls(row(answer, question), CALCULATE)[0] == calls


def make(tmp_path, rows, **config):
    return perform(
        Calculations,
        tmp_path / "tools",
        CalculationsConfig(**config),
        problems=saved(tmp_path / "problems", "problems", rows),
    )


def test_calls_stand_before_the_worked_answer_and_tests_are_left_alone(tmp_path):
    rows = [
        row("Half is <<48/2=24>>24.\n#### 24", "How many are half of 48?"),
        row("<<1+1=2>>2\n#### 2", "A test question", role="test"),
        row("blue", "Which color?"),
        row("<<2+2=5>>5\n#### 5", "How much?"),
    ]
    made, metrics = make(tmp_path, rows)
    assert metrics == {"dialogues": 1, "calls": 1, "dropped": 2, "equations_left_out": 1}
    assert len(perform.said) == 2
    (kept,) = tables.load(made.path / "data")
    shown = [(turn["role"], turn["tool"], turn["content"]) for turn in kept["messages"]]
    assert shown == [
        ("user", "", "How many are half of 48?"),
        ("assistant", "calculator", "48/2"),
        ("tool", "calculator", "24"),
        ("assistant", "", "Half is 24.\nThe answer is 24."),
    ]


def test_nothing_to_teach_is_an_error_unless_it_is_allowed(tmp_path):
    with pytest.raises(StageError, match="no problem of problems has a calculation"):
        make(tmp_path, [row("blue")])
    _, metrics = make(tmp_path / "again", [row("blue")], allow_empty=True)
    assert metrics["dialogues"] == 0
    assert "no calls are taught" in perform.said[-1]


def test_training_prompts_name_the_tools_as_prompts_at_inference_do(tmp_path):
    made, _ = make(tmp_path, [row("<<48/2=24>>24\n#### 24")])
    drawn = dataset.draw_dialogues([made], {}, seed=0, passes=1)
    tokenizer = copy.deepcopy(tiny_tokenizer())
    # Our own templates know their tools by control tokens; those of others read the schemas.
    assert dataset.add_schemas(tokenizer, drawn, [made]) == drawn
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    (dialogue,) = dataset.add_schemas(tokenizer, drawn, [made])
    assert '"name": "calculator"' in dialogue.messages[0]["tools"]
