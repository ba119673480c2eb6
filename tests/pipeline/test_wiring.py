"""`only=STEP` asks for what the step depends on, and for nothing else."""

import re

import pytest

from llmstages.core.errors import MissingValueError, StageError
from llmstages.pipeline.compose import compose
from llmstages.pipeline.wiring import make_steps


def made(*overrides):
    composed = compose(["recipe=real", *overrides])
    steps = make_steps(composed.slots, composed.steps, composed.only, composed.given)
    return {step.name: step for step in steps}


@pytest.fixture
def model_folder(tmp_path):
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    return f"{tmp_path}"


def test_a_step_that_is_not_needed_may_lack_its_path():
    steps = made("only=pretrain", "corpus=none", "pages.path=input.txt")
    assert list(steps) == ["pages", "corpus", "tokenizer", "pretrain"]
    assert not any("left out" in note for step in steps.values() for note in step.notes)


def test_an_optional_input_stays_open_and_a_note_says_why(model_folder):
    steps = made("only=sft", f"steps.sft.model={model_folder}", "dialogues.path=chats.json")
    sft = steps["sft"]
    assert list(steps) == ["dialogues", "sft"]
    assert sft.inputs["evaluations"] == ()
    assert sft.inputs["corpus"] is None
    assert sft.notes == (
        "input corpus: corpus is left out, since pages.path is not set",
        "input evaluations: problems is left out, since problems.path is not set",
    )


def test_an_input_of_another_kind_does_not_ask_for_the_missing_path(model_folder):
    steps = made("only=rl", "rl=dpo", f"steps.rl.policy={model_folder}", "preferences.path=p.jsonl")
    assert list(steps) == ["preferences", "rl"]


def test_the_nearest_step_that_can_be_built_is_taken(model_folder):
    steps = made(
        "only=rl",
        "rl=dpo",
        f"steps.rl.policy={model_folder}",
        "preferences.path=p.jsonl",
        "+preferences@more=files",
        "+steps.more={}",
        "+rl@second=dpo",
        f"+steps.second.policy={model_folder}",
        "only=second",
    )
    assert steps["second"].inputs["preferences"].name == "preferences"
    assert "more is left out, since more.path is not set" in steps["second"].notes[0]
    assert "takes preferences, the nearest" in steps["second"].notes[0]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        # required
        (["only=tools", "pages.path=p.txt"], "dialogues needs a value for dialogues.path"),
        (["only=rl", "rl=dpo", "pages.path=p", "dialogues.path=d"], "needs a value for"),
        (["only=report"], "pages needs a value for pages.path"),
        # wired by the user
        (
            [
                "only=corpus",
                "pages.path=p.txt",
                "steps.corpus.evaluations=[problems]",
            ],
            "steps.corpus.evaluations=problems: problems needs a value for problems.path",
        ),
        # all steps are wanted
        (["pages.path=p.txt"], "problems needs a value for problems.path"),
    ],
)
def test_what_is_needed_is_asked_for(overrides, said):
    with pytest.raises(MissingValueError, match=re.escape(said)):
        made(*overrides)


def test_a_wrong_value_is_never_left_out(model_folder):
    with pytest.raises(StageError, match="problems.test_fraction is 7") as caught:
        made(
            "only=sft",
            f"steps.sft.model={model_folder}",
            "dialogues.path=chats.json",
            "problems.path=p.json",
            "problems.test_fraction=7",
        )
    assert not isinstance(caught.value, MissingValueError)


def test_an_error_of_a_step_that_nothing_needs_is_ignored():
    steps = made("only=pretrain", "pages.path=input.txt", "problems.test_fraction=7")
    assert "problems" not in steps
