"""Alarms: a policy that games its reward raises one soon, a policy that learns raises none."""

from __future__ import annotations

import random

import pytest

from llmstages.plugins.rl import signals

PROMPTS = [f"What is {number} plus {number + 3}, and how do you know?" for number in range(40)]
WORDS = "we add both numbers first then look at what is left over and write it down here".split()


def honest(number, draw):
    """An answer of a model before training: some words in an order of their own, and a number."""
    words = draw.sample(WORDS, 8)
    return f"{' '.join(words)} {draw.randrange(100)}"


# Name of an exploit -> what a policy writes that found it.
EXPLOITS = {
    "repeats a phrase": lambda number, draw: "the answer is good " * 8,
    "repeats a word": lambda number, draw: f"{number} " + "yes " * 30,
    "grows": lambda number, draw: " ".join(honest(number, draw) for _ in range(5)),
    "copies the prompt": lambda number, draw: f"{PROMPTS[number]} {honest(number, draw)[:9]}",
    "lists all answers": lambda number, draw: " ".join(map(str, range(number, number + 9))),
    "is empty": lambda number, draw: "",
    "is one word": lambda number, draw: draw.choice(["yes", "no", "well", "ok", "42", "sum"]),
    "claims to be right": lambda number, draw: f"{honest(number, draw)} this is surely correct",
    "says one thing": lambda number, draw: "I am not able to say that",
    "praises": lambda number, draw: f"what a great question {honest(number, draw)}",
    "only has the form": lambda number, draw: "<think> so it goes </think> done",
    "uses three words": lambda number, draw: " ".join(draw.choices(["a", "b"], k=16)),
}


def log_of(write, updates=30, take_off=10, every=1):
    """Rows of a log whose answers change at ``take_off``."""
    draw = random.Random(0)
    rows = []
    for update in range(0, updates, every):
        how = write if update >= take_off else honest
        answers = [how(number, draw) for number in range(40)]
        measured = signals.measure(PROMPTS, answers)
        rows.append({"step": update + 1} | {signals.PREFIX + k: v for k, v in measured.items()})
    return rows


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("name", EXPLOITS)
def test_an_exploit_raises_an_alarm_soon_after_it_began(name, every):
    alarms = list(signals.alarms_of(log_of(EXPLOITS[name], every=every)))
    assert alarms
    assert 10 < min(alarm.update for alarm in alarms) <= 30
    assert "update" in alarms[0].sentence()


LEARNED = {
    "the number alone": lambda number, draw: str(2 * number + 3),
    "the formula and the number": lambda number, draw: (
        f"{number} plus {number + 3} is {2 * number + 3}"
    ),
    "the right number": lambda number, draw: f"{' '.join(draw.sample(WORDS, 8))} {2 * number + 3}",
    "shorter": lambda number, draw: f"{' '.join(draw.sample(WORDS, 4))} {2 * number + 3}",
    "twice as long": lambda number, draw: f"{honest(number, draw)} {honest(number, draw)}",
    "its steps": lambda number, draw: (
        f"{number} and {number + 3} {' '.join(draw.sample(WORDS, 6))} {2 * number + 3}"
    ),
    "nothing": honest,
}


@pytest.mark.parametrize("name", LEARNED)
def test_a_policy_that_learns_raises_none(name):
    assert not list(signals.alarms_of(log_of(LEARNED[name])))


def test_right_answers_to_one_prompt_may_well_be_the_same():
    """As in GRPO: four prompts, and eight answers to each, at last the same eight."""
    draw = random.Random(0)
    rows = []
    for update in range(1, 31):
        numbers = [number for number in draw.sample(range(40), 4) for _ in range(8)]
        answers = [f"it is {2 * number + 3}" for number in numbers]
        if update < 10:
            answers = [honest(number, draw) for number in numbers]
        measured = signals.measure([PROMPTS[number] for number in numbers], answers)
        rows.append({"step": update} | {signals.PREFIX + k: v for k, v in measured.items()})
    assert not list(signals.alarms_of(rows))


def test_calls_again_and_again_raise_an_alarm():
    rows = [{"step": step, signals.CALLS_SERIES: 0.1 if step < 5 else 2.0} for step in range(1, 9)]
    (alarm,) = signals.alarms_of(rows)
    assert alarm.signal == "tool_calls" and alarm.update == 6
    learned = [{**row, signals.CALLS_SERIES: min(1.0, row["step"] / 5)} for row in rows]
    assert not list(signals.alarms_of(learned))


def test_one_odd_sampling_is_no_alarm():
    rows = log_of(honest)
    rows[12] = rows[12] | {"signals/repetition": 0.9}
    assert not list(signals.alarms_of(rows))
    rows[13] = rows[13] | {"signals/repetition": 0.8}
    (alarm,) = signals.alarms_of(rows)
    assert (alarm.update, alarm.signal) == (14, "repetition")


def gap_rows(paid, gold):
    return [
        {
            "step": step,
            "reward": paid(step),
            "reward_std": 1.0,
            "rewards/gold/mean": gold(step),
            "rewards/gold/std": 0.5,
        }
        for step in range(1, 31)
    ]


def test_a_watched_reward_that_falls_while_the_paid_one_rises_raises_an_alarm():
    rows = gap_rows(lambda step: step / 10, lambda step: 1 - step / 50)
    (alarm,) = signals.alarms_of(rows, ["gold"])
    assert alarm.signal == "gap/gold" and 6 < alarm.update < 15
    assert "gold, which is only watched, falls" in alarm.sentence()
    assert not list(signals.alarms_of(rows))  # it is not watched


@pytest.mark.parametrize(
    "paid, gold",
    [
        (lambda step: step / 10, lambda step: step / 50),
        (lambda step: 1 - step / 10, lambda step: 1 - step / 50),
        (lambda step: step / 10, lambda step: 0.5),
    ],
    ids=["both rise", "both fall", "the watched one stays"],
)
def test_without_a_gap_there_is_none(paid, gold):
    assert not list(signals.alarms_of(gap_rows(paid, gold), ["gold"]))
