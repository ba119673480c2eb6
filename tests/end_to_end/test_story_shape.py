"""The whole chain through the command line: what is new, what is reused and why, equal bytes."""

from __future__ import annotations

import re
import sys

import pytest

from tests.end_to_end.chain import SHRUNK, SMOKE, assert_nothing_half, command, digests, llmstages

HEAVY = {"torch", "transformers", "datasets", "trl", "accelerate"}
SOME_STEPS = {"pages", "sft", "rl", "evaluate", "report"}


def test_every_step_of_the_first_run_is_new_and_reported_as_json(smoke):
    done = smoke.done
    assert done.out.count("\n") == 1, "standard output is the JSON alone"
    assert set(done.states.values()) == {"new"}
    assert set(done.states) >= SOME_STEPS
    for name, step in done.json["steps"].items():
        assert step["why"] == "never run", name
        assert step["seconds"] > 0
        assert isinstance(step["metrics"], dict)
        assert (smoke.folder / step["path"] / "record.json").is_file()
    assert (smoke.folder / done.json["report"]).is_file()
    assert_nothing_half(smoke.folder)


def test_the_claims_of_the_first_run_are_reported_and_met(smoke):
    claims = smoke.done.json["claims"]
    assert len(claims) >= 4
    assert all(claim["met"] for claim in claims), "smoke claims what the machinery can hold"
    for claim in claims:
        assert isinstance(claim["name"], str)
        assert isinstance(claim["target"], str)
        assert isinstance(claim["met"], bool)
        assert isinstance(claim["value"], (int, float))


def test_a_second_run_reuses_everything_and_imports_nothing_heavy(smoke):
    again = command([sys.executable, "-X", "importtime", "-m", "llmstages", *SMOKE], smoke.folder)
    assert set(again.states.values()) == {"reused"}
    assert again.states.keys() == smoke.done.states.keys()
    assert again.json["claims"] == smoke.done.json["claims"]
    assert again.json["report"] == smoke.done.json["report"]
    timed = [line for line in again.err.splitlines() if line.startswith("import time:")]
    imported = {line.rsplit("|", 1)[-1].strip() for line in timed}
    assert imported
    assert not imported & HEAVY


@pytest.mark.parametrize(
    ("swap", "reason"),
    [
        ("rl=rejection", "rl.grpo -> rl.rejection"),
        ("rl.learning_rate=1e-5", "learning_rate .* -> "),
    ],
)
def test_a_swap_reruns_what_depends_on_it_and_says_why(smoke, swap, reason):
    plan = llmstages("plan", "--json", "recipe=smoke", swap, folder=smoke.folder)
    assert plan.new == {"rl", "evaluate", "report"}
    why = {name: plan.json["steps"][name]["why"] for name in plan.new}
    assert re.match(reason, why["rl"])
    assert "nearest rl-" in why["rl"]
    assert re.match(r"input models changed \(rl is new\)", why["evaluate"])
    assert why["report"].startswith("input steps changed")


def test_only_ends_the_chain_at_a_step(smoke):
    plan = llmstages("plan", "--json", "recipe=smoke", "only=corpus", folder=smoke.folder)
    assert list(plan.states) == ["pages", "corpus"]
    assert not plan.new


def test_another_seed_is_another_chain(smoke):
    plan = llmstages("plan", "--json", "recipe=smoke", "seed=1", folder=smoke.folder)
    assert plan.new == set(plan.states)
    for step in plan.json["steps"].values():
        assert "seed 0 -> 1" in step["why"] or "new)" in step["why"]


@pytest.mark.slow
def test_the_same_run_elsewhere_gives_the_same_bytes(smoke, tmp_path):
    llmstages(*SMOKE, folder=tmp_path)
    here = digests(tmp_path)
    assert here == digests(smoke.folder)
    assert len(here) == len(smoke.done.states) - 1


@pytest.mark.slow
def test_a_process_for_each_step_gives_the_same_bytes(smoke, tmp_path):
    done = llmstages(*SMOKE, "only=sft", "launch=single", folder=tmp_path)
    assert done.states["sft"] == "new"
    assert digests(tmp_path).items() <= digests(smoke.folder).items()


def test_a_swapped_stage_runs_on_what_is_there(copied):
    folder = copied()
    done = llmstages(*SMOKE, "rl.learning_rate=1e-5", *SHRUNK, folder=folder)
    assert done.new == {"rl", "evaluate", "report"}
    assert done.json["steps"]["rl"]["metrics"]["updates"] == 1
    assert llmstages(*SMOKE, folder=folder).new == set(), "the first result is still there"
