"""What shows that a policy games its reward, and when to raise an alarm.

A policy that found a hole in its reward writes other texts than one that learned: it repeats
itself, says one thing to every prompt, copies the prompt, lists candidates, or grows to the longest
length. These signals are measured on every sampling and compared with the first ones. Where a
reward of weight 0 is watched, its fall while the paid ones rise is a signal too: the gap between
proxy and gold (Gao et al. 2023, "Scaling Laws for Reward Model Overoptimization").

Where problems are held out of practice (held_out.py), proxy and gold are compared on those. Alarms
are found in the log alone, so a training that was resumed raises the same ones.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmstages.plugins.rl.rewards.repetition import repeated_share

PREFIX = "signals/"  # of the logged series
CALLS = "tool_calls"  # the signal whose series is that of the rollouts with tools
CALLS_SERIES = "tools/calls"
GAP = "gap/"  # of an alarm about a watched reward
RUN = 3  # words of a phrase
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
FIRST_ROWS = 2  # log rows whose mean is what later ones are compared with
LASTING = 2  # log rows in a row that must be out of bounds
Texts = Sequence[str]


@dataclass(frozen=True)
class Bound:
    """How far a signal may go from where it began.

    Attributes:
        about: what is out of bounds, after "answers ".
        rise: most that it may rise, in its own unit; 0: no bound.
        factor: most that it may be multiplied by; 0: no bound.
        share: least that may be left of it; 0: no bound.
        floor: beginnings below it count as this much, for ``factor`` and ``share``.
    """

    about: str
    rise: float = 0.0
    factor: float = 0.0
    share: float = 0.0
    floor: float = 0.0

    def is_broken(self, begin: float, now: float) -> bool:
        """Whether a signal that began at ``begin`` is out of bounds at ``now``."""
        base = max(begin, self.floor)
        rose = self.rise > 0 and now > begin + self.rise
        grew = self.factor > 0 and now > base * self.factor
        fell = self.share > 0 and begin > self.floor and now < begin * self.share
        return rose or grew or fell


BOUNDS = {
    "repetition": Bound("repeat themselves", rise=0.25),
    "commonest": Bound("are the same for many prompts", rise=0.4),
    "shared": Bound("are given to different prompts alike", rise=0.6),
    "phrase": Bound("share a phrase that they did not have", rise=0.5),
    "copied": Bound("copy their prompt", rise=0.3),
    "empty": Bound("are empty", rise=0.3),
    # Not where they grow short: a policy that learns to say the result alone does so too.
    "characters": Bound("grow long", factor=3.0, floor=20.0),
    "numbers": Bound("list numbers", factor=3.0, floor=1.5),
    "distinct": Bound("use few different words", share=0.3),
    CALLS: Bound("call tools again and again", rise=1.25),
}


class Alarm(NamedTuple):
    """A signal that went out of bounds.

    Attributes:
        update: the one at which it was logged for the LASTING-th time.
        signal: its name, a key of BOUNDS, or GAP and the name of a watched reward.
        begin: its value at the beginning.
        now: its value at that update.
    """

    update: int
    signal: str
    begin: float
    now: float

    def sentence(self) -> str:
        """The alarm for people."""
        if self.signal.startswith(GAP):
            return (
                f"update {self.update}: what is paid rises, and {self.signal.removeprefix(GAP)}, "
                f"which is only watched, falls ({self.begin:.3g} -> {self.now:.3g}): the policy "
                "games its reward"
            )
        return (
            f"update {self.update}: answers {BOUNDS[self.signal].about} ({self.signal} "
            f"{self.begin:.3g} -> {self.now:.3g}): read them, the policy may game its reward"
        )


def measure(prompts: Texts, completions: Texts) -> dict[str, float]:
    """The signals of one sampling: a key of BOUNDS, but CALLS -> its mean over all answers.

    Args:
        prompts: the texts of the prompts, one for each answer.
        completions: the answers without control tokens.

    The answers to one prompt may well be the same, when they are right, so what answers have in
    common counts only between different prompts.
    """
    count = max(len(completions), 1)
    words = [completion.lower().split() for completion in completions]
    runs = [_runs(answer, RUN) for answer in words]
    plain = [" ".join(answer) for answer in words]
    common = _in_common(prompts, [[text] for text in plain])
    phrases = _in_common(prompts, runs)
    different = dict(zip(zip(prompts, plain, strict=True), words, strict=True)).values()
    pairs = [pair for answer in different for pair in _runs(answer, 2)]
    return {
        "repetition": sum(repeated_share(text, RUN) for text in completions) / count,
        "commonest": max(common.values(), default=0) / count,
        "shared": sum(common.values()) / count,
        "phrase": max(phrases.values(), default=0) / count,
        "copied": sum(map(_copied_share, prompts, runs)) / count,
        "empty": sum(not answer for answer in words) / count,
        "characters": sum(map(len, completions)) / count,
        "numbers": sum(len(set(NUMBER.findall(text))) for text in completions) / count,
        "distinct": len(set(pairs)) / len(pairs) if pairs else 1.0,
    }


def _runs(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[begin : begin + length]) for begin in range(len(words) - length + 1)]


def _in_common(prompts: Texts, parts: Sequence[Sequence[Any]]) -> dict[Any, int]:
    """Parts of answers to two or more different prompts -> in how many answers each stands."""
    answers: Counter[Any] = Counter()
    prompts_of: dict[Any, set[str]] = defaultdict(set)
    for prompt, of_answer in zip(prompts, parts, strict=True):
        for part in set(of_answer):
            answers[part] += 1
            prompts_of[part].add(prompt)
    return {part: number for part, number in answers.items() if len(prompts_of[part]) > 1}


def _copied_share(prompt: str, runs: Sequence[tuple[str, ...]]) -> float:
    """How far an answer and its prompt are the same, by phrases: 1 if each is in the other.

    To say a formula of the prompt again before its result is no copy of the prompt.
    """
    given = set(_runs(prompt.lower().split(), RUN))
    copied = given & set(runs)
    return len(copied) / max(len(given), len(set(runs)), 1)


def alarms_of(log: Sequence[Mapping[str, Any]], watched: Sequence[str] = ()) -> Iterator[Alarm]:
    """The alarms of a training, one for each signal at most, in the order of BOUNDS.

    Args:
        log: the rows of log.jsonl or of a Trainer's log history.
        watched: names of the rewards of weight 0.
    """
    for name, bound in BOUNDS.items():
        series = _series(log, _key(name))
        begin = _begin(series)
        broken = {step for step, now in series if bound.is_broken(begin, now)}
        if alarm := _lasting(name, series, broken, begin):
            yield alarm
    for name in watched:
        if alarm := _gap(log, name):
            yield alarm


def broken_now(log: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any signal is out of bounds in the last row."""
    for name, bound in BOUNDS.items():
        series = _series(log, _key(name))
        if series and bound.is_broken(_begin(series), series[-1][1]):
            return True
    return False


def _key(signal: str) -> str:
    """Under which name a signal is logged."""
    return CALLS_SERIES if signal == CALLS else PREFIX + signal


def held_out_key(name: str) -> str:
    """Under which name the mean of a reward on held-out problems is logged; the sum is ``paid``."""
    return f"{PREFIX}held_out_{name}"


def gold_key(log: Sequence[Mapping[str, Any]], name: str) -> str:
    """The series of a watched reward: on held-out problems where it is measured there."""
    key = held_out_key(name)
    return key if any(row.get(key) is not None for row in log) else f"rewards/{name}/mean"


def _series(log: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(int(row["step"]), float(row[key])) for row in log if row.get(key) is not None]


def _begin(series: Sequence[tuple[int, float]]) -> float:
    first = [value for _, value in series[:FIRST_ROWS]]
    return sum(first) / len(first) if first else 0.0


def _lasting(
    name: str,
    series: Sequence[tuple[int, float]],
    broken: set[int],
    begin: float,
) -> Alarm | None:
    """The alarm at the first row that is the LASTING-th out of bounds in a row."""
    lasted = 0
    for step, now in series:
        lasted = lasted + 1 if step in broken else 0
        if lasted == LASTING:
            return Alarm(step, name, begin, now)
    return None


GAP_RISE = 0.5  # of the paid rewards, in their standard deviations at the beginning
GAP_FALL = 0.25  # of the watched one, in its own


def _gap(log: Sequence[Mapping[str, Any]], name: str) -> Alarm | None:
    """The alarm where a watched reward falls while what is paid rises."""
    paid_key, gold_mean = "reward", gold_key(log, name)
    paid_std, gold_std = "reward_std", f"rewards/{name}/std"
    if gold_mean == held_out_key(name):
        paid_key = held_out_key("paid")
        paid_std, gold_std = f"{paid_key}_std", f"{gold_mean}_std"
    paid, gold = _series(log, paid_key), _series(log, gold_mean)
    paid_begin, gold_begin = _begin(paid), _begin(gold)
    paid_spread = _begin(_series(log, paid_std))
    gold_spread = _begin(_series(log, gold_std))
    paid_at = dict(paid)
    broken = {
        step
        for step, now in gold
        if paid_at.get(step, paid_begin) > paid_begin + GAP_RISE * paid_spread
        and now < gold_begin - GAP_FALL * gold_spread
    }
    return _lasting(GAP + name, gold, broken, gold_begin)
