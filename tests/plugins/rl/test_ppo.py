"""PPO on tiny models: the seam in TRL, a loss worked out by hand, learning, and what is saved."""

from __future__ import annotations

import inspect
import json

import pytest
import torch
from safetensors.torch import load_file

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.plugins.rl import policy
from llmstages.plugins.rl.ppo import PPO, PPOConfig
from llmstages.text.messages import message
from tests.tiny import perform, saved, saved_model
from tests.train import training_steps
from tests.train.test_resume import result, start

RIGHT = {"exact_answer": {"use": "exact_answer"}}
ROWS = [
    {"prompt": [message("user", f"{i}+{i}=?")], "answer": str(2 * i), "group": "all"}
    for i in range(16)
]
SMALL = {"batch_size": 8, "max_completion_length": 6, "rewards": RIGHT, "log_every": 1}


@pytest.fixture
def inputs(tmp_path):
    return {
        "policy": saved_model(tmp_path / "policy"),
        "problems": saved(tmp_path / "problems", "problems", ROWS),
        "reward": None,
    }


def seen_trainer(methods=None):
    """A variant of PPO whose trainer is kept in ``seen_trainer.it``, with other methods."""

    class Seen(PPO):
        def trainer_class(self):
            def note(trainer, *args, **kwargs):
                base.__init__(trainer, *args, **kwargs)
                seen_trainer.it = trainer

            base = super().trainer_class()
            return type("Trainer", (base,), {"__init__": note, **(methods or {})})

    return Seen


class Depends:
    """A reward whose expected value differs by prompt: short answers, and more for even sums."""

    class config:
        weight = 1.0

    def score(self, prompts, completions, rows):
        even = [int(answer) % 4 == 0 for answer in rows["answer"]]
        return [2.0 * more - len(text) / 10 for text, more in zip(completions, even, strict=True)]


@pytest.mark.parametrize("critic", ["model", "head"])
def test_ppo_climbs_its_reward_and_its_critic_foresees_it(tmp_path, inputs, monkeypatch, critic):
    monkeypatch.setattr(policy, "open_rewards", lambda *_: {"depends": Depends()})
    config = PPOConfig(
        max_steps=120 if critic == "head" else 60,
        batch_size=16,
        max_completion_length=10,
        learning_rate=3e-3,
        critic_learning_rate=3e-3,
        critic=critic,
        # On layers of the policy, which it has to move for this.
        vf_coef=2.0 if critic == "head" else 0.1,
        beta=0.0,
        truncated="none",
        rewards=RIGHT,
        log_every=1,
    )
    made, metrics = perform(PPO, tmp_path / "rl", config, **inputs)
    assert metrics["depends_last"] > metrics["depends_first"] + 0.3
    assert metrics["explained_variance_last"] > 0.5
    assert metrics["answers"] == 16 * config.max_steps / 2
    log = tables.read_lines(made.path / "log.jsonl")
    assert {"value_loss", "value", "explained_variance"} <= set().union(*log)


def test_what_is_saved_is_the_policy_alone(tmp_path, inputs):
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    made, _ = perform(PPO, tmp_path / "rl", PPOConfig(max_steps=2, **SMALL), **inputs)
    with safe_open(made.path / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
    with safe_open(inputs["policy"].path / "model.safetensors", "pt") as weights:
        assert names == set(weights.keys())
    AutoModelForCausalLM.from_pretrained(made.path)
    config = json.loads((made.path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]


def test_the_loss_of_a_case_worked_out_by_hand(tmp_path, inputs):
    """Two answers of five tokens; the second is token, text of a tool, token, token, padding."""
    perform(seen_trainer(), tmp_path / "rl", PPOConfig(max_steps=2, beta=0.3, **SMALL), **inputs)
    trainer = seen_trainer.it
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    tool_mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 1, 1]])
    own = mask * tool_mask
    advantages = torch.tensor([[1.0, -1.0, 0.5, 0.0, 2.0], [-1.0, 0.0, 1.0, 0.5, 0.0]])
    ratios = torch.tensor([[1.5, 0.5, 1.1, 1.0, 0.7], [1.3, 3.0, 1.0, 1.4, 2.0]])
    values = torch.tensor([[0.9, 0.5, 1.0, 1.0, 1.0], [0.0, 5.0, 0.0, 0.0, 5.0]])
    old_values = torch.tensor([[0.5, 0.5, 1.0, 0.0, 1.0], [0.0] * 5])
    returns = torch.tensor([[0.5875, 0.875, 0.75, 1.4, 1.8], [1.0, 9.0, 0.0, -1.0, 9.0]])
    prompt = torch.ones(2, 3, dtype=torch.long)

    def logps(*_, **__):
        padded = torch.cat([torch.full((2, 2), 99.0), values, torch.full((2, 1), 99.0)], dim=1)
        trainer.model.noted_values.append(padded)
        return ratios.log(), torch.zeros(2, 5), None

    trainer._get_per_token_logps_and_entropies = logps
    trainer.model.noted_values = None
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": prompt,
            "prompt_mask": prompt,
            "completion_ids": torch.ones(2, 5, dtype=torch.long),
            "completion_mask": mask,
            "tool_mask": tool_mask,
            "advantages": advantages,
            "old_per_token_logps": torch.zeros(2, 5),
            "old_values": old_values,
            "returns": returns,
            "value_mask": own.float(),
            "num_items_in_batch": torch.tensor(8.0),
        },
    )
    # The ratio counts between 0.8 and 1.2 where leaving that range would gain something:
    # 1.2, -0.8, 0.55, 0, 1.4; and -1.3, 1, 0.6. Their sum is 2.65.
    policy_loss = -2.65 / 8
    # 0.048828125, 0.0703125, 0.03125, 0.72, 0.32 as in test_advantages.py; 0.5, 0, 0.5.
    value_loss = 2.190390625 / 8
    assert loss.item() == pytest.approx(policy_loss + 0.1 * value_loss, abs=1e-6)


def test_the_seam_in_trl_is_as_we_take_it(tmp_path, inputs):
    """Shapes and names of what is sampled, and what becomes of advantages of single tokens."""
    outputs, calls, losses = [], [], []

    def generate(trainer, rows):
        output = base(trainer)._generate_and_score_completions(rows)
        outputs.append(dict(output))
        return output

    def rewards(trainer, *args):
        scores = base(trainer)._calculate_rewards(*args)
        calls.append(scores.shape)
        return scores

    def compute_loss(trainer, model, batch):
        assert batch["returns"].shape == batch["completion_ids"].shape
        # Shuffled with the others: a value of padding is not in the mask.
        assert torch.equal(batch["value_mask"], batch["completion_mask"].float())
        with torch.no_grad():
            plain = base(trainer)._compute_loss(model, batch)
            other = {**batch, "advantages": batch["advantages"] + batch["value_mask"]}
            losses.append((plain.item(), base(trainer)._compute_loss(model, other).item()))
        return base(trainer)._compute_loss(model, batch)

    def base(trainer):
        return super(type(trainer), trainer)

    methods = {
        "_generate_and_score_completions": generate,
        "_calculate_rewards": rewards,
        "_compute_loss": compute_loss,
    }
    config = PPOConfig(max_steps=4, micro_batch_size=4, beta=0.1, **SMALL)
    perform(seen_trainer(methods), tmp_path / "rl", config, **inputs)
    assert len(outputs) == len(calls) == 2  # two updates on each sampling
    assert set(calls) == {(8, 2)}  # the reward, and the penalty for truncated answers
    for output in outputs:
        tokens = output["completion_ids"].shape
        names = ("advantages", "returns", "old_values", "value_mask", "old_per_token_logps")
        assert all(output[name].shape == tokens for name in names)
        assert "ref_per_token_logps" not in output
    assert len(losses) == 8  # two micro batches in each of four updates
    assert all(one != other for one, other in losses)


def test_the_methods_of_trl_that_ppo_changes_are_there():
    from transformers import Trainer
    from trl import GRPOTrainer

    wanted = {
        "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
        "_generate_and_score_completions": ["self", "inputs"],
        "_compute_loss": ["self", "model", "inputs"],
    }
    for name, parameters in wanted.items():
        assert list(inspect.signature(getattr(GRPOTrainer, name)).parameters) == parameters
    assert "steps_per_generation" in inspect.getsource(GRPOTrainer._compute_loss)
    for name in ("_save", "_load_from_checkpoint", "_issue_warnings_after_load"):
        assert callable(getattr(Trainer, name))


def test_the_critic_has_its_own_learning_rate(tmp_path, inputs):
    config = PPOConfig(
        max_steps=2, learning_rate=1e-4, critic_learning_rate=3e-3, warmup_steps=0, **SMALL
    )
    perform(seen_trainer(), tmp_path / "rl", config, **inputs)
    trainer = seen_trainer.it
    rates = {group["initial_lr"] for group in trainer.optimizer.param_groups if group["params"]}
    assert rates == {1e-4, 3e-3}
    in_groups = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    policy_and_critic = len(list(trainer.critic.parameters())) + len(trainer.policy_parameters())
    assert in_groups == policy_and_critic


def test_an_update_that_would_be_half_used_is_refused():
    with pytest.raises(StageError, match="max_steps=5 must be a multiple of num_iterations=2"):
        build_config(PPOConfig, {"max_steps": 5}, "rl")
    with pytest.raises(StageError, match="batch_size must be 2 or more"):
        build_config(PPOConfig, {"batch_size": 1}, "rl")


def test_odd_batches_and_groups_are_fine(tmp_path, inputs):
    for number, options in enumerate(
        ({"batch_size": 5}, {"batch_size": 6, "num_generations": 3}, {"num_iterations": 1})
    ):
        config = PPOConfig(**{**SMALL, "max_steps": 2, **options})
        _, metrics = perform(PPO, tmp_path / str(number), config, **inputs)
        assert metrics["updates"] == 2


@pytest.mark.parametrize("kind", ["ppo-fixed", "ppo-fixed-head"])
def test_micro_batches_change_nothing(tmp_path, kind):
    """The losses are means over the tokens of an update, however it is cut."""
    from safetensors.torch import load

    inputs = training_steps.inputs_of(kind, tmp_path)
    trained = []
    for rows in (8, 2):
        folder = tmp_path / str(rows)
        files, _ = training_steps.perform(kind, folder, inputs, micro_batch_size=rows)
        trained.append(load(files["model.safetensors"]))
    before = load_file(inputs["policy"].path / "model.safetensors")
    one, two = trained
    for name, weight in one.items():
        moved = (weight - before[name]).norm()
        assert (weight - two[name]).norm() < 1e-4 * moved + 1e-7, name


@pytest.mark.parametrize("processes", [2])
def test_two_processes_train_what_one_trains(tmp_path, processes):
    for count in (1, processes):
        # Half as many rows at once, so that a micro batch of all processes is the same.
        result(start(count, "stop", "ppo-fixed", tmp_path / str(count)))
    weights, others = (
        load_file(tmp_path / str(count) / "straight" / "out" / "model.safetensors")
        for count in (1, processes)
    )
    for name, weight in weights.items():
        assert (weight - others[name]).abs().max().item() < 1e-5
