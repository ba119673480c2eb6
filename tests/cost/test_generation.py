"""Estimates of steps that let models write: evaluation, probing and RL."""

from __future__ import annotations

import dataclasses as dc

import pytest

from llmstages.cost import plan as cost_plan
from llmstages.cost.generation import (
    LAYER_SECONDS,
    PROMPT_TOKENS,
    Generation,
    models_of,
    row_count,
)
from llmstages.cost.model import Model, Training
from llmstages.launch.hardware import Hardware
from llmstages.plugins.evaluate.tasks import Tasks, TasksConfig
from llmstages.plugins.knowledge.probe import Probe, ProbeConfig
from llmstages.plugins.rl.grpo import GRPO, GRPOConfig
from llmstages.plugins.rl.rejection import Rejection, RejectionConfig

SMOLLM2 = Model("llama", 49152, 576, 30, 9, 1536, num_key_value_heads=3)
CARD = dc.replace(
    Hardware(), accelerator="x", count=1, memory_gb=80, fp32_tflops=10, mfu=0.5, price=2.0
)


def known(**inputs):
    """The facts about inputs as a stage gets them."""
    return {name: list(facts) for name, facts in inputs.items()}


MODEL = {"name": "sft", "model": SMOLLM2}


def test_a_forward_pass_is_two_flops_for_each_weight_and_token():
    work = Generation((SMOLLM2,), 100, 36)
    tokens = 100 * (36 + PROMPT_TOKENS)
    assert work.tokens() == 3600
    assert work.flops() == pytest.approx(2 * SMOLLM2.multiplied() * tokens, rel=0.03)
    assert work.flops() > 2 * SMOLLM2.multiplied() * tokens, "and attention"
    assert Generation((SMOLLM2, SMOLLM2), 100, 36).flops() == 2 * work.flops()


def test_each_step_of_each_layer_takes_its_time_however_small():
    tiny = dc.replace(
        SMOLLM2, vocab=256, hidden=32, heads=2, num_key_value_heads=2, intermediate=64
    )
    work = Generation((tiny,), 128, 10, batch=64)
    assert work.seconds(1e15) == pytest.approx(2 * 10 * 30 * LAYER_SECONDS, rel=0.01)
    assert work.seconds(1e15, processes=2) == pytest.approx(work.seconds(1e15) / 2, rel=0.01)
    large = Generation((SMOLLM2,), 128, 10, batch=64)
    assert large.seconds(1e10) == pytest.approx(large.flops() / 1e10, rel=0.01)


def test_memory_is_cache_and_scores_of_a_batch():
    work = Generation((SMOLLM2,), 1000, 64, batch=64)
    cache = 2 * 30 * 3 * 64 * (64 + PROMPT_TOKENS) * 4
    assert work.cache_bytes() == 64 * (cache + 20 * 49152)
    assert work.weight_bytes() == 4 * SMOLLM2.parameters() == pytest.approx(538e6, rel=0.01)


def test_rows_and_models_that_are_not_made_yet():
    assert row_count({"name": "a", "problems": 7}) == 7
    assert row_count({"name": "a", "examples": 5, "questions": 9}) == 5
    assert row_count({"name": "a"}) is None
    assert models_of([MODEL]) == (SMOLLM2,)
    assert models_of([MODEL, {"name": "dpo"}]) == (
        "the sizes of the models are known once dpo is made"
    )


def test_evaluation_asks_every_model_every_question():
    config = TasksConfig(evaluators={"a": {"use": "answers", "max_new_tokens": 32, "batch": 16}})
    facts = Tasks().estimate(config, known(models=[MODEL, MODEL], questions=[{"questions": 500}]))
    work = facts["generation"]
    assert (work.tokens(), work.batch) == (2 * 500 * 32, 16)
    facts = Tasks().estimate(config, known(models=[MODEL], questions=[{"name": "asked"}]))
    assert facts["no_estimate"] == "the number of questions is known once asked is made"
    facts = Tasks().estimate(config, known(models=[{"name": "new"}], questions=[{}]))
    assert "known once new is made" in facts["no_estimate"]


@pytest.mark.parametrize(("questions", "expected"), [(100, 100), (5000, 2000), (None, 2000)])
def test_probing_is_limited(questions, expected):
    source = {"name": "q", "questions": questions}
    facts = Probe().estimate(ProbeConfig(), known(model=[MODEL], questions=[source]))
    assert facts["generation"].prompts == 5 * expected


def test_rejection_samples_every_problem_and_makes_the_same_sizes():
    facts = Rejection().estimate(
        RejectionConfig(), known(policy=[MODEL], problems=[{"name": "p", "problems": 50}])
    )
    assert facts["generation"].prompts == 50 * 15 and facts["model"] == SMOLLM2


@pytest.mark.parametrize(("changes", "kept"), [({}, 1), ({"beta": 0.0}, 0), ({"lora_r": 8}, 0)])
def test_grpo_samples_and_trains_and_may_keep_a_reference(changes, kept):
    config = dc.replace(GRPOConfig(), **changes)
    facts = GRPO().estimate(config, known(policy=[MODEL], problems=[{"name": "p"}]))
    training, work = facts["training"], facts["generation"]
    assert isinstance(training, Training) and training.updates() == config.max_steps
    assert work.prompts == config.max_steps * config.batch_size
    assert work.kept_bytes == kept * 4 * SMOLLM2.parameters()


def test_time_and_money_of_both_parts_add_up():
    facts = GRPO().estimate(GRPOConfig(), known(policy=[MODEL], problems=[{"name": "p"}]))
    alone = cost_plan.estimate_training(facts["training"], CARD)
    both = cost_plan.add_generation(alone, facts["generation"], CARD)
    hours = facts["generation"].seconds(5e12) / 3600
    assert both["generation"]["hours"] == pytest.approx(hours)
    assert both["hours"] == pytest.approx(alone["hours"] + hours)
    assert both["cost"] == pytest.approx(2 * both["hours"])
    assert both["memory"]["peak"] > alone["memory"]["peak"]
    lines = list(cost_plan.describe(both))
    # The line of the training tells the time of the training alone.
    assert cost_plan.format_hours(alone["hours"]) in lines[1]
    assert f"generation: at most {cost_plan.format_count(24 * 64 * 64)} tokens in" in lines[2]
    total = next(cost_plan.describe_total({"rl": both}, CARD, cost_plan.Launch()))
    assert total.startswith(f"training and generation: {cost_plan.format_hours(both['hours'])}")


def test_a_step_that_only_writes_is_described():
    work = Generation((SMOLLM2,), 1000, 64, because="1,000 questions")
    estimate = cost_plan.add_generation({}, work, CARD)
    lines = list(cost_plan.describe(estimate))
    assert lines[0].startswith("generation: at most 64 k tokens in 1 k replies of up to 64 (1,000")
    assert lines[1].startswith("memory: peak ") and "weights 538 MB" in lines[1]
    eight = cost_plan.add_generation({}, work, dc.replace(CARD, count=8))
    assert eight["hours"] == pytest.approx(estimate["hours"]), "only training is spread over cards"
    assert eight["cost"] == pytest.approx(8 * estimate["cost"]), "but all are paid"
    small = dc.replace(CARD, memory_gb=0.5)
    estimate = cost_plan.add_generation({}, work, small)
    assert estimate["notes"] == ["does not fit: lower batch"]
