"""The rewards that judge the form of an answer, and the verifier with a grader of one's choice."""

from __future__ import annotations

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.plugins.rl.rewards.exact_answer import ExactAnswer, ExactAnswerConfig
from llmstages.plugins.rl.rewards.format import Format, FormatConfig
from llmstages.plugins.rl.rewards.length import Length, LengthConfig
from llmstages.plugins.rl.rewards.repetition import Repetition, RepetitionConfig


def score(reward, *completions, **columns):
    return reward.score([[]] * len(completions), completions, columns)


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("<think>two and two</think> 4", 1.0),
        ("<think>two\nand two</think>\n\n4\n", 1.0),
        ("\n<think>two</think>4", 1.0),
        ("4", 0.0),
        ("<think>two and two</think>", 0.0),
        ("<think></think> 4", 0.0),
        ("<think>two and two 4", 0.0),
        ("two </think> 4", 0.0),
        ("first <think>two</think> 4", 0.0),
        ("<think>a</think><think>b</think> 4", 0.0),
        ("<think>a <think>b</think> c</think> 4", 0.0),
        ("", 0.0),
    ],
)
def test_reasoning_in_tags_and_then_an_answer(text, wanted):
    assert score(Format(FormatConfig()), text) == [wanted]


def test_a_form_of_ones_own():
    reward = Format(FormatConfig(pattern=r"Answer: \d+"))
    assert score(reward, "Answer: 12", "Answer: 12.", "so Answer: 12") == [1.0, 0.0, 0.0]
    with pytest.raises(StageError, match="pattern is no regular expression"):
        build_config(FormatConfig, {"pattern": "("}, "rl.rewards.format")


def test_long_answers_cost_more_and_more():
    reward = Length(LengthConfig(longest=100, margin=40))
    lengths = (0, 60, 70, 90, 100, 5000)
    assert score(reward, *("x" * length for length in lengths)) == pytest.approx(
        [0, 0, -0.25, -0.75, -1, -1]
    )
    with pytest.raises(StageError, match="margin=300 must not be above longest=100"):
        build_config(LengthConfig, {"longest": 100, "margin": 300}, "rl.rewards.length")


def test_repetition_is_a_share_of_the_runs_of_words():
    reward = Repetition(RepetitionConfig(words=2))
    texts = ("", "one", "one two three", "one two One Two", "yes " * 101)
    assert score(reward, *texts) == pytest.approx([0, 0, 0, -1 / 3, -0.99])


def test_the_verifier_takes_a_grader_for_all_problems():
    reward = ExactAnswer(ExactAnswerConfig(grader="number"))
    given = score(reward, "it is 1,200", "it is 12", answer=["1200", "1200"])
    assert given == [1.0, 0.0]
