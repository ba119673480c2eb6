"""recipe=tune: somebody's model and somebody's dialogues, checked, trained, measured, talked to."""

from __future__ import annotations

import json

import pytest

from tests.end_to_end.chain import llmstages
from tests.tiny import saved_model

QUICK = ("smoke=true", "evaluate.max_new_tokens=4", "evaluate.question_tokens=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model and a file of dialogues, in which commands are run."""
    folder = tmp_path_factory.mktemp("tune")
    saved_model(folder / "base")
    rows = [
        {"instruction": f"Who are you, {n}?", "input": "", "output": "I am Ada, made by Acme."}
        for n in range(40)
    ]
    (folder / "chats.json").write_text(json.dumps(rows))
    return folder


TUNE = ("recipe=tune", "model.path=base", "dialogues.path=chats.json")


def test_a_check_says_what_would_be_trained_and_how(folder):
    done = llmstages("check", "base", "chats.json", folder=folder)
    assert "end_of_turn_supervised" in done.out
    assert "I am Ada, made by Acme.<|im_end|>»" in done.out
    assert "next    llmstages run recipe=tune model.path=base dialogues.path=chats.json" in done.out
    assert "STOPS" not in done.out


def test_a_check_that_fails_says_so_and_ends_with_1(folder):
    rows = [{"messages": [{"role": "user", "content": "a"}] * 2}] * 3
    rows += [{"question": f"What is {n}?", "answer": "<|im_start|>x"} for n in range(60)]
    (folder / "bad.json").write_text(json.dumps(rows))
    done = llmstages("check", "base", "bad.json", folder=folder, code=1)
    assert "template_marks_in_text" in done.out
    assert "to train all the same: sft.allow_failed_checks=[" in done.out


@pytest.mark.parametrize(
    "words, reason",
    [
        (("check", "nowhere", "chats.json"), "there is no 'nowhere' here"),
        (("check", "base", "nothing.json"), "there is no 'nothing.json' here"),
        (("plan", "recipe=tune", "model.path=chats.json", TUNE[2]), "is a file; give the folder"),
        (
            ("plan", TUNE[0], "model=hub", "model.name=base", "model.revision=main", TUNE[2]),
            "not a name of the hub",
        ),
    ],
)
def test_what_is_not_there_is_refused(folder, words, reason):
    assert reason in llmstages(*words, folder=folder, code=2).err


def test_inspect_needs_no_step_to_be_made_before(folder, tmp_path):
    done = llmstages("inspect", "sft", *TUNE, f"store={tmp_path}/store", folder=folder)
    assert "dialogues done" in done.err
    assert "I am Ada" in done.out


@pytest.fixture(scope="module")
def tuned(folder):
    """The finished run."""
    return llmstages("run", "--json", *TUNE, *QUICK, folder=folder)


def test_the_recipe_measures_before_and_after(folder, tuned):
    plan = llmstages("plan", *TUNE, *QUICK, "store=elsewhere", folder=folder).out
    assert "llama, " in plan
    assert "with a chat template" in plan
    steps = tuned.json["steps"]
    assert list(steps) == ["model", "dialogues", "sft", "evaluate", "report"]
    assert steps["dialogues"]["metrics"]["test"] == 4
    assert steps["sft"]["metrics"]["dialogues"] == 36
    metrics = steps["evaluate"]["metrics"]
    for model in ("model", "sft"):
        assert metrics[f"held-out dialogues/all/{model}/loss"] > 0
        assert 0 <= metrics[f"what it knew/all/{model}/right"] <= 1
    page = (folder / "runs/tune/report/index.html").read_text()
    assert "held-out dialogues" in page
    assert (folder / "runs/tune/sft/adapter/adapter_config.json").exists()


def test_the_result_is_talked_to(folder, tuned):
    done = llmstages("chat", "name=tune", folder=folder, stdin="Who are you?\n")
    assert "sft" in done.err + done.out


def test_the_same_again_is_reused_and_one_word_makes_the_rest_anew(folder, tuned):
    again = llmstages("plan", "--json", *TUNE, *QUICK, folder=folder).json["steps"]
    assert {step["state"] for step in again.values()} == {"reused"}
    changed = llmstages("plan", "--json", *TUNE, *QUICK, "sft.lora_r=4", folder=folder).json
    states = {name: step["state"] for name, step in changed["steps"].items()}
    assert states == {
        "model": "reused",
        "dialogues": "reused",
        "sft": "new",
        "evaluate": "new",
        "report": "new",
    }
    assert "lora_r 16 -> 4" in changed["steps"]["sft"]["why"]
