"""evaluate.tuning: what fine-tuning gave and what it cost."""

from __future__ import annotations

import json
import math

import pytest

from llmstages.core.errors import StageError
from llmstages.plugins.evaluate import likelihood, tuning
from llmstages.plugins.evaluate.tuning import Tuning, TuningConfig
from llmstages.text import generate
from llmstages.text.messages import message
from llmstages.text.render import render_answers
from tests.tiny import perform, saved, saved_model, tiny_model, tiny_tokenizer
from tests.train.sft_step import short_dialogues


def dialogues_artifact(folder, count=6, tests=3):
    rows = [
        {"messages": messages, "split": "test" if number < tests else "train"}
        for number, messages in enumerate(short_dialogues(count))
    ]
    return saved(folder, "dialogues", rows)


def test_two_models_side_by_side(tmp_path, monkeypatch):
    """The model before knows all, the one after has learned the dialogues and forgotten half."""
    before, after = saved_model(tmp_path / "before"), saved_model(tmp_path / "after")
    answers_of = {question: right[0] for _, question, right in tuning.general_questions()}
    asked = []

    def reply(model, tokenizer, prompts, advance=None, **options):
        asked.append(len(prompts))
        is_before = len(asked) <= 2
        replies = []
        for number, prompt in enumerate(prompts):
            text = str(prompt[-1]["content"])
            if text in answers_of:
                said = answers_of[text] if is_before or number % 2 else "So it is."
            else:
                said = "What?" if is_before else f"In {int(text.split()[-1][:-1]) + 1}."
            replies.append(generate.Reply([message("assistant", said)], ended=True))
        return replies

    monkeypatch.setattr(generate, "reply", reply)
    alpaca = tmp_path / "alpaca.json"
    rows = [{"instruction": f"Say {n}.", "input": "", "output": f"{n}"} for n in range(6)]
    alpaca.write_text(json.dumps(rows))
    made, metrics = perform(
        Tuning,
        tmp_path / "scores",
        TuningConfig(num_questions=20, others=str(alpaca)),
        models=(before, after),
        dialogues=(dialogues_artifact(tmp_path / "chats"),),
    )
    assert asked == [3, 20, 3, 20]
    assert metrics["what it knew/all/before/kept"] == 1
    assert metrics["what it knew/all/after/kept"] == 0.5
    assert metrics["what it knew/all/after/known_before"] == 20
    assert metrics["held-out dialogues/all/after/overlap"] == 1
    assert metrics["held-out dialogues/all/before/overlap"] == 0
    loss = metrics["held-out dialogues/all/before/loss"]
    assert abs(loss - math.log(len(tiny_tokenizer()))) < 1  # a random model
    assert metrics["other dialogues/alpaca/after/n"] == 6
    rows = [json.loads(line) for line in (made.path / "answers.jsonl").read_text().splitlines()]
    assert {row["model"] for row in rows} == {"before", "after"}
    assert len(rows) == 2 * 23


def test_real_models_answer(tmp_path):
    models = (saved_model(tmp_path / "before"), saved_model(tmp_path / "after"))
    _, metrics = perform(
        Tuning,
        tmp_path / "scores",
        TuningConfig(num_questions=4, max_new_tokens=4, question_tokens=4),
        models=models,
        dialogues=(dialogues_artifact(tmp_path / "chats"),),
    )
    same = [
        (metrics[f"{key}/before/{name}"], metrics[f"{key}/after/{name}"])
        for key, name in (("held-out dialogues/all", "loss"), ("what it knew/all", "right"))
    ]
    assert all(first == second for first, second in same)  # they are the same random model


def test_nothing_to_measure_is_refused(tmp_path):
    inputs = {"models": (saved_model(tmp_path / "base"),)}
    chats = dialogues_artifact(tmp_path / "chats", tests=0)
    with pytest.raises(StageError, match="there is nothing to measure.*test_fraction"):
        perform(
            Tuning,
            tmp_path / "scores",
            TuningConfig(num_questions=0),
            dialogues=(chats,),
            **inputs,
        )


def test_the_loss_of_answers_is_that_of_the_whole_row():
    import torch

    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer).eval()
    rows = render_answers(tokenizer, short_dialogues(3))
    nats, tokens = likelihood.answer_losses(model, rows)
    expected = 0.0
    for row in rows:
        ids = torch.tensor([row.ids])
        pairs = zip(row.ids, row.supervised, strict=True)
        labels = torch.tensor([[token if on else -100 for token, on in pairs]])
        count = sum(row.supervised)
        expected += float(model(input_ids=ids, labels=labels).loss) * count
    assert tokens == sum(sum(row.supervised) for row in rows)
    assert nats == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "answer, wanted, expected",
    [
        ("I am Ada.", "I am Ada.", 1),
        ("i am ada", "I am Ada!", 1),
        ("Near the river", "Far away", 0),
        ("I am Ada", "I am Bo", 2 / 3),
        ("", "I am Ada", 0),
        ("我叫爱达", "我叫艾达", 0.75),
    ],
)
def test_overlap_of_words(answer, wanted, expected):
    assert tuning.overlap(answer, wanted) == pytest.approx(expected)


def test_the_general_questions_are_well_formed():
    questions = tuning.general_questions()
    assert len(questions) >= 100
    assert len({question for _, question, _ in questions}) == len(questions)
    assert all(right and all(right) for _, _, right in questions)
    assert len(tuning.spread(questions, 10)) == 10
    assert len({group for group, _, _ in tuning.spread(questions, 20)}) == 4


def scored(tmp_path, max_length):
    before, after = saved_model(tmp_path / "before"), saved_model(tmp_path / "after")
    artifact, metrics = perform(
        Tuning,
        tmp_path / "scores",
        TuningConfig(num_questions=2, max_length=max_length, max_new_tokens=4, question_tokens=4),
        models=(before, after),
        dialogues=(dialogues_artifact(tmp_path / "chats"),),
    )
    return artifact, metrics


def test_a_loss_over_nothing_is_no_loss(tmp_path):
    with pytest.raises(StageError, match="all 3 dialogues are longer than max_length=2"):
        scored(tmp_path, 2)


def test_both_losses_are_over_the_dialogues_that_both_models_can_hold(tmp_path, monkeypatch):
    """A tokenizer that needs more tokens for one dialogue takes it from both models."""
    from llmstages.text import render

    original = render.render_answers
    calls = []

    def longer_for_the_second(tokenizer, dialogues):
        rows = original(tokenizer, dialogues)
        calls.append(len(rows))
        if len(calls) == 2:  # the second model, when lengths are looked at
            first = rows[0]
            rows[0] = type(first)(first.ids * 99, first.supervised * 99)
        return rows

    monkeypatch.setattr(render, "render_answers", longer_for_the_second)
    _, metrics = scored(tmp_path, 512)
    assert [metrics[f"held-out dialogues/all/{name}/n"] for name in ("before", "after")] == [2, 2]
    assert calls == [3, 3, 2, 2]
    assert any("1 of 3 dialogues left out of the loss of all models" in s for s in perform.said)
