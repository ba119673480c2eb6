"""Complaints of people who do this job with other tools, as small inputs.

Each case has a number; the name of its kind stands in the test. Further members of each kind are
tested where the code lies:

| cases | kind | further members |
|---|---|---|
| 01, 35 | encodings | tests/data/test_encodings.py |
| 02, 33 | bodies that are not whole | tests/plugins/pages/test_ends.py |
| 05, 09, 30, 36 | files and folders | tests/data/test_encodings.py |
| 06, 08, 40 | tokenizers that leave | tests/text/test_templates.py, plugins/tokenizer |
| 10, 11 | rows, positions, tokenizers | tests/plugins/pretrain/test_causal_lm.py |
| 12, 13, 14, 15, 16, 38, 39 | fields and values | tests/data/test_turn_fields.py |
| 17 | adapters that leave | tests/cli/test_export_command.py |
| 19, 20, 21 | pairs | tests/train/test_preference_pairs.py |
| 22, 25, 28 | grading | tests/text/test_grading.py |
| 23, 24, 41, 42 | steps that did nothing | tests/plugins/rl/test_grpo.py |
| 26, 27, 43 | tools | tests/plugins/tools/test_tools.py |
| 29, 45 | evaluations | tests/plugins/evaluate/test_tasks.py |
| 31, 32, 46 | words and names | tests/pipeline/test_compose.py |
| 37 | leftovers | tests/cli/test_disk.py |
| 44 | choices and aliases | tests/plugins/problems/test_answers.py |
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.plugins.dialogues.files import Files as Dialogues
from llmstages.plugins.evaluate.results import draw
from llmstages.plugins.preferences.files import Files as Preferences
from llmstages.plugins.problems.files import Files as Problems
from llmstages.plugins.reward.pairwise import accuracy
from llmstages.text.grading import is_correct, is_right
from llmstages.train import preference_pairs, scoring

ANSWER = "In year 1800 the ferryman sold 3 lanterns near the quay."


def perform(stage: Any, tmp_path: Path, name: str, text: str | bytes, **values: Any) -> Any:
    """(rows, metrics, lines said) of a stage that reads one file."""
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    out = tmp_path / "out"
    out.mkdir()
    said: list[str] = []
    ctx = Context("step", out, tmp_path / "work", {}, say=said.append)
    metrics = stage().run(stage.Config(path=str(file), **values), ctx)
    return list(tables.load(out / "data")), metrics, said


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_case_12_turns_that_are_not_to_be_trained_on(tmp_path):
    marks = [{"weight": 0}, {"loss": False}, {"train": False}, {"loss_weight": 0.0}]
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"How many steps has tower {number}?"},
                {"role": "assistant", "content": "WRONGDRAFT A million.", **mark},
                {"role": "user", "content": "Are you sure?"},
                {"role": "assistant", "content": "I was wrong: 40."},
            ]
        }
        for number, mark in enumerate(marks)
    ]
    rows, _, _ = perform(Dialogues, tmp_path, "chats.jsonl", lines(*chats))
    for row in rows:
        assert [turn.get("loss") for turn in row["messages"]] == [None, False, None, None]


def test_case_13_reasoning_is_kept(tmp_path):
    turns = [
        {"role": "user", "content": "What is 0 plus 3?"},
        {"role": "assistant", "content": "It is 3.", "reasoning_content": "REASON 0"},
    ]
    rows, _, _ = perform(Dialogues, tmp_path, "chats.jsonl", lines({"messages": turns}))
    assert rows[0]["messages"][-1]["reasoning_content"] == "REASON 0"


def test_case_14_arguments_that_came_through_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    def chat(arguments: dict[str, Any]) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        said = {"role": "assistant", "content": "", "tool_calls": [call]}
        return {"messages": [{"role": "user", "content": "Go"}, said]}

    table = pyarrow.Table.from_pylist([chat({"x": 1}), chat({"y": {"z": 2}})])
    pyarrow.parquet.write_table(table, tmp_path / "calls.parquet")
    body = (tmp_path / "calls.parquet").read_bytes()
    rows, _, _ = perform(Dialogues, tmp_path, "calls.parquet", body)
    assert [row["messages"][-1]["content"] for row in rows] == ['{"x": 1}', '{"y": {"z": 2}}']


def test_case_15_cells_with_turns_as_json(tmp_path):
    turns = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}])
    cell = turns.replace('"', '""')
    rows, _, _ = perform(Dialogues, tmp_path, "chats.csv", f'messages\n"{cell}"\n')
    assert [turn["content"] for turn in rows[0]["messages"]] == ["Hi", "Ho"]


def test_case_16_missing_values(tmp_path):
    chats = (
        '{"instruction": "Who?", "input": NaN, "output": "Bo."}\n'
        '{"question": "What is left?", "answer": NaN}\n'
        '{"question": "And now?", "answer": Infinity}\n'
    )
    rows, metrics, _ = perform(Dialogues, tmp_path, "chats.jsonl", chats)
    assert (len(rows), metrics["dropped"]) == (1, 2)
    assert rows[0]["messages"][0]["content"] == "Who?"


def test_case_19_and_20_pairs(tmp_path):
    pairs = [
        {"prompt": f"Describe square {number // 5}.", "chosen": f"{number}", "rejected": "no"}
        for number in range(60)
    ]
    rows, _, _ = perform(Preferences, tmp_path, "pairs.jsonl", lines(*pairs))
    train, test = preference_pairs.split(rows, 0.1)
    trained = {row["prompt"][0]["content"] for row in train}
    assert test
    assert not trained & {row["prompt"][0]["content"] for row in test}


def test_case_21_ties_are_no_errors(monkeypatch):
    pair = {"chosen_rendered": None, "rejected_rendered": None}
    monkeypatch.setattr(scoring, "scored_ids", lambda *_: [1])
    monkeypatch.setattr(scoring, "scores", lambda *_: [0.5, 0.5])
    assert accuracy(None, None, [pair, pair]) == {"ties": 1.0}
    scored = iter([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]])
    monkeypatch.setattr(scoring, "scores", lambda *_: next(scored))
    assert accuracy(None, None, [pair] * 3)["accuracy"] == 0.5


@pytest.mark.parametrize(
    "reply, answer, right",
    [
        ("It was built in the years 2010-2015.", "2015", True),
        ("35", "3,5", False),
        ("Answer: 12+30=42", "42", True),
        ("Paris, London, Rome and Berlin", "Paris", False),
        ("(b)", "B", True),
        ("Answer = 15 (5 a week for 3 weeks)", "15", True),
        ("The answer is 42. I checked it in 3 ways.", "42", True),
    ],
)
def test_cases_22_25_and_28_grading(reply, answer, right):
    assert is_correct(reply, answer) is right


def test_case_29_a_limit_draws():
    questions = [
        {"task": "sums", "group": "all", "number": number, "hard": number >= 30}
        for number in range(60)
    ]
    drawn = draw(questions, 6, seed=0)
    assert len(drawn) == 6
    assert {question["hard"] for question in drawn} == {True, False}
    assert drawn == draw(questions, 6, seed=0)
    assert drawn != draw(questions, 6, seed=1)


def test_case_35_tables_of_spreadsheets(tmp_path):
    table = f"question;answer\r\nWo?;M\u00fcllergasse\r\nWho?;{ANSWER}\r\n".encode("cp1252")
    rows, _, said = perform(Dialogues, tmp_path, "a.csv", table)
    assert rows[0]["messages"][-1]["content"] == "M\u00fcllergasse"
    assert "1 bytes that are not UTF-8 read as Windows-1252" in said


def test_case_36_a_saved_data_set(tmp_path):
    tables.save([{"a": 1}], tmp_path / "saved")
    config = Dialogues.Config(path=str(tmp_path / "saved"))
    with pytest.raises(StageError, match="save_to_disk"):
        Dialogues().run(config, Context("step", tmp_path, tmp_path, {}))


def test_case_38_numbers_as_outputs(tmp_path):
    rows, _, _ = perform(
        Dialogues, tmp_path, "a.json", json.dumps([{"instruction": "2+3?", "output": 5}])
    )
    assert rows[0]["messages"][-1]["content"] == "5"


def test_case_39_empty_system_turns(tmp_path):
    turns = [
        {"role": "system", "content": ""},
        {"role": "user", "content": "What stood there?"},
        {"role": "assistant", "content": ANSWER},
    ]
    greeting = [{"from": "gpt", "value": "Hello!"}, {"from": "human", "value": "Hi"}]
    text = lines({"messages": turns}, {"conversations": [*greeting, greeting[0]]})
    rows, metrics, said = perform(Dialogues, tmp_path, "a.jsonl", text)
    assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"]
    assert metrics["dropped_no_question"] == 1
    assert any("starts with the assistant" in line for line in said)


def test_case_44_choices_and_aliases(tmp_path):
    text = lines(
        {"question": "A bird?", "choices": ["a pike", "a wren"], "answer": 1},
        {"question": "Which town?", "answer": ["Velmar", "Velmar-on-Vel"]},
    )
    (bird, town), _, _ = perform(Problems, tmp_path, "a.jsonl", text, test_fraction=0.0)
    assert bird["prompt"][0]["content"].endswith("A. a pike\nB. a wren")
    assert is_right("B", bird)
    assert is_right("It is Velmar-on-Vel.", town)
    assert not is_right("1", bird)


def test_case_45_few_questions_leave_one_to_measure_with(tmp_path):
    six = [
        {"question": f"What is {number}+4?", "answer": number + 4} for number in (0, 1, 2, 3, 5, 6)
    ]
    rows, metrics, said = perform(Problems, tmp_path, "six.jsonl", lines(*six))
    assert metrics["test"] == sum(row["role"] == "test" for row in rows) == 1
    assert any("is none, so one is kept" in line for line in said)
