"""The evaluator environment: what it earns is counted with its interval, what fails apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmstages.core.errors import StageError
from llmstages.core.registry import load_component
from llmstages.text import generate
from llmstages.text.environments import spec_text
from llmstages.text.messages import message
from tests.tiny import tiny_tokenizer

GUESS = f"{Path(__file__).parents[3] / 'examples' / 'guess_number.py'}:GuessNumber"
OPENING = "Guess a number from 1 to 9. Say the number alone."


def question(seed, use=GUESS, opening=OPENING):
    return {
        "prompt": [message("user", opening)],
        "answer": "",
        "task": "environment",
        "group": "guess",
        "role": "test",
        "style": "chat",
        "meta": spec_text({"use": use}, seed, 4),
    }


def scored(monkeypatch, questions, say, **options):
    """Scores of a model that says this text in each turn."""

    def scripted(model, tokenizer, prompts, **_):
        ids = tokenizer(f"{say}<|im_end|>", add_special_tokens=False)["input_ids"]
        return [list(ids) for _ in prompts], [1.0] * len(prompts)

    monkeypatch.setattr(generate, "generate", scripted)
    evaluator = load_component("evaluators", {"use": "environment", **options})
    return evaluator.score(None, tiny_tokenizer(), questions, None, lambda count: None)


def test_one_number_is_right_as_often_as_it_is_the_secret(monkeypatch):
    questions = [question(seed) for seed in range(60)]
    shares = []
    for number in range(1, 10):
        scores, answers, facts = scored(monkeypatch, questions, number)
        metrics = scores["environment"]["guess"]
        assert metrics["n"] == 60 and metrics["failed"] == 0.0 and facts == {}
        assert metrics["solved_low"] < metrics["solved"] < metrics["solved_high"]
        assert metrics["reward_low"] < metrics["reward"] < metrics["reward_high"]
        # Four guesses, of which each pays a little, or the first is right.
        wrong = 1 - metrics["solved"]
        assert metrics["turns"] == pytest.approx(metrics["solved"] + 4 * wrong)
        assert metrics["reward"] == pytest.approx(metrics["solved"] + 4 * 0.02 * wrong)
        assert sum(row["right"] for row in answers) == round(60 * metrics["solved"])
        shares.append(metrics["solved"])
    assert sum(shares) == pytest.approx(1.0)
    assert "It is" in next(row["answer"] for row in answers if not row["right"])


def test_solved_is_what_earns_enough(monkeypatch):
    scores, _, _ = scored(monkeypatch, [question(1), question(2)], "hm", solved_from=0.0)
    assert scores["environment"]["guess"]["solved"] == 1.0


def test_failures_and_other_questions(monkeypatch, tmp_path):
    file = tmp_path / "odd.py"
    file.write_text(
        "class Odd:\n    def reset(self, seed): return 'go'\n"
        "    def step(self, action): return 1 / 0\n"
    )
    plain = {**question(1), "meta": "{}"}
    odd = question(1, f"{file}:Odd", "go")
    scores, answers, _ = scored(
        monkeypatch, [plain, odd, *[question(seed) for seed in range(9)]], "hm"
    )
    metrics = scores["environment"]["guess"]
    assert metrics["failed"] == pytest.approx(0.1) and metrics["n"] == 9 and len(answers) == 10
    with pytest.raises(StageError, match="failed in 1 of 1 episodes"):
        scored(monkeypatch, [odd], "hm")
    with pytest.raises(StageError, match="no question has an environment"):
        scored(monkeypatch, [plain], "hm")


def test_one_episode_has_no_interval_of_its_reward(monkeypatch):
    scores, _, _ = scored(monkeypatch, [question(1)], "hm")
    assert "reward_low" not in scores["environment"]["guess"]
