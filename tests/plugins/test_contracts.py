"""Our own components and stages go through the kit that plugin authors use."""

from __future__ import annotations

import pytest

from llmstages.core import registry
from llmstages.testing import (
    check_evaluator,
    check_extractor,
    check_filter,
    check_grader,
    check_reward,
    check_stage,
    check_tool,
)

NEED_A_FILE = {  # filters that refuse to work without a file or model of the user's own
    "classifier",
    "decontaminate",
    "pii_names",
    "unigram_entropy",
}
NO_SERVICE = {"endpoint": "http://127.0.0.1:9/search", "retries": 0}
TRAINING = {"batch_size": 4, "log_every": 1}


def ours(group: str) -> list[str]:
    entries = registry.entries(group).items()
    return [name for name, entry in entries if entry.package.startswith("llmstages ")]


@pytest.mark.parametrize("name", [n for n in ours("filters") if n not in NEED_A_FILE])
def test_filters(name):
    check_filter(name)


@pytest.mark.parametrize("name", ours("extractors"))
def test_extractors(name):
    if name == "resiliparse":
        pytest.importorskip("resiliparse")
    check_extractor(name)


@pytest.mark.parametrize("name", [name for name in ours("rewards") if name != "judge"])
def test_rewards(name, tmp_path):
    check_reward(name, folder=tmp_path)


@pytest.mark.parametrize("name", [name for name in ours("graders") if name != "judge"])
def test_graders(name):
    # A choice needs its letters, and a program its tests.
    reads_18 = name not in ("choice", "code_tests")
    check_grader(name, right=[("18", "18")] if reads_18 else [])


@pytest.mark.parametrize("name", ours("tools"))
def test_tools(name, tmp_path):
    from llmstages.plugins.tools import index

    index.build(tmp_path / index.FOLDER, ["The fox lives near the river."])
    check_tool(name, tmp_path, NO_SERVICE if name == "search_http" else {})


# The tiny problems have no environment.
@pytest.mark.parametrize("name", [name for name in ours("evaluators") if name != "environment"])
def test_evaluators(name, tmp_path):
    check_evaluator(name, tmp_path, {"max_new_tokens": 4})


@pytest.mark.parametrize(
    "name, config",
    [
        ("corpus.web", {"filters": {}, "workers": 1}),
        ("tokenizer.bpe", {"vocab_size": 300}),
        ("tools.search_tokens", {}),
        ("tools.calculations", {"allow_empty": True}),
        ("tools.augment", {"keep": "agreeing"}),
        ("reward.pairwise", {**TRAINING, "epochs": 1.0, "max_length": 128}),
        ("sft.chat", {**TRAINING, "epochs": 1.0, "max_length": 128}),
        ("rl.dpo", {**TRAINING, "epochs": 1.0, "max_length": 128}),
        ("rl.kto", {**TRAINING, "epochs": 1.0, "max_length": 128}),
        (
            "rl.grpo",
            {**TRAINING, "num_generations": 2, "max_steps": 1, "max_completion_length": 8},
        ),
        (
            "rl.rloo",
            {**TRAINING, "num_generations": 2, "max_steps": 1, "max_completion_length": 8},
        ),
        ("rl.distill", {**TRAINING, "batch_size": 2, "max_steps": 1, "max_completion_length": 8}),
        ("rl.ppo", {**TRAINING, "max_steps": 2, "max_completion_length": 8}),
    ],
)
def test_stages(name, config, tmp_path):
    check_stage(name, tmp_path, config)
