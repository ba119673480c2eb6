"""The engine of RL: it changes how fast answers come and are scored, not what is learned."""

from __future__ import annotations

import dataclasses as dc

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.plugins.rl import policy
from llmstages.plugins.rl.engine import trainer_with_engine
from llmstages.plugins.rl.grpo import GRPO, GRPOConfig
from llmstages.plugins.rl.ppo import PPO, PPOConfig
from llmstages.plugins.rl.rloo import RLOO, RLOOConfig
from tests.plugins.rl.test_variants import ROWS
from tests.tiny import perform, saved, saved_model

OPTIONS = {
    "max_steps": 4,
    "batch_size": 16,
    "max_completion_length": 8,
    "learning_rate": 1e-3,
    "rewards": {"exact_answer": {"use": "exact_answer"}},
    "log_every": 1,
}
VARIANTS = {
    "grpo": (GRPO, GRPOConfig(**OPTIONS)),
    "grpo in micro batches": (GRPO, GRPOConfig(**OPTIONS, micro_batch_size=4)),
    "grpo lora": (GRPO, GRPOConfig(**OPTIONS, lora_r=4)),
    "rloo": (RLOO, RLOOConfig(**OPTIONS)),
    "ppo": (PPO, PPOConfig(**OPTIONS)),
    "ppo head": (PPO, PPOConfig(**OPTIONS, critic="head")),
    "ppo lora": (PPO, PPOConfig(**OPTIONS, lora_r=4)),
}


class Vowels:
    class config:
        weight = 1.0

    def score(self, prompts, completions, rows):
        return [sum(map(text.count, "aeiou")) / 3 + len(text) / 7 for text in completions]


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.setattr(policy, "open_rewards", lambda *_: {"vowels": Vowels()})
    return {
        "policy": saved_model(tmp_path / "policy"),
        "problems": saved(tmp_path / "problems", "problems", ROWS),
        "reward": None,
    }


def with_parts(stage, decodes, shares, used):
    """A variant whose engine uses only some of its parts; ``used`` gets what it had by itself."""

    class Some(stage):
        def trainer_class(self):
            def choose(trainer):
                base.use_fast_engine(trainer)
                used.append((trainer.decodes, trainer.shares))
                trainer.decodes, trainer.shares = decodes, shares

            base = super().trainer_class()
            return type("Trainer", (base,), {"use_fast_engine": choose})

    return Some


def log_of(made):
    names = ("loss", "reward", "kl", "entropy", "grad_norm", "value_loss", "explained_variance")
    rows = tables.read_lines(made.path / "log.jsonl")
    return [{name: row[name] for name in names if name in row} for row in rows if "loss" in row]


@pytest.mark.parametrize("name", VARIANTS)
def test_shared_prompts_train_what_whole_rows_train(tmp_path, inputs, name):
    stage, config = VARIANTS[name]
    used = []
    shared = with_parts(stage, False, True, used)
    one, _ = perform(shared, tmp_path / "shared", config, **inputs)
    other, _ = perform(stage, tmp_path / "trl", dc.replace(config, engine="trl"), **inputs)
    assert used == [(True, True)]
    rows, expected = log_of(one), log_of(other)
    assert len(rows) == 4 and {"loss", "reward", "entropy"} <= set(rows[0])
    for row, wanted in zip(rows, expected, strict=True):
        assert row == pytest.approx(wanted, rel=2e-3, abs=2e-4)


def test_the_decode_loop_samples_what_the_policy_says(tmp_path, inputs):
    """Probabilities at sampling are those of training, so that nothing is clipped at first."""
    config = PPOConfig(**{**OPTIONS, "learning_rate": 1e-6}, num_iterations=2)
    made, _ = perform(PPO, tmp_path / "rl", config, **inputs)
    rows = tables.read_lines(made.path / "log.jsonl")
    name = "clip_ratio/region_mean"
    assert [row[name] for row in rows if name in row] == [0.0] * 4


def test_what_the_engine_overrides_is_there():
    from trl import GRPOTrainer, RLOOTrainer

    for base in (GRPOTrainer, RLOOTrainer):
        for method in ("_generate_single_turn", "_get_per_token_logps_and_entropies"):
            assert method in vars(base), f"TRL has no {method} in {base.__name__}"
        assert issubclass(trainer_with_engine(base), base)


def test_an_engine_that_is_not_installed_is_named_before_the_model_is_loaded(tmp_path, inputs):
    import importlib.util

    if importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is installed")
    inputs["policy"] = dc.replace(inputs["policy"], path=tmp_path / "nowhere")
    with pytest.raises(StageError, match=r"engine=vllm needs .*pip install.*rl.engine=hf"):
        perform(GRPO, tmp_path / "rl", GRPOConfig(**OPTIONS, engine="vllm"), **inputs)
