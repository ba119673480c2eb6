"""problems.environment: rows of first observations, seeds apart, failures counted and refused."""

from __future__ import annotations

import dataclasses as dc
import itertools
import json
import re
import shlex
from pathlib import Path

import pytest

from llmstages.cli.main import main
from llmstages.core.errors import StageError
from llmstages.core.registry import fill_components
from llmstages.core.stage import option
from llmstages.data import tables
from llmstages.plugins.problems.environment import Environment
from llmstages.testing import check_environment
from llmstages.text.environments import open_episode
from tests.tiny import perform

GUESS = f"{Path(__file__).parents[3] / 'examples' / 'guess_number.py'}:GuessNumber"


def made(folder, environments, **options):
    config = Environment.Config(environments=environments, **{"count": 40, **options})
    artifact, metrics = perform(Environment, folder, config)
    return list(tables.load(artifact.path / "data")), metrics


def seeds(rows, role):
    return {json.loads(row["meta"])["seed"] for row in rows if row["role"] == role}


def test_a_problem_is_a_seed_and_its_first_observation(tmp_path):
    spec = {"use": GUESS, "settings": {"highest": 5}}
    rows, metrics = made(tmp_path / "a", {"small": spec, "large": {"use": GUESS}}, max_turns=3)
    assert metrics == {"examples": 80, "test": 8, "groups": 2, "failed": 0}
    assert {(row["group"], row["prompt"][0]["content"][:24]) for row in rows} == {
        ("small", "Guess a number from 1 to 5."[:24]),
        ("large", "Guess a number from 1 to 9."[:24]),
    }
    assert any("40 episodes of small begin with 1 prompts" in line for line in perform.said)
    assert {row["task"] for row in rows} == {"environment"}
    episode = open_episode(rows[0])
    assert episode and episode.max_turns == 3
    assert episode.begin() == "Guess a number from 1 to 5. Say the number alone."
    assert len(seeds(rows, "test")) == 4 and len(seeds(rows, "train")) == 36
    assert not seeds(rows, "test") & seeds(rows, "train")


def test_more_practice_leaves_the_test_as_it_is(tmp_path):
    few, _ = made(tmp_path / "few", {"guess": {"use": GUESS}}, count=40, test_fraction=0.5)
    many, _ = made(tmp_path / "many", {"guess": {"use": GUESS}}, count=400, test_fraction=0.05)
    assert seeds(few, "test") == seeds(many, "test")
    assert seeds(few, "train") < seeds(many, "train")


def odd(folder, body):
    file = folder / "odd.py"
    file.write_text(
        f"import random\nclass Odd:\n    def reset(self, seed): {body}\n"
        "    def step(self, action): return ''\n"
    )
    return {"odd": {"use": f"{file}:Odd"}}


def test_episodes_that_do_not_begin_are_dropped_with_a_line(tmp_path):
    rows, metrics = made(tmp_path / "some", odd(tmp_path, "return 'go' if seed % 10 else 1 / 0"))
    assert 0 < metrics["failed"] == 40 - len(rows)
    assert any("of 40 episodes of odd dropped" in line for line in perform.said)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 / 0", "Odd failed in 40 of 40 episodes.*ZeroDivisionError"),
        ("return str(random.random())", "must follow from the seed"),
        ("return 5", "the observation must be a text"),
    ],
)
def test_environments_that_cannot_be_used(tmp_path, body, message):
    with pytest.raises(StageError, match=message):
        made(tmp_path / "odd", odd(tmp_path, body))


def test_what_plan_refuses(tmp_path):
    with pytest.raises(StageError, match="environments is empty"):
        Environment().validate(Environment.Config(), "problems")
    file = tmp_path / "half.py"
    file.write_text("class Half:\n    def reset(self, seed): return ''\n")
    values = {"environments": {"half": {"use": f"{file}:Half"}}}
    with pytest.raises(StageError, match="it lacks step"):
        fill_components(Environment(), values, "problems")


def test_the_environment_of_the_guide_plans_and_counts(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[3] / "docs/plugins.md").read_text()
    section = text.split("## An environment\n")[1].split("\n## ")[0]
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
    monkeypatch.chdir(tmp_path)
    Path("my_env.py").write_text(blocks["python"])
    Path("FOLDER").mkdir()
    Path("FOLDER/config.json").write_text('{"model_type": "llama2", "vocab_size": 100}')
    Path("FOLDER/tokenizer.json").write_text("{}")
    Path("FOLDER/tokenizer_config.json").write_text("{}")
    assert main(["plan", *shlex.split(blocks["bash"])[2:]]) == 0, capsys.readouterr().err
    spec = {"use": "./my_env.py:Countdown", "settings": {"start": 4}}
    rows, _ = made(tmp_path / "rows", {"count": spec})
    episode = open_episode(next(row for row in rows if " 4," in row["prompt"][0]["content"]))
    said = [episode.after(text) for text in ("3", "2", "0")]
    assert [len(turns) for turns in said] == [1, 1, 0] and episode.score == 2.0


class Dice:
    """Pays for the number that a die shows."""

    @dc.dataclass(frozen=True)
    class Config:
        sides: int = option(6, "sides of the die", ge=2)

    version = "1"

    def __init__(self, config):
        self.config = config

    def reset(self, seed):
        self.shown = 1 + seed % self.config.sides
        return "What does the die show?"

    def step(self, action):
        return {"observation": "", "reward": float(action == str(self.shown)), "done": True}


class Loaded(Dice):
    """A die that shows something else in each episode."""

    shows = itertools.count()

    def step(self, action):
        return {"observation": f"It is {next(self.shows)}."}


class Strict(Dice):
    """A die that takes numbers alone."""

    def step(self, action):
        return str(int(action))


def test_the_kit_checks_environments():
    check_environment(Dice, {"sides": 8}, actions=["8"])
    with pytest.raises(AssertionError, match="two episodes of one seed differ"):
        check_environment(Loaded)
    with pytest.raises(AssertionError, match="it fails: ValueError"):
        check_environment(Strict, actions=["8"])
