"""The presets of GRPO's losses: each trains, and each is another loss."""

from __future__ import annotations

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.pipeline.compose import compose
from llmstages.plugins.rl import policy
from llmstages.plugins.rl.grpo import GRPO, GRPOConfig
from tests.plugins.rl.test_variants import ROWS, NoThe
from tests.tiny import perform, saved, saved_model

PRESETS = ["grpo", "grpo_dr", "dapo", "gspo", "cispo"]


def config_of(preset, **options):
    chosen = compose(["recipe=smoke", f"rl={preset}"]).slots["rl"]
    keys = ("loss_type", "scale_rewards", "epsilon", "epsilon_high", "importance_sampling_level")
    values = {key: chosen[key] for key in keys}
    return GRPOConfig(**values, beta=0.0, truncated=chosen["truncated"], **options)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_trains(tmp_path, monkeypatch, preset):
    monkeypatch.setattr(policy, "open_rewards", lambda *_: {"rule": NoThe()})
    config = config_of(
        preset, max_steps=4, batch_size=8, num_generations=4, max_completion_length=8, log_every=1
    )
    inputs = {
        "policy": saved_model(tmp_path / "policy"),
        "problems": saved(tmp_path / "problems", "problems", ROWS),
        "reward": None,
    }
    _, metrics = perform(GRPO, tmp_path / "rl", config, **inputs)
    assert metrics["updates"] == 4


def test_each_preset_is_another_loss():
    arguments = {
        preset: (config.loss_type, config.scale_rewards, config.epsilon_high, config.truncated)
        for preset in PRESETS
        for config in [config_of(preset)]
    }
    assert len(set(arguments.values())) == len(PRESETS)


def test_weights_held_below_one_are_refused():
    with pytest.raises(StageError, match="set it above 1, for example epsilon_high=5"):
        build_config(GRPOConfig, {"loss_type": "cispo"}, "rl")
