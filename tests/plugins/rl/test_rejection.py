"""Rejection sampling keeps right answers as often as they were said, and trains on these alone."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from llmstages.data import tables
from llmstages.plugins.rl.rejection import Rejection, RejectionConfig
from llmstages.text import generate
from llmstages.text.messages import message
from tests.plugins.rl.test_grpo import RIGHT, ROWS
from tests.tiny import perform, saved, saved_model

# Of 20 right answers to each problem 18 are the same one; the guesses all differ.
COMMON = "that makes"


def said_for(row):
    right = row["answer"]
    texts = [f"{COMMON} {right}"] * 18 + [f"a guess {right}", f"another guess {right}"]
    return [*texts, "no idea", f"cut off {right}"]


@pytest.fixture
def sample(tmp_path, monkeypatch):
    replies = [
        generate.Reply([message("assistant", text)], not text.startswith("cut"))
        for row in ROWS
        for text in said_for(row)
    ]
    monkeypatch.setattr(generate, "reply", lambda *_, **__: replies)
    monkeypatch.setattr("random.Random.sample", sample_in_order)
    inputs = {
        "policy": saved_model(tmp_path / "policy"),
        "problems": saved(tmp_path / "problems", "problems", ROWS),
        "reward": None,
    }

    def run(**options):
        config = RejectionConfig(questions=len(ROWS), num_generations=22, rewards=RIGHT, **options)
        made, metrics = perform(Rejection, tmp_path / str(options), config, **inputs)
        return tables.read_lines(made.path / "kept.jsonl"), metrics

    return run


original = random.Random.sample


def sample_in_order(self, population, k, **options):
    """The problems stay in order, so that they fit the replies; answers are drawn."""
    if len(population) == len(ROWS) == k and isinstance(population[0], dict):
        return list(population)
    return original(self, population, k, **options)


def test_answers_are_kept_as_often_as_they_were_said(sample):
    kept, metrics = sample(keep=4)
    assert metrics["kept"] == 4 * len(ROWS)
    common = sum(COMMON in row["answer"] for row in kept)
    assert common / len(kept) == pytest.approx(18 / 20, abs=0.15)
    assert not any("cut off" in row["answer"] for row in kept), "it did not end"


def test_different_answers_alone_are_an_option_under_which_guesses_weigh_more(sample):
    kept, _ = sample(keep=4, distinct=True)
    assert len(kept) == 3 * len(ROWS)
    assert max(Counter((row["prompt"], row["answer"]) for row in kept).values()) == 1


def test_what_is_kept_is_no_matter_of_the_alphabet(sample):
    kept, _ = sample(keep=1, distinct=True)
    assert len({row["answer"].split()[0] for row in kept}) > 1


def test_earlier_answers_of_a_prompt_carry_no_loss(tmp_path, monkeypatch):
    from llmstages.train import trainer as shared

    earlier = [message("user", "Hello?"), message("assistant", "Good morning to you.")]
    rows = [{**row, "prompt": [*earlier, *row["prompt"]]} for row in ROWS]
    monkeypatch.setattr(
        generate,
        "reply",
        lambda model, tokenizer, prompts, *_, **__: [
            generate.Reply([message("assistant", "0 2 4 6 8 10 12 14")], True) for _ in prompts
        ],
    )
    monkeypatch.setattr(
        "llmstages.plugins.rl.attempts.total_rewards",
        lambda _, problems, texts: [1.0] * len(texts),
    )
    seen = []
    make = shared.sft_trainer

    def recorded(config, ctx, model, tokenizer, packed, *args, **kwargs):
        for row in packed:
            labels = [token for token in row["labels"] if token != -100]
            seen.append(tokenizer.decode(labels))
        return make(config, ctx, model, tokenizer, packed, *args, **kwargs)

    monkeypatch.setattr(shared, "sft_trainer", recorded)
    inputs = {
        "policy": saved_model(tmp_path / "policy"),
        "problems": saved(tmp_path / "problems", "problems", rows),
        "reward": None,
    }
    config = RejectionConfig(
        questions=8, num_generations=1, max_completion_length=20, rewards=RIGHT
    )
    perform(Rejection, tmp_path / "rl", config, **inputs)
    assert seen
    assert all("0 2 4 6" in text and "morning" not in text for text in seen)
