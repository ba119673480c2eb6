"""A pytest kit for plugin authors: make tiny inputs, run a stage, check a contract.

Example:
    from llmstages.testing import check_reward, check_stage

    def test_my_reward():
        check_reward("shortness")

    def test_my_stage(tmp_path):
        check_stage("embed.mean_pool", tmp_path)

A check raises AssertionError with a sentence that says what is wrong. It takes the registered
name of a plugin, so it tests the entry point too, or the class. It needs no network.
"""

from llmstages.testing.components import (
    check_environment,
    check_evaluator,
    check_extractor,
    check_filter,
    check_grader,
    check_index,
    check_reward,
    check_tool,
)
from llmstages.testing.stages import Result, check_stage, run_stage
from llmstages.testing.tiny import tiny_artifact, tiny_tokenizer

__all__ = [
    "Result",
    "check_environment",
    "check_evaluator",
    "check_extractor",
    "check_filter",
    "check_grader",
    "check_index",
    "check_reward",
    "check_stage",
    "check_tool",
    "run_stage",
    "tiny_artifact",
    "tiny_tokenizer",
]
