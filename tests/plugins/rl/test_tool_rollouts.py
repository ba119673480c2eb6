"""Tools in rollouts: results carry no loss and forge nothing, budgets hold, rewards see the answer.

The policy is scripted where its words matter; that it can be trained so is in the last tests.
"""

from __future__ import annotations

import dataclasses as dc
import json

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact
from llmstages.data import tables
from llmstages.plugins.rl import policy
from llmstages.plugins.rl.grpo import GRPO, GRPOConfig
from llmstages.plugins.rl.ppo import PPO, PPOConfig
from llmstages.plugins.rl.rejection import Rejection, RejectionConfig
from llmstages.plugins.rl.rloo import RLOO, RLOOConfig
from llmstages.plugins.rl.tool_rollouts import ToolRollouts
from llmstages.text import chat_format, generate
from llmstages.text.generate import with_schemas
from llmstages.text.messages import message
from llmstages.train import trainer as shared
from tests.real_templates import end_of_turn, tokenizer_of
from tests.text.hostile import hostile_results
from tests.tiny import control_ids, perform, saved, saved_model, tiny_tokenizer

ROWS = [
    {"prompt": [message("user", f"{i}+5=?")], "answer": str(i + 5), "group": "all"}
    for i in range(16)
]
OPTIONS = {
    "max_steps": 2,
    "batch_size": 8,
    "max_completion_length": 40,
    "beta": 0.0,
    "rewards": {"exact_answer": {"use": "exact_answer"}},
    "log_every": 1,
}


def words(text):
    """Ids of a text in which control tokens may stand."""
    return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]


class Script:
    """A trainer whose policy says what it is told: one list of texts for each round."""

    def __init__(self, *rounds):
        self.rounds = [[words(text) for text in texts] for texts in rounds]
        self.asked = []
        self.logged = {}

    def sample(self, prompts):
        self.asked.append(prompts)
        return self.rounds[len(self.asked) - 1][: len(prompts)]

    def _log_metric(self, name, value):
        self.logged[name] = value


def roll(script, tools, max_calls=2, max_tokens=60, prompts=None):
    prompts = prompts or [[message("user", "4+5=?")]] * len(script.rounds[0])
    return ToolRollouts(tiny_tokenizer(), tools, max_calls=max_calls, max_tokens=max_tokens)(
        prompts, script
    )


def parts(rolled, row=0):
    """(text of the policy, text of results) of a completion, control tokens shown."""
    pairs = list(zip(rolled["completion_ids"][row], rolled["env_mask"][row], strict=True))
    return tuple(
        tiny_tokenizer().decode([id for id, own in pairs if own == wanted]) for wanted in (1, 0)
    )


CALL = "<CALC_START>4+5<CALC_END>"


def test_a_result_is_put_in_and_carries_no_loss():
    script = Script([CALL], ["it is 9<|im_end|>"])
    rolled = roll(script, {"calculator": lambda text: "9"})
    own, results = parts(rolled)
    assert own == f"{CALL}it is 9<|im_end|>"
    assert results == "<RESULT_START> 9<RESULT_END>"
    assert rolled["said"] == ["it is 9"]
    assert script.asked[1][0] == rolled["prompt_ids"][0] + words(CALL) + words(results)
    assert script.logged == {"tools/calls": 1.0, "tools/failures": 0.0}


def test_those_that_call_nothing_are_done_after_the_first_round():
    script = Script(["9<|im_end|>", CALL], ["nine<|im_end|>"])
    rolled = roll(script, {"calculator": lambda text: "9"})
    assert [len(prompts) for prompts in script.asked] == [2, 1]
    assert rolled["said"] == ["9", "nine"]
    assert rolled["env_mask"][0] == [1] * len(rolled["completion_ids"][0])


def test_budgets_of_calls_and_of_tokens():
    script = Script(*[[CALL]] * 4)
    rolled = roll(script, {"calculator": lambda text: "9"}, max_calls=3, max_tokens=200)
    assert len(script.asked) == 4
    assert parts(rolled)[1] == "<RESULT_START> 9<RESULT_END>" * 3
    assert rolled["said"] == [""]  # it never came to an answer
    long = Script([CALL], ["no"])
    rolled = roll(long, {"calculator": lambda text: "9" * 500}, max_tokens=30)
    assert len(long.asked) == 1 and parts(rolled) == (CALL, "")
    cut = Script(["a b c d e f g h"])
    assert len(roll(cut, {}, max_tokens=5)["completion_ids"][0]) == 5


def test_tools_that_fail_or_are_not_there_are_counted():
    def broken(text):
        raise ValueError("no such page")

    script = Script([CALL, "<SEARCH_START>Bo<SEARCH_END>"], ["a<|im_end|>", "b<|im_end|>"])
    rolled = roll(script, {"calculator": broken})
    assert "error: no such page" in parts(rolled, 0)[1]
    assert "error: there is no tool search" in parts(rolled, 1)[1]
    assert script.logged == {"tools/calls": 1.0, "tools/failures": 1.0}


@pytest.mark.parametrize("number", range(100))
def test_no_result_forges_a_turn(number):
    controls = sorted(control_ids(tiny_tokenizer()))
    forged = hostile_results(controls)[number]
    script = Script([CALL], ["9<|im_end|>"])
    rolled = roll(script, {"calculator": lambda text: forged}, max_tokens=9000)
    pairs = zip(rolled["completion_ids"][0], rolled["env_mask"][0], strict=True)
    of_results = [id for id, own in pairs if not own]
    known = set(control_ids(tiny_tokenizer()).values())
    found = [tiny_tokenizer().decode([id]) for id in of_results if id in known]
    assert found == ["<RESULT_START>", "<RESULT_END>"]


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "tools"
    saved(folder, "dialogues", [{"messages": ROWS[0]["prompt"]}])
    (folder / "tools.json").write_text(json.dumps({"calculator": {"use": "calculator"}}))
    return {
        "policy": saved_model(tmp_path / "policy"),
        "problems": saved(tmp_path / "problems", "problems", ROWS),
        "reward": None,
        "tools": Artifact("tools", "dialogues", folder, "tools"),
    }


def calling(stage):
    """A variant whose policy calls the calculator first, then says what it was given."""

    class Calling(stage):
        def trainer_class(self):
            class Trainer(super().trainer_class()):
                def sample(self, prompts):
                    tokenizer = self.processing_class
                    texts = []
                    for ids in prompts:
                        text = tokenizer.decode(ids)
                        if "<RESULT_START>" in text:
                            result = text.split("<RESULT_START>")[1].split("<RESULT_END>")[0]
                            texts.append(f"{result}<|im_end|>")
                        else:
                            texts.append(f"<CALC_START>{text.split('=')[0].split()[-1]}<CALC_END>")
                    return [words(text) for text in texts]

                def _compute_loss(self, model, batch):
                    seen.append({name: value.clone() for name, value in batch.items()})
                    return super()._compute_loss(model, batch)

            return Trainer

    seen = []
    Calling.seen = seen
    return Calling


VARIANTS = {
    "grpo": (GRPO, GRPOConfig(**OPTIONS, num_generations=4)),
    "rloo": (RLOO, RLOOConfig(**OPTIONS, num_generations=4)),
    "ppo": (PPO, PPOConfig(**OPTIONS)),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_reward_sees_the_answer_after_the_result(tmp_path, inputs, name):
    stage, config = VARIANTS[name]
    variant = calling(stage)
    _, metrics = perform(variant, tmp_path / "rl", config, **inputs)
    assert metrics["exact_answer_first"] == 1.0
    assert metrics["tool_calls_last"] == 1.0
    for batch in variant.seen:
        outside = (batch["tool_mask"] == 0) & (batch["completion_mask"] == 1)
        assert outside.any(dim=1).all()
        if name == "ppo":
            assert not batch["advantages"][outside].any()
            assert not batch["value_mask"][outside].any()


def test_calls_have_a_price(tmp_path, inputs):
    rewards = {**OPTIONS["rewards"], "price": {"use": "tool_calls", "weight": -0.25}}
    config = GRPOConfig(**{**OPTIONS, "rewards": rewards}, num_generations=4)
    _, metrics = perform(calling(GRPO), tmp_path / "rl", config, **inputs)
    assert metrics["price_first"] == 1.0 and metrics["reward_first"] == pytest.approx(0.75)
    with pytest.raises(StageError, match="this policy has no tools; wire steps.rl.tools=tools"):
        perform(GRPO, tmp_path / "none", config, **{**inputs, "tools": None})


def test_rejection_trains_calls_and_answers_and_no_results(tmp_path, inputs, monkeypatch):
    """Its policy calls the calculator, then says what it was given."""
    seen = []

    def scripted(model, tokenizer, prompts, **_):
        texts = []
        for ids in prompts:
            text = tokenizer.decode(ids)
            results = text.split("<RESULT_START>")[1:]
            sums = text.split("=")[0].split()[-1]
            said = results[0].split("<RESULT_END>")[0] + "<|im_end|>" if results else ""
            texts.append(said or f"<CALC_START>{sums}<CALC_END>")
        return [words(text) for text in texts], [1.0] * len(texts)

    def recorded(config, ctx, model, tokenizer, rows, *args, **kwargs):
        seen.extend(rows)
        return make(config, ctx, model, tokenizer, rows, *args, **kwargs)

    make = shared.sft_trainer
    monkeypatch.setattr(generate, "generate", scripted)
    monkeypatch.setattr(shared, "sft_trainer", recorded)
    rewards = {**OPTIONS["rewards"], "price": {"use": "tool_calls", "weight": -0.005}}
    config = RejectionConfig(questions=16, num_generations=2, keep=1, rewards=rewards)
    made, metrics = perform(Rejection, tmp_path / "rl", config, **inputs)
    assert metrics["right"] == metrics["tool_calls"] == 1.0 and metrics["kept"] == 16
    assert {row["answer"] for row in tables.read_lines(made.path / "kept.jsonl")} == {
        str(number + 5) for number in range(16)
    }
    trained = "".join(
        tiny_tokenizer().decode([label for label in row["labels"] if label != -100]) for row in seen
    )
    assert trained.count("<CALC_START>") == 16 and "<RESULT_START>" not in trained
    assert trained.count("<|im_end|>") == 16


class Calls:
    """Pays for a call, so that a policy learns to make one."""

    class config:
        weight = 1.0

    def score(self, prompts, completions, rows):
        return [float("9" in completion) for completion in completions]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_random_policy_samples_with_tools_and_trains(tmp_path, inputs, monkeypatch, name):
    monkeypatch.setattr(policy, "open_rewards", lambda *_: {"calls": Calls()})
    stage, config = VARIANTS[name]
    _, metrics = perform(stage, tmp_path / "rl", dc.replace(config, max_steps=4), **inputs)
    assert metrics["updates"] == 4 and "tool_calls_first" in metrics


def test_the_prompt_of_a_rollout_is_that_of_evaluation():
    script = Script(["9<|im_end|>"])
    prompt = [message("user", "4+5=?")]
    rolled = roll(script, {"calculator": lambda text: "9"}, prompts=[prompt])
    assert rolled["prompt_ids"] == chat_format.prompt_ids(tiny_tokenizer(), [prompt])


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3_training", "llama3_training", "smollm2"])
def test_models_of_others_call_in_their_own_syntax(name):
    """A call as JSON in tags; the result comes as a turn of its own, then the assistant's again."""
    tokenizer = tokenizer_of(name)
    call = '<tool_call>\n{"name": "calculator", "arguments": {"input": "4+5"}}\n</tool_call>'

    class Native(Script):
        def __init__(self, *texts):
            super().__init__()
            ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            self.rounds = [[[*one, end_of_turn(name)]] for one in ids]

    script = Native(call, "it is 9")
    prompt = [message("user", "4+5=?")]
    rollouts = ToolRollouts(
        tokenizer,
        {"calculator": lambda text: f"{text} is nine"},
        max_calls=2,
        max_tokens=400,
    )
    rolled = rollouts([prompt], script)
    pairs = list(zip(rolled["completion_ids"][0], rolled["env_mask"][0], strict=True))
    results = tokenizer.decode([id for id, own in pairs if not own])
    assert "4+5 is nine" in results
    assert rolled["said"] == ["it is 9"]
    # What the policy reads is the dialogue as the template writes it.
    calls = message("assistant", '{"input": "4+5"}', "calculator")
    turns = [*prompt, calls, message("tool", "4+5 is nine", "calculator")]
    (whole,) = chat_format.prompt_ids(tokenizer, [with_schemas(tokenizer, turns, rollouts.tools)])
    assert tokenizer.decode(script.asked[1][0]).endswith(tokenizer.decode(whole)[-40:])
