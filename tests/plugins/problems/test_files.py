"""problems.files: GSM8K and plain questions become prompt, answer and the rest."""

import json
from pathlib import Path

import pytest

from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.data.formats import InvalidRow, problem
from llmstages.plugins.problems.files import Files
from llmstages.text.messages import message

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def test_gsm8k_keeps_the_number_and_the_worked_solution():
    result = problem(
        {"question": "How many?", "answer": "600 + 634 = <<600+634=1234>>1,234.\n#### 1,234"}
    )
    assert result == {
        "prompt": [message("user", "How many?")],
        "answer": "1234",
        "aliases": [],
        "task": "gsm8k",
        "group": "",
        "meta": "{}",
        "solution": "600 + 634 = <<600+634=1234>>1,234.",
        "grader": "",
    }


@pytest.mark.parametrize(
    "row, answer, expected",
    [
        (
            {"question": "Where?", "answer": "Paris, France"},
            "Paris, France",
            {"task": "questions", "solution": ""},
        ),
        (
            {
                "prompt": [{"role": "user", "content": "Where?"}],
                "answer": 7,
                "level": 3,
                "source": "x",
            },
            "7",
            {"group": "3", "meta": '{"source": "x"}'},
        ),
        (
            {"problem": "Where?", "solution": "So \\boxed{\\frac{1}{2}}.", "type": "Algebra"},
            "\\frac{1}{2}",
            {"group": "Algebra", "solution": "So \\boxed{\\frac{1}{2}}."},
        ),
        (
            {"problem": "Where?", "solution": "So 5.\n#### 5"},
            "5",
            {"task": "gsm8k", "solution": "So 5."},
        ),
        (
            {"problem": "Where?", "solution": "Thus 5.", "answer": "5", "task": "math"},
            "5",
            {"task": "math", "solution": "Thus 5."},
        ),
    ],
)
def test_plain_rows(row, answer, expected):
    result = problem(row)
    assert result["answer"] == answer
    assert result["prompt"] == [message("user", "Where?")]
    assert {key: result[key] for key in expected} == expected


@pytest.mark.parametrize(
    "rule, row",
    [
        ("format", {"question": "Where?"}),
        ("no_answer", {"question": "Where?", "answer": " "}),
        ("no_answer", {"problem": "Where?", "solution": "no result"}),
        ("no_answer", {"question": "x", "answer": "y ####"}),
    ],
)
def test_unusable_problems_say_why(rule, row):
    with pytest.raises(InvalidRow) as caught:
        problem(row)
    assert caught.value.rule == rule


def test_stage(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "\n".join(
            map(json.dumps, [{"question": "Where?", "answer": "There"}, {"question": "Where?"}])
        )
    )
    (tmp_path / "out").mkdir()
    metrics = Files().run(
        Files.Config(path=str(tmp_path / "a.jsonl"), task="places"),
        Context("problems", tmp_path / "out", tmp_path, {}),
    )
    row = tables.load(tmp_path / "out" / "data")[0]
    assert (row["task"], row["answer"]) == ("places", "There")
    assert metrics["examples"] == 1
    assert metrics["dropped"] == 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development data")
def test_all_of_gsm8k_has_a_number(tmp_path):
    metrics = Files().run(
        Files.Config(path=str(SHARED / "gsm8k/train.jsonl")),
        Context("problems", tmp_path, tmp_path, {}),
    )
    answers = tables.load(tmp_path / "data")["answer"][:]
    assert metrics["examples"] == 7473
    assert all(float(answer) is not None for answer in answers)


def test_few_rows_keep_one_for_evaluation_and_say_so(tmp_path):
    """Otherwise an evaluation on them would ask nothing."""
    rows = [{"question": f"Q{i}?", "answer": str(i)} for i in range(4)]
    file = tmp_path / "questions.jsonl"
    tables.write_lines(file, rows)
    said: list[str] = []

    def roles(name, **options):
        out = tmp_path / name
        out.mkdir()
        ctx = Context("problems", out, tmp_path, {}, say=said.append)
        Files().run(Files.Config(path=str(file), **options), ctx)
        return [row["role"] for row in tables.load(out / "data")]

    fraction = 0.001  # of which no row of these is a part
    kept = roles("few", test_fraction=fraction)
    assert sorted(kept) == ["test", "train", "train", "train"]
    assert "test_fraction=0.001 of 4 problems is none, so one is kept" in said[-1]
    assert roles("again", test_fraction=fraction) == kept, "the same one in every run"
    count = len(said)
    assert set(roles("none", test_fraction=0.0)) == {"train"}
    assert "one is kept" not in "".join(said[count:])
