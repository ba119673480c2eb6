"""problems.jagged: rows of both roles, what a constant answer earns, and early refusals."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.plugins.problems.jagged import Jagged, JaggedConfig
from llmstages.text.grading import is_right
from tests.tiny import perform

SMALL = {"words": "generated", "alphabet": "abcdefgh", "train": 12, "test": 6}


def made(folder, **options):
    artifact, metrics = perform(Jagged, folder, JaggedConfig(**{**SMALL, **options}))
    return list(tables.load(artifact.path / "data")), metrics


def test_rows_of_both_roles_with_grader_and_size(tmp_path):
    rows, metrics = made(tmp_path / "one")
    assert metrics["examples"] == len(rows)
    assert metrics["test"] == sum(row["role"] == "test" for row in rows)
    assert metrics["groups"] == len({(row["task"], row["group"]) for row in rows}) == 21
    counts = Counter((row["task"], row["group"], row["role"]) for row in rows)
    assert counts["multiplication", "2 digits", "train"] == 12
    assert counts["multiplication", "2 digits", "test"] == 6
    for row in rows:
        assert row["grader"] == "jagged" and row["style"] == "chat"
        assert str(json.loads(row["meta"])["size"]) == row["group"].split()[0]
        assert is_right(f"The answer is {row['answer']}.", row)
    again, _ = made(tmp_path / "two")
    assert again == rows
    assert metrics["constant/spelling"] < 0.1 < metrics["constant/comparing_decimals"]
    assert any("comparing_decimals in the same way is right for" in x for x in perform.said)


def test_estimate_is_what_is_made(tmp_path):
    config = JaggedConfig(**{**SMALL, "tasks": {"reversing": [5], "multiplication": [2]}})
    _, metrics = made(tmp_path / "one", tasks=config.tasks)
    estimate = Jagged().estimate(config, {})
    assert {name: metrics[name] for name in estimate} == estimate


def test_what_does_not_exist_is_said_or_refused(tmp_path):
    _, metrics = made(tmp_path / "few", tasks={"multiplication": [1]}, train=500, test=0)
    assert "multiplication, 1 digit: " in perform.said[0] and "not 500" in perform.said[0]
    assert metrics["test"] == 0 < metrics["examples"] < 500
    with pytest.raises(StageError, match=r"problems.tasks has no task 'telling'"):
        Jagged().validate(JaggedConfig(tasks={"telling": [3]}), "problems")
    with pytest.raises(ValueError, match="both 0"):
        JaggedConfig(train=0, test=0)


def test_a_wording_asks_for_the_way_to_answer(tmp_path):
    rows, _ = made(tmp_path / "one", wording="steps", tasks={"reversing": [5]})
    assert all(row["prompt"][0]["content"].endswith("Think step by step.") for row in rows)
