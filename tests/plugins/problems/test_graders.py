"""A problem keeps its grader from the file to the reward, the probe and the evaluation."""

from __future__ import annotations

import json

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.plugins.problems.files import Files
from llmstages.plugins.rl.rewards.exact_answer import ExactAnswer, ExactAnswerConfig
from llmstages.testing import run_stage

ROWS = [
    {"question": "What is 6 * 7?", "answer": "42"},
    {"question": "A half?", "answer": "\\frac{1}{2}"},
    {"question": "The capital of France?", "choices": ["Lyon", "Paris"], "answer": 1},
    {"question": "Who wrote the first program?", "answer": "Ada"},
    {"question": "Say yes.", "answer": "yes", "grader": "exact"},
]


def write(folder, rows) -> str:
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def problems(folder, rows, **options):
    config = {"path": write(folder, rows), "test_fraction": 0.0, **options}
    return run_stage("problems.files", folder / "out", config, {})


def scores(rows, completions) -> list[float]:
    reward = ExactAnswer(ExactAnswerConfig())
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return reward.score([row["prompt"] for row in rows], completions, columns)


def test_each_row_is_graded_as_what_it_is(tmp_path):
    result = problems(tmp_path, ROWS)
    for grader in ("number", "math", "choice", "words", "exact"):
        assert result.metrics[f"graders/{grader}"] == 1
    rows = list(tables.load(result.artifact.path / "data"))
    right = ["It is 42.0", "$0.5$", "B", "It was Ada.", "yes"]
    assert scores(rows, right) == [1.0] * len(rows)
    wrong = ["It is 43", "$0.4$", "A or B", "Not Ada.", "The answer is yes."]
    assert scores(rows, wrong) == [0.0] * len(rows)


def test_one_grader_for_all_rows_also_overrules_a_misspelled_one(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("def is_right(reply, problem):\n    return reply == 'abracadabra'\n")
    rows = [*ROWS, {"question": "?", "answer": "x", "grader": "exxact"}]
    graders = {"mine": {"use": f"{path}:is_right"}}
    result = problems(tmp_path, rows, graders=graders)
    assert result.metrics["examples"] == len(rows)
    table = list(tables.load(result.artifact.path / "data"))
    assert scores(table, ["abracadabra"] * 6) == [1.0] * 6
    assert scores(table, ["42"] * 6) == [0.0] * 6


def test_a_grader_that_does_not_exist_costs_its_row_and_is_counted(tmp_path):
    rows = [*ROWS, {"question": "?", "answer": "x", "grader": "exxact"}]
    assert problems(tmp_path, rows).metrics["dropped_grader"] == 1


def test_two_graders_are_refused():
    graders = {"a": {"use": "words"}, "b": {"use": "exact"}}
    with pytest.raises(StageError, match="one grader decides"):
        Files().validate(Files.Config(path="x", graders=graders), "problems")
