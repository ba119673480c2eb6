"""dialogues.jagged: three ways in stated shares, none given away by the wording, calls that run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.data.jagged.tasks import TASKS, WORDINGS
from llmstages.plugins.dialogues.jagged import Jagged, JaggedConfig
from tests.tiny import perform

CONF = Path(__file__).parents[3] / "conf"

SMALL = {"words": "generated", "alphabet": "abcdefgh", "count": 30}


def made(folder, **options):
    artifact, metrics = perform(Jagged, folder, JaggedConfig(**{**SMALL, **options}))
    return list(tables.load(artifact.path / "data")), metrics


def test_shares_of_the_ways_hold_in_each_task_and_size(tmp_path):
    rows, metrics = made(tmp_path / "one", direct=1, steps=2, code=3)
    assert (
        metrics["dialogues"] == len(rows) == sum(metrics[way] for way in WORDINGS if way in metrics)
    )
    for task in TASKS:
        of_task = [row["way"] for row in rows if row["task"] == task]
        assert of_task.count("direct") / len(of_task) == pytest.approx(1 / 6, abs=0.02)
        assert of_task.count("code") / len(of_task) == pytest.approx(1 / 2, abs=0.02)
    assert made(tmp_path / "two", direct=1, steps=2, code=3)[0] == rows


def test_the_three_forms(tmp_path):
    rows, _ = made(tmp_path / "one")
    for row in rows:
        question, answer = row["messages"]
        assert question["role"] == "user" and answer["role"] == "assistant"
        assert row["answer"] in answer["content"]
        if row["way"] == "direct":
            assert answer["content"] == row["answer"]
        if row["way"] == "steps":
            end = f" The answer is {row['answer']}."
            assert answer["content"].endswith(end) and answer["content"] != end.strip()
        calls = ("python", True) if row["way"] == "code" else ("", False)
        assert (row["tool"], bool(row["argument"])) == calls


@pytest.mark.parametrize("asked", [0.0, 1.0])
def test_the_wording_gives_the_way_away_only_if_asked(tmp_path, asked):
    rows, _ = made(tmp_path / "one", asked=asked)
    for row in rows:
        question = row["messages"][0]["content"]
        named = {way for way, suffix in WORDINGS.items() if suffix and question.endswith(suffix)}
        assert named == ({row["way"]} if asked else set())


def test_one_way_alone_and_no_way(tmp_path):
    rows, metrics = made(tmp_path / "one", direct=0, code=0)
    assert {row["way"] for row in rows} == {"steps"} and metrics["code"] == 0
    assert not perform.said, "there is no call to run"
    with pytest.raises(ValueError, match="no dialogue"):
        JaggedConfig(direct=0, steps=0, code=0)
    with pytest.raises(ValueError, match="name of a tool"):
        JaggedConfig(tool="")
    with pytest.raises(StageError, match="mine.tasks.dates"):
        Jagged().validate(JaggedConfig(tasks={"dates": [0]}), "mine")


def test_search_tokens_runs_the_programs(tmp_path):
    from llmstages.core.registry import load_component
    from llmstages.plugins.tools.search_tokens import augment

    rows, _ = made(tmp_path / "one")
    tools = {"python": load_component("tools", {"use": "python"})}
    calling = [row for row in rows if row["way"] == "code"]
    for row in calling:
        messages, _, reason = augment(row, tools, 600)
        assert not reason, (row, tools["python"](row["argument"]))
        assert [turn["role"] for turn in messages] == ["user", "assistant", "tool", "assistant"]
    assert calling


def test_the_presets_for_small_models_teach_what_is_asked():
    taught, asked = (
        yaml.safe_load((CONF / slot / "jagged_small.yaml").read_text())
        for slot in ("dialogues", "evaluate")
    )
    assert taught == asked
    del taught["defaults"]
    config = JaggedConfig(**taught)
    Jagged().validate(config, "dialogues")
    assert ("spelling", 3) in config.sizes()


@pytest.mark.parametrize("guess", [False, True])
def test_a_mixture_keeps_its_other_ways_beside_the_calls_unless_queries_are_guessed(
    tmp_path, guess
):
    from llmstages.core.stage import Artifact
    from llmstages.plugins.tools.search_tokens import SearchTokens, SearchTokensConfig
    from tests.tiny import saved

    options = {**SMALL, "tasks": {"multiplication": [2]}, "tool": "calculator"}
    lessons, counts = perform(Jagged, tmp_path / "lessons", JaggedConfig(**options))
    tools = {name: {"use": name} for name in ("calculator", "search")}
    artifact, metrics = perform(
        SearchTokens,
        tmp_path / "tools",
        SearchTokensConfig(tools=tools, guess=guess),
        dialogues=(Artifact("lessons", "dialogues", lessons.path, "l"),),
        pages=saved(tmp_path / "pages", "corpus", [{"text": "The fox lives near the river."}]),
    )
    rows = list(tables.load(artifact.path / "data"))
    calling = [row for row in rows if any(turn["role"] == "tool" for turn in row["messages"])]
    assert len(calling) == counts["code"]
    without = counts["direct"] + counts["steps"]
    if guess:
        assert metrics["dropped"] == without
    else:
        assert (len(rows) - len(calling), metrics["dropped"]) == (without, 0)
        assert any(f"{without} of 30 dialogues name no tool" in line for line in perform.said)
