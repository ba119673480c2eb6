"""Environments in rollouts: observations carry no loss and forge nothing, steps pay, errors count.

The policy is scripted where its words matter.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.plugins.rl.grpo import GRPO, GRPOConfig
from llmstages.plugins.rl.ppo import PPO, PPOConfig
from llmstages.plugins.rl.rejection import Rejection, RejectionConfig
from llmstages.plugins.rl.rloo import RLOO, RLOOConfig
from llmstages.plugins.rl.tool_rollouts import ToolRollouts
from llmstages.text import chat_format, generate
from llmstages.text.environments import open_episode, spec_text
from llmstages.text.messages import message
from llmstages.train import trainer as shared
from tests.plugins.rl.test_tool_rollouts import Script, parts, words
from tests.real_templates import end_of_turn, tokenizer_of
from tests.text.hostile import hostile_results
from tests.tiny import START, control_ids, perform, saved, saved_model, tiny_tokenizer

GUESS = f"{Path(__file__).parents[3] / 'examples' / 'guess_number.py'}:GuessNumber"
OPENING = "Guess a number from 1 to 9. Say the number alone."
REWARDS = {"environment": {"use": "environment"}}
OPTIONS = {
    "max_steps": 2,
    "batch_size": 8,
    "max_completion_length": 200,
    "beta": 0.0,
    "rewards": REWARDS,
    "log_every": 1,
}


def row(seed, use=GUESS, opening=OPENING, max_turns=4, **settings):
    return {
        "prompt": [message("user", opening)],
        "answer": "",
        "group": "guess",
        "meta": spec_text({"use": use, "settings": settings}, seed, max_turns),
    }


def secret(seed):
    """The number of an episode: the one that ends it."""
    for number in range(1, 10):
        episode = open_episode(row(seed))
        episode.after(str(number))
        if episode.done:
            return number
    raise AssertionError(seed)


def roll(script, rows, max_tokens=200, tools=None):
    script.sampled_problems = list(range(len(rows)))
    rollouts = ToolRollouts(
        tiny_tokenizer(), tools or {}, max_calls=2, max_tokens=max_tokens, problems=rows
    )
    return rollouts([one["prompt"] for one in rows], script)


def said(*texts):
    return [f"{text}<|im_end|>" for text in texts]


def test_an_observation_becomes_a_turn_of_the_user_without_loss():
    number = secret(5)
    wrong = 1 if number > 1 else 2
    script = Script(said(f" {wrong}"), said(" well"), said(f" {number}"))
    rolled = roll(script, [row(5)])
    own, observed = parts(rolled)
    assert own == f" {wrong}<|im_end|> well<|im_end|> {number}<|im_end|>"
    hint = "higher" if wrong < number else "lower"
    assert observed.count(f"It is {hint}.") == 1 and observed.count("That is no number.") == 1
    assert rolled["said"] == [str(number)] and rolled["earned"] == [pytest.approx(1.02)]
    assert "calls" not in rolled
    assert script.logged == {
        "environment/failures": 0.0,
        "environment/turns": 3.0,
        "environment/done": 1.0,
    }
    # The policy reads the dialogue as the template writes it.
    turns = [
        message("user", OPENING),
        message("assistant", str(wrong)),
        message("user", f"It is {hint}."),
    ]
    assert [script.asked[1][0]] == chat_format.prompt_ids(tiny_tokenizer(), [turns])


def test_budgets_of_turns_and_of_tokens():
    script = Script(*[said("no")] * 3)
    rolled = roll(script, [row(5, max_turns=3)])
    assert len(script.asked) == 3 and rolled["earned"] == [0.0]
    assert script.logged["environment/done"] == 0.0
    short = Script(said("no"), said("no"))
    rolled = roll(short, [row(5)], max_tokens=10)
    assert len(short.asked) == 1 and parts(rolled) == ("no<|im_end|>", "")
    cut = Script(["a b c d e f g h"])
    rolled = roll(cut, [row(5)], max_tokens=5)
    assert rolled["earned"] == [0.0] and cut.logged["environment/turns"] == 0.0


def test_problems_with_and_without_an_environment_and_with_tools():
    call = "<CALC_START>4+5<CALC_END>"
    number = secret(5)
    rows = [row(5), {"prompt": [message("user", "hi")], "meta": "{}"}]
    script = Script([call, *said("ho")], said(number))
    rolled = roll(script, rows, tools={"calculator": lambda text: "9"})
    assert rolled["said"] == [str(number), "ho"]
    assert rolled["earned"] == [1.0, None] and rolled["calls"] == [1, 0]


def environment(tmp_path, body, name="odd"):
    """The name of an environment whose step has this body."""
    file = tmp_path / f"{name}.py"
    file.write_text(
        f"class Odd:\n    def reset(self, seed): return 'go'\n    def step(self, action): {body}\n"
    )
    return f"{file}:Odd"


@pytest.mark.parametrize("number", range(0, 100, 3))
def test_no_observation_forges_a_turn(tmp_path, number):
    forged = hostile_results(sorted(control_ids(tiny_tokenizer())))[number]
    odd = environment(tmp_path, f"return {forged!r}")
    script = Script(said("a"), said("b"))
    rolled = roll(script, [row(1, odd, "go", max_turns=2)], max_tokens=9000)
    pairs = zip(rolled["completion_ids"][0], rolled["env_mask"][0], strict=True)
    known = control_ids(tiny_tokenizer())
    found = [id for id, own in pairs if not own and id in known.values()]
    assert found.count(known[START]) == 2  # a turn of the user, and the next of the assistant


def test_failures_are_counted_and_too_many_stop(tmp_path):
    odd = environment(tmp_path, "return 1 / int(action)", "fails")
    good = environment(tmp_path, "return ('ok', 1.0, True, False, {})", "works")
    rows = [row(1, odd, "go"), *[row(1, good, "go")] * 5]
    script = Script(said(*"000000"))
    rolled = roll(script, rows)
    assert rolled["earned"] == [None, *[1.0] * 5]
    assert script.logged["environment/failures"] == pytest.approx(1 / 6)
    with pytest.raises(StageError, match="failed in 1 of 2 episodes.*ZeroDivisionError"):
        roll(Script(said(*"00")), rows[:2])


@pytest.mark.parametrize("name", ["llama3_training", "smollm2"])
def test_models_of_others_act_in_their_own_template(name):
    tokenizer = tokenizer_of(name)

    class Native(Script):
        def __init__(self, *texts):
            super().__init__()
            ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            self.rounds = [[[*one, end_of_turn(name)]] for one in ids]

    script = Native("well", "I say 3")
    script.sampled_problems = [0]
    rows = [row(5, max_turns=2)]
    rollouts = ToolRollouts(tokenizer, {}, max_calls=0, max_tokens=400, problems=rows)
    rolled = rollouts([rows[0]["prompt"]], script)
    pairs = list(zip(rolled["completion_ids"][0], rolled["env_mask"][0], strict=True))
    assert "That is no number." in tokenizer.decode([id for id, own in pairs if not own])
    turns = [
        *rows[0]["prompt"],
        message("assistant", "well"),
        message("user", "That is no number."),
    ]
    assert [script.asked[1][0]] == chat_format.prompt_ids(tokenizer, [turns])


@pytest.fixture
def inputs(tmp_path):
    policy = saved_model(tmp_path / "policy")
    config = json.loads((policy.path / "config.json").read_text())
    config["max_position_embeddings"] = 512  # a dialogue of four turns is long in bytes
    (policy.path / "config.json").write_text(json.dumps(config))
    return {
        "policy": policy,
        "problems": saved(tmp_path / "problems", "problems", [row(seed) for seed in range(16)]),
        "reward": None,
        "tools": None,
    }


def halving(text):
    """A guess in the middle of what the hints of a dialogue leave."""
    low, high = 1, 9
    for guess, hint in re.findall(r"(\d)<\|im_end\|>.*?It is (higher|lower)\.", text, re.DOTALL):
        if hint == "higher":
            low = int(guess) + 1
        else:
            high = int(guess) - 1
    return (low + high) // 2


def halving_policy(stage):
    """A variant whose policy halves the range that is left."""

    class Halving(stage):
        seen = []

        def trainer_class(self):
            class Trainer(super().trainer_class()):
                def sample(self, prompt_ids):
                    texts = [self.processing_class.decode(ids) for ids in prompt_ids]
                    return [words(f"{halving(text)}<|im_end|>") for text in texts]

                def _compute_loss(self, model, batch):
                    Halving.seen.append({name: value.clone() for name, value in batch.items()})
                    return super()._compute_loss(model, batch)

            return Trainer

    return Halving


@pytest.mark.parametrize("name", ["grpo", "ppo", "rloo"])
def test_each_rollout_acts_in_the_environment_of_its_problem(tmp_path, inputs, name):
    """A policy that halves finds every one of nine numbers within four guesses."""
    stage, config = {
        "grpo": (GRPO, GRPOConfig(**OPTIONS, num_generations=4)),
        "ppo": (PPO, PPOConfig(**OPTIONS)),
        "rloo": (RLOO, RLOOConfig(**OPTIONS, num_generations=4)),
    }[name]
    variant = halving_policy(stage)
    made, metrics = perform(variant, tmp_path / "rl", config, **inputs)
    assert 1.0 <= metrics["environment_first"] < 1.07
    assert 1.0 <= metrics["environment_turns_last"] <= 4.0
    assert metrics["environment_failures_last"] == 0.0
    rollouts = [json.loads(line) for line in (made.path / "rollouts.jsonl").open()]
    assert all("It is" in one["answer"] or one["reward"] == 1.0 for one in rollouts)
    for batch in variant.seen:
        outside = (batch["tool_mask"] == 0) & (batch["completion_mask"] == 1)
        if name == "ppo":
            assert not batch["advantages"][outside].any()


def test_a_variant_of_single_answers_says_so(tmp_path, inputs):
    class Single(GRPO):
        inputs = {"policy": "model", "problems": "problems"}

    problems = list(tables.load(inputs["problems"].path / "data"))
    context = Context("rl", tmp_path, tmp_path, inputs)
    with pytest.raises(StageError, match="holds environments, and Single samples single answers"):
        Single().rollouts(GRPOConfig(), context, None, problems)


def test_the_reward_needs_environments(tmp_path, inputs):
    rows = [{"prompt": [message("user", "hi")], "answer": "a"}] * 8
    inputs["problems"] = saved(tmp_path / "plain", "problems", rows)
    config = GRPOConfig(**OPTIONS, num_generations=4)
    with pytest.raises(StageError, match="these problems have none; take problems=environment"):
        perform(GRPO, tmp_path / "rl", config, **inputs)


def test_rejection_trains_what_the_policy_said_in_episodes_that_paid(tmp_path, inputs, monkeypatch):
    trained = []

    def scripted(model, tokenizer, prompts, **_):
        texts = [tokenizer.decode(ids) for ids in prompts]
        return [words(f"{halving(text)}<|im_end|>") for text in texts], [1.0] * len(texts)

    def recorded(config, ctx, model, tokenizer, rows, *args, **kwargs):
        trained.extend(rows)
        return make(config, ctx, model, tokenizer, rows, *args, **kwargs)

    make = shared.sft_trainer
    monkeypatch.setattr(generate, "generate", scripted)
    monkeypatch.setattr(shared, "sft_trainer", recorded)
    config = RejectionConfig(questions=16, num_generations=2, keep=1, rewards=REWARDS)
    _, metrics = perform(Rejection, tmp_path / "rl", config, **inputs)
    assert metrics["right"] == 1.0 and metrics["kept"] == 16
    text = "".join(
        tiny_tokenizer().decode([label for label in packed["labels"] if label != -100])
        for packed in trained
    )
    assert re.fullmatch(r"( \d<\|im_end\|>)+", text) and text.count("<|im_end|>") > 16


def test_a_random_policy_samples_and_trains(tmp_path, inputs):
    config = GRPOConfig(**{**OPTIONS, "max_steps": 1}, num_generations=4)
    _, metrics = perform(GRPO, tmp_path / "rl", config, **inputs)
    assert metrics["updates"] == 1 and "environment_turns_first" in metrics
