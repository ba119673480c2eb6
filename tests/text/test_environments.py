"""Environments: every form of a result is read, odd ones are refused, and what fails is counted."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from llmstages.core.errors import StageError
from llmstages.text.environments import (
    RESET_TUPLE,
    Episode,
    Result,
    has_environment,
    open_episode,
    read_result,
    require_working,
    reset,
    spec_text,
)


class Number:
    """A number of NumPy or torch, as far as a reward is concerned."""

    def __float__(self):
        return 0.5


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("hi", Result("hi")),
        (SimpleNamespace(observation="hi", reward=1, done=True), Result("hi", 1.0, True)),
        (SimpleNamespace(message="hi", reward=None, done=False), Result("hi")),
        ({"observation": "hi", "reward": 2.5}, Result("hi", 2.5)),
        ({"observation": "", "done": True}, Result("", 0.0, True)),
        ({"text": "hi", "reward": True}, Result("hi", 1.0)),
        (("hi", 1.0, True, False, {}), Result("hi", 1.0, True)),
        (("hi", Number(), False, True, {}), Result("hi", 0.5, True)),
        (("hi", -1, False, False, {}), Result("hi", -1.0, False)),
    ],
)
def test_results_of_every_form(value, result):
    assert read_result(value) == result


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        {"reward": 1.0},
        {"observation": 5},
        ("hi", 1.0),
        ("hi", 1.0, True, {}),
        {"observation": "hi", "reward": "a lot"},
        {"observation": "hi", "reward": math.nan},
        {"observation": "hi", "reward": [1.0, 2.0]},
    ],
)
def test_other_results_are_refused(value):
    with pytest.raises(StageError, match="an environment (returned|paid)"):
        read_result(value)


def test_reset_of_gymnasium():
    assert read_result(("hi", {"reward": 3}), RESET_TUPLE) == Result("hi")


class Echo:
    """Says what it was told, and pays 0.5 for each turn; raises at "fail"."""

    def __init__(self, ends_after=9):
        self.left = ends_after

    def reset(self, seed=None, **_):
        return f"seed {seed}"

    def step(self, action):
        if action == "fail":
            raise ValueError("no such move")
        self.left -= 1
        return {"observation": f"you said {action}", "reward": 0.5, "done": not self.left}


def test_an_episode_goes_on_until_it_is_done_or_its_turns_are_spent():
    for environment, max_turns, turns, done in ((Echo(2), 9, 2, True), (Echo(), 3, 3, False)):
        episode = Episode(environment, 7, max_turns, opening="seed 7")
        said = [episode.after(f"a{turn}") for turn in range(5)]
        assert [len(messages) for messages in said] == [1] * (turns - 1) + [0] * (6 - turns)
        assert said[0][0]["role"] == "user" and said[0][0]["content"] == "you said a0"
        assert (episode.turns, episode.done, episode.score) == (turns, done, turns / 2)


def test_an_error_ends_an_episode_without_a_score():
    episode = Episode(Echo(), 7, 9)
    assert episode.after("hi") and not episode.after("fail") and not episode.after("hi")
    assert episode.score is None and episode.error == "ValueError: no such move"


def test_a_reset_that_does_not_follow_from_the_seed_is_an_error():
    episode = Episode(Echo(), 7, 9, opening="seed 8")
    assert episode.after("hi") == [] and "must follow from the seed" in episode.error
    assert episode.score is None


def test_an_environment_that_takes_no_seed_is_refused():
    class Unseeded(Echo):
        def reset(self):  # type: ignore[override]
            return "hi"

    with pytest.raises(StageError, match=r"Unseeded.reset cannot be called as reset\(seed"):
        reset(Unseeded(), 3)


def test_failures_are_a_share_and_too_many_stop_the_run():
    episodes = [Episode(Echo(), number, 9) for number in range(10)]
    for number, episode in enumerate(episodes):
        episode.after("fail" if number < 2 else "hi")
    assert require_working([*episodes, None]) == 0.2
    assert require_working([None]) == require_working([]) == 0.0
    episodes[2].after("fail")
    with pytest.raises(
        StageError,
        match=r"Echo failed in 3 of 10 episodes, the last one \(seed 2\) with: ValueError: no such",
    ):
        require_working(episodes)


def test_rows_name_their_environment(tmp_path):
    file = tmp_path / "echo.py"
    file.write_text(
        "class Echo:\n"
        "    def __init__(self, word='hi'): self.word = word\n"
        "    def reset(self, seed): return f'{self.word} {seed}'\n"
        "    def step(self, action): return (action, 1.0, True, False, {})\n"
        "def make(word='ho'): return Echo(word)\n"
    )
    for name, settings, word in (
        ("Echo", {}, "hi"),
        ("Echo", {"word": "oh"}, "oh"),
        ("make", {}, "ho"),
    ):
        spec = {"use": f"{file}:{name}", "settings": settings}
        row = {
            "prompt": [{"role": "user", "content": f"{word} 4", "tool": ""}],
            "meta": spec_text(spec, 4, 2),
        }
        episode = open_episode(row)
        assert has_environment(row) and episode is not None
        assert episode.begin() == f"{word} 4" and not episode.error
        assert episode.after("a") == [] and episode.score == 1.0
    wrong = {**row, "meta": spec_text({"use": f"{file}:make", "settings": {"size": 3}}, 4, 2)}
    with pytest.raises(StageError, match="make cannot be made with settings=.*size"):
        open_episode(wrong)


@pytest.mark.parametrize("meta", [None, "", "{}", '{"environment": "a forest"}', '{"seed": 3}'])
def test_other_rows_have_none(meta):
    row = {"prompt": [], "meta": meta}
    assert not has_environment(row) and open_episode(row) is None
