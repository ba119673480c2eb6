"""What an evaluation can tell from chance."""

from __future__ import annotations

import random

import pytest

from llmstages.cost import power


def test_known_sizes():
    # Fleiss, Levin and Paik: 0.5 against 0.55, 80 % power, 5 %: about 1,570 without correction
    assert power.questions_for(0.05) == pytest.approx(1570, abs=2)
    assert power.questions_for(0.1) == pytest.approx(393, abs=2)
    for questions in (50, 200, 1000):
        assert power.questions_for(power.smallest_difference(questions)) == pytest.approx(
            questions, abs=1
        )


def test_such_a_difference_is_found_in_four_of_five_cases():
    rng = random.Random(0)
    questions = 200
    difference = power.smallest_difference(questions)
    found = 0
    for _ in range(600):
        first = sum(rng.random() < 0.5 - difference / 2 for _ in range(questions))
        second = sum(rng.random() < 0.5 + difference / 2 for _ in range(questions))
        pooled = (first + second) / (2 * questions)
        error = (2 * pooled * (1 - pooled) / questions) ** 0.5
        found += abs(second - first) / questions > 1.96 * error
    assert found / 600 == pytest.approx(0.8, abs=0.05)


def test_the_sentence_names_both():
    sentence = power.describe(200)
    assert "200 questions in all" in sentence and "0.05 takes 1,570" in sentence
