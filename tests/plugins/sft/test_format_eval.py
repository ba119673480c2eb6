"""The format of answers is measured while training, without changing what is trained."""

from __future__ import annotations

import json

from llmstages.plugins.sft.chat import ChatConfig
from llmstages.plugins.sft.format_eval import is_repetitive
from tests.plugins.sft.helpers import fine_tune, numbered_dialogues
from tests.tiny import perform, saved


def test_the_format_is_measured_while_training(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", numbered_dialogues(30))
    weights = []
    for number, options in enumerate(({}, {"format_eval_steps": 5, "format_eval_samples": 4})):
        config = ChatConfig(max_length=64, epochs=40.0, learning_rate=5e-3, **options)
        made, metrics = fine_tune(tmp_path / f"sft{number}", config, model, chats)
        weights.append((made.path / "model.safetensors").read_bytes())
    assert weights[0] == weights[1], "measuring changes nothing"
    log = [json.loads(line) for line in (made.path / "log.jsonl").read_text().splitlines()]
    shares = [entry for entry in log if "format/ended" in entry]
    last_step = int(metrics["updates"])
    expected_steps = sorted({0, *range(5, last_step + 1, 5), last_step})
    assert [entry["step"] for entry in shares] == expected_steps
    assert shares[0]["format/ended"] < 1.0
    assert shares[-1]["format/ended"] == metrics["format_ended"] == 1.0
    assert any("of 4 answers end their turn" in line for line in perform.said)


def test_an_answer_is_repetitive_where_three_words_return():
    assert is_repetitive("the cat sat " * 4)
    assert not is_repetitive("the cat sat " * 3)
    assert not is_repetitive("")
