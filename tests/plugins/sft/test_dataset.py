"""Dialogues are held out with their copies, and can be drawn anew in every pass."""

from __future__ import annotations

import json

import pytest

from llmstages.core.errors import StageError
from llmstages.plugins.sft.chat import ChatConfig
from tests.plugins.sft.helpers import fine_tune, numbered_dialogues, prepare
from tests.tiny import perform, saved


def distinct_ids(rows):
    return {tuple(row.ids) for row in rows}


def test_held_out_dialogues_are_not_trained_on(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", numbered_dialogues(30))
    config = ChatConfig(max_length=64, epochs=3.0, num_test=6, format_eval_steps=4)
    prepared = prepare(tmp_path, config, model, chats)
    assert len(prepared.rows) == 24
    assert len(prepared.held_out) == len(prepared.format_dialogues) == 6
    assert prepared.facts["held out"] == 6
    assert not distinct_ids(prepared.held_out) & distinct_ids(prepared.rows)
    made, _ = fine_tune(tmp_path / "sft", config, model, chats)
    log = [json.loads(line) for line in (made.path / "log.jsonl").read_text().splitlines()]
    assert any("eval_loss" in entry for entry in log)


def test_a_dialogue_that_is_drawn_in_every_pass_is_held_out_once(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", numbered_dialogues(30))
    config = ChatConfig(max_length=64, epochs=3.0, num_test=20, resample_each_epoch=True)
    prepared = prepare(tmp_path, config, model, chats)
    assert len(prepared.held_out) == len(distinct_ids(prepared.held_out)) == 20
    assert len(prepared.rows) == 30


def test_something_must_be_left_to_train_on(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", numbered_dialogues(30))
    with pytest.raises(StageError, match="num_test=30 leaves none of 30"):
        fine_tune(tmp_path / "none", ChatConfig(max_length=64, num_test=30), model, chats)


def test_a_share_can_be_drawn_anew_in_every_pass(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", numbered_dialogues(40))
    names, updates = {}, {}
    for resample in (False, True):
        config = ChatConfig(
            max_length=64,
            epochs=4.0,
            mixture_weights={"chats": 0.5},
            resample_each_epoch=resample,
        )
        names[resample] = prepare(tmp_path, config, model, chats).names
        _, metrics = fine_tune(tmp_path / f"sft{resample}", config, model, chats)
        updates[resample] = metrics["updates"]
    assert len(set(names[False])) == len(names[False]) == 20
    assert len(names[True]) == 80
    assert len(set(names[True])) > 30
    # Each of the four passes ends with an update of its own; drawn anew they are one table.
    assert 0 <= updates[False] - updates[True] <= 4


def test_a_template_that_only_transformers_reads_is_named(tmp_path, model, chats):
    template = (
        "{{ bos_token }}{% for m in messages %}{% if not m.content %}{% continue %}{% endif %}"
        "<|im_start|>{{ m.role }}<|im_sep|>{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>"
        "{% endif %}"
    )
    file = tmp_path / "mine.jinja"
    file.write_text(template)
    config = ChatConfig(max_length=64, template_file=str(file))
    fine_tune(tmp_path / "sft", config, model, chats)
    assert any("plain Jinja cannot (Encountered unknown tag 'continue'" in s for s in perform.said)
    fine_tune(tmp_path / "plain", ChatConfig(max_length=64), model, chats)
    assert not any("Jinja" in line for line in perform.said)
