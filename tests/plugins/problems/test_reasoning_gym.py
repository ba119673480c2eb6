"""Problems of reasoning-gym: each once, roles by question, and scorers that trust no text."""

from __future__ import annotations

import importlib.util
import json

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.data.reasoning_tasks import BROKEN, RUNS_ANSWERS
from llmstages.plugins.problems.reasoning_gym import ReasoningGym
from llmstages.text.grading import is_right
from tests.tiny import perform

installed = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed"
)
TASKS = {
    "products": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
    "spell_backward": {},
    "letter_counting": {},
}


def made(folder, **options):
    config = ReasoningGym.Config(**{"tasks": TASKS, "count": 60, **options})
    artifact, metrics = perform(ReasoningGym, folder, config)
    return list(tables.load(artifact.path / "data")), metrics


@installed
def test_each_problem_is_there_once_and_its_role_follows_from_its_question(tmp_path):
    rows, metrics = made(tmp_path / "one")
    questions = [row["prompt"][-1]["content"] for row in rows]
    assert len(set(questions)) == len(rows) == metrics["examples"]
    assert {row["group"] for row in rows} == set(TASKS)
    tests = {row["prompt"][-1]["content"] for row in rows if row["role"] == "test"}
    assert 0.05 < len(tests) / len(rows) < 0.15
    again, _ = made(tmp_path / "two")
    assert again == rows


@installed
def test_the_answers_are_right_and_other_texts_are_not(tmp_path):
    rows, _ = made(tmp_path / "one")
    for row in rows:
        answer = row["answer"]
        assert is_right(answer, row), row
        assert is_right(f"Let me see.\nThe answer is {answer}.", row), row
        for wrong in (
            "",
            "banana",
            f"{answer} or 999999",
            f"x{answer}x",
            "1 2 3 4 5 6 7 8 9 123456",
        ):
            assert not is_right(wrong, row), (wrong, row)


@installed
def test_the_last_answer_counts(tmp_path):
    rows, _ = made(tmp_path / "one", tasks={"products": TASKS["products"]})
    row = rows[0]
    assert is_right(f"100000 is too much, so {row['answer']}", row)
    assert not is_right(f"{row['answer']} is too little, so 100000", row)


@pytest.mark.parametrize("task", sorted(RUNS_ANSWERS | BROKEN))
def test_a_task_whose_scorer_cannot_be_trusted_is_refused(task):
    with pytest.raises(StageError, match=rf"problems.tasks.{task} is not offered"):
        ReasoningGym().validate(ReasoningGym.Config(tasks={task: {}}), "problems")


@installed
def test_unknown_tasks_and_settings_are_named(tmp_path):
    with pytest.raises(StageError, match="tasks.no_such_task: .*no_such_task"):
        made(tmp_path / "one", tasks={"no_such_task": {}})
    with pytest.raises(StageError, match="tasks.products: .*no_such_setting"):
        made(tmp_path / "two", tasks={"products": {"no_such_setting": 1}})


@installed
def test_a_task_with_few_different_problems_says_so(tmp_path):
    one_digit = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    rows, _ = made(tmp_path / "one", tasks={"products": one_digit}, count=400)
    assert len(rows) < 400
    assert any(f"products made {len(rows)} different problems" in line for line in perform.said)


@installed
def test_a_scorer_that_runs_text_is_not_asked_for_a_row_of_elsewhere():
    meta = json.dumps({"task": "countdown", "question": "?", "metadata": {}})
    row = {"answer": "1", "grader": "reasoning_gym", "meta": meta}
    with pytest.raises(StageError, match="the scorer of countdown is not asked"):
        is_right("__import__('os').getcwd()", row)
