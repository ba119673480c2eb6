"""SFT learns a dialogue by heart, and checks block what would train something else."""

from __future__ import annotations

import json

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.plugins.sft.chat import Chat, ChatConfig
from llmstages.text.messages import message
from tests.plugins.sft.helpers import answer, fine_tune
from tests.tiny import TALK, TEXTS, perform, saved

CONFIG = ChatConfig(max_length=64, epochs=60.0, learning_rate=5e-3, batch_size=2, warmup_steps=2)


def test_it_learns_the_dialogue_and_stops(tmp_path, model, chats):
    made, metrics = fine_tune(tmp_path / "sft", CONFIG, model, chats)
    reply = answer(made)
    assert reply.ended
    assert reply.text == TALK[1]["content"]
    assert metrics["loss_last"] < metrics["loss_first"]


@pytest.mark.parametrize("resample", [False, True])
def test_the_share_of_replay_is_that_of_every_pass(tmp_path, model, chats, monkeypatch, resample):
    counts = []
    make_rows = Chat._make_rows

    def recorded(self, config, prepared, documents):
        counts.append((len(prepared.rows), len(documents)))
        return make_rows(self, config, prepared, documents)

    monkeypatch.setattr(Chat, "_make_rows", recorded)
    pages = [{"id": str(i), "url": "u", "text": f"{i} {TEXTS[0]}"} for i in range(40)]
    corpus = saved(tmp_path / "corpus", "corpus", pages)
    config = ChatConfig(max_length=128, replay=5, epochs=3.0, resample_each_epoch=resample)
    inputs = {"model": model, "dialogues": (chats,), "corpus": corpus}
    _, metrics = perform(Chat, tmp_path / "sft", config, **inputs)
    assert metrics["replayed"] == 5
    ((dialogues, documents),) = counts
    passes = 3 if resample else 1
    assert documents == 5 * passes
    assert dialogues % passes == 0


def test_replay_brings_documents_back(tmp_path, model, chats):
    rows = [{"id": str(i), "url": "u", "text": text[:60]} for i, text in enumerate(TEXTS)]
    corpus = saved(tmp_path / "corpus", "corpus", rows)
    config = ChatConfig(max_length=64, replay=5)
    _, metrics = perform(
        Chat, tmp_path / "sft", config, model=model, dialogues=(chats,), corpus=corpus
    )
    assert metrics["replayed"] == 5


@pytest.mark.parametrize(
    "messages", [[message("user", "hi")], [message("user", "a"), message("user", "b")]]
)
def test_checks_block_dialogues_without_an_answer(tmp_path, model, messages):
    silent = saved(tmp_path / "silent", "dialogues", [{"messages": messages}])
    with pytest.raises(StageError, match="supervised"):
        fine_tune(tmp_path / "sft", CONFIG, model, silent)
    checks = json.loads((tmp_path / "sft" / "out" / "checks.json").read_text())
    assert not all(check["passed"] for check in checks)


def test_too_long_dialogues_are_dropped_with_a_line_or_refused(tmp_path, model):
    long = [message("user", "the cat sat. " * 60), message("assistant", "yes")]
    mixed = saved(tmp_path / "mixed", "dialogues", [{"messages": TALK}, {"messages": long}])
    _, metrics = fine_tune(tmp_path / "drop", ChatConfig(max_length=64), model, mixed)
    assert metrics["dropped_too_long"] == 1
    line = "1 of 2 dialogues are longer than max_length=64 tokens (mixed:1): dropped"
    assert line in perform.said[0]
    config = ChatConfig(max_length=64, overlong="error")
    with pytest.raises(StageError, match=r"raise error\.max_length"):
        fine_tune(tmp_path / "error", config, model, mixed)


def test_loss_on_the_last_answer_alone(tmp_path, model):
    talk = [
        *TALK,
        message("user", "Who?"),
        message("assistant", "Bo", "search"),
        message("tool", "Bo Li", "search"),
        message("assistant", "Bo Li."),
    ]
    rows = saved(tmp_path / "talk", "dialogues", [{"messages": talk}])
    inputs = {"model": model, "dialogues": (rows,), "corpus": None}
    supervised_texts = []
    for loss in ("all", "last"):
        config = ChatConfig(max_length=96, loss=loss)
        prepared = Chat().prepare(config, Context("sft", tmp_path, tmp_path, inputs))
        row = prepared.rows[0]
        ids = [token for token, on in zip(row.ids, row.supervised, strict=True) if on]
        supervised_texts.append(prepared.tokenizer.decode(ids))
        assert all(check.passed for check in prepared.checks)
    every, last = supervised_texts
    assert last == "<SEARCH_START> Bo<SEARCH_END> Bo Li.<|im_end|>"
    assert every == " The fox lives near the river.<|im_end|>" + last


@pytest.mark.parametrize(
    "question, leaked",
    [
        ("Where does  the FOX live?", "chats:1"),
        ("Where does the wolf live?", None),
        ("how many legs have a spider and two cats together", "chats:2"),
        ("legs have", None),
    ],
)
def test_questions_of_an_evaluation_are_not_taught(tmp_path, model, question, leaked):
    within = [
        message("user", "Tell me: how many legs have a spider and two cats together ?"),
        message("assistant", "16"),
    ]
    problems = [
        {"prompt": [message("user", question)], "answer": "x", "role": "test"},
        {"prompt": [message("user", "Who?")], "answer": "x", "role": "train"},
    ]
    dialogues = [
        {"messages": [message("user", "Who?"), TALK[1]]},
        {"messages": TALK},
        {"messages": within},
    ]
    inputs = {
        "model": model,
        "dialogues": (saved(tmp_path / "chats", "dialogues", dialogues),),
        "corpus": None,
        "evaluations": (saved(tmp_path / "tests", "problems", problems),),
    }
    prepared = Chat().prepare(ChatConfig(max_length=96), Context("sft", tmp_path, tmp_path, inputs))
    [check] = [check for check in prepared.checks if check.id == "evaluation_questions"]
    assert check.passed is (leaked is None)
    assert check.rows == (() if leaked is None else (leaked,))


def test_neftune_puts_noise_into_training_and_nowhere_else(tmp_path, model, chats):
    def weights(name, alpha):
        config = ChatConfig(max_length=64, epochs=4.0, neftune=alpha)
        made, _ = fine_tune(tmp_path / name, config, model, chats)
        return (made.path / "model.safetensors").read_bytes()

    noisy = weights("noisy", 5.0)
    assert noisy != weights("plain", 0.0)
    assert noisy == weights("again", 5.0)


def test_batches_must_be_shared_evenly(tmp_path, model, chats):
    config = ChatConfig(max_length=64, batch_size=4, micro_batch_size=3)
    with pytest.raises(StageError, match="choose a multiple"):
        fine_tune(tmp_path / "sft", config, model, chats)


@pytest.mark.parametrize(
    "value",
    [
        {"epochs": 0.0},
        {"epochs": float("inf")},
        {"replay": -1},
        {"lora_r": -1},
        {"lora_alpha": -1.0},
        {"lora_dropout": 1.0},
        {"neftune": -1.0},
        {"num_test": -1},
        {"max_length": 1},
        {"mixture_weights": {"chats": -0.5}},
        {"mixture_weights": {"chats": float("nan")}},
        {"format_eval_samples": 0},
    ],
)
def test_values_that_make_no_sense_are_refused(value):
    with pytest.raises(StageError, match=next(iter(value))):
        build_config(ChatConfig, value, "sft")
