"""Training as pictures: curves of losses and rewards, checks, dialogues with their mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.plugins.report import plots, tokens
from llmstages.plugins.report.plots import Series
from llmstages.plugins.report.steps import MODEL_KINDS, Chain, FinishedStep

KEPT_ANSWERS = 2  # shown for a step that trained on answers of its own
CUT_OFF = 0.02  # the chart of answers that were cut off is shown from this share on
METRICS = (
    ("parameters", "parameters"),
    ("updates", "updates"),
    ("tokens", "tokens"),
    ("dialogues", "dialogues"),
    ("pairs", "pairs"),
    ("answers", "answers sampled"),
    ("sampled", "answers sampled"),
    ("kept", "answers kept"),
    ("supervised_tokens", "supervised tokens"),
    ("accuracy", "accuracy on held-out pairs"),
    ("validation_bits_per_byte", "bits per byte, held out"),
    ("tokens_per_second", "tokens per second"),
    ("mfu", "of the device's peak (MFU)"),
    ("validation_seen", "of the held-out text stands in training too"),
    ("held_out_seen", "of the held-out text stands in training too"),
)
# What a model has from its depth alone (derived.json).
DERIVED = (
    ("depth", "depth, which sets the sizes"),
    ("hidden_size", "width"),
    ("batch_tokens", "tokens per batch"),
    ("learning_rate", "peak learning rate"),
)


def cards(chain: Chain, steps: Sequence[FinishedStep]) -> list[dict[str, Any]]:
    """One entry per trained model among the steps: curves, checks, masked samples and figures."""
    return [_card(chain, step) for step in steps if step.kind in MODEL_KINDS]


def _card(chain: Chain, step: FinishedStep) -> dict[str, Any]:
    # Trainers that sample answers log a reward; DPO and reward models log losses alone.
    rewarded = any("reward" in row for row in step.log)
    return {
        "name": step.name,
        "stage": step.stage,
        "charts": reward_charts(step) if rewarded else loss_charts(step),
        "checks": step.json("checks.json", []),
        "facts": facts(step),
        "masks": tokens.masked_dialogues(chain, step),
        "kept": step.lines("kept.jsonl")[:KEPT_ANSWERS],
        "growth": growth(step),
        "alarms": step.lines("alarms.jsonl"),
        "rollouts": _shown_rollouts(step.lines("rollouts.jsonl")),
    }


def _shown_rollouts(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Answers that were sampled while training: of its beginning, its middle and its end."""
    updates = sorted({row["update"] for row in rows})
    if not updates:
        return []
    shown = {updates[0], updates[len(updates) // 2], updates[-1]}
    return [row for row in rows if row["update"] in shown]


def logged(step: FinishedStep, key: str) -> list[tuple[float, float]]:
    """(update, value) wherever the trainer logged the key; NaN where it was not a number."""
    points = []
    for index, row in enumerate(step.log):
        update = float(row.get("step", index))
        if isinstance(row.get(key), int | float):
            points.append((update, float(row[key])))
        elif key in row.get("not_finite", ()):
            points.append((update, math.nan))
    return points


def growth(step: FinishedStep) -> dict[str, Any]:
    """How the model continued one prompt while it was trained; {} without samples.

    Returns ``{prompt, texts: [(update, text)]}`` of the first prompt.
    """
    rows = step.lines("samples.jsonl")
    if not rows:
        return {}
    prompt = rows[0]["prompt"]
    texts = [(row["step"], row["text"]) for row in rows if row["prompt"] == prompt]
    return {"prompt": prompt, "texts": texts}


def loss_charts(step: FinishedStep) -> list[Any]:
    """Training and held-out loss in one chart, then accuracy, margins and format where logged.

    The unigram loss is drawn as the line to beat. No chart for a loss that was logged only once.
    """
    train = logged(step, "loss")
    held_out = logged(step, "eval_loss")
    if len(train) + len(held_out) < 2:
        return []
    unigram = step.metrics.get("unigram_loss")
    limits = [(float(unigram), "unigram")] if isinstance(unigram, int | float) else []
    charts = [
        plots.lines(
            f"{step.name}: loss",
            [Series("training", train, "s0"), Series("held out", held_out, "s1")],
            y="nats per token" if step.kind == "model" else "",
            limits=limits,
        ),
        plots.lines(
            f"{step.name}: accuracy",
            [Series("held out", logged(step, "eval_accuracy"), "s1")],
            zero=True,
        ),
    ]
    if margins := logged(step, "rewards/margins"):
        charts.append(
            plots.lines(
                f"{step.name}: chosen over rejected",
                [
                    Series("margin of the implicit reward", margins, "s0"),
                    Series("share ranked right", logged(step, "rewards/accuracies"), "s1"),
                ],
                zero=True,
            )
        )
    if ended := logged(step, "format/ended"):
        charts.append(
            plots.lines(
                f"{step.name}: format while training",
                [
                    Series("answers that end their turn", ended, "s1"),
                    Series("empty", logged(step, "format/empty"), "s2"),
                    Series("repeating themselves", logged(step, "format/repeating"), "s3"),
                ],
                y="share of answers",
                zero=True,
            )
        )
    return list(filter(None, charts))


def reward_charts(step: FinishedStep) -> list[Any]:
    """Rewards in one chart, then the length of answers, cut answers, entropy with KL, signals."""
    cut_off = logged(step, "completions/clipped_ratio")
    kl = logged(step, "kl")
    charts = [
        plots.lines(f"{step.name}: reward", _reward_series(step), y="mean of a batch"),
        plots.lines(
            f"{step.name}: answer length",
            [Series("length", logged(step, "completions/mean_length"), "s2")],
            y="tokens",
            zero=True,
        ),
    ]
    if max((share for _, share in cut_off), default=0) > CUT_OFF:
        charts.append(
            plots.lines(
                f"{step.name}: cut off",
                [Series("cut off", cut_off, "s2")],
                y="share of answers that reached the longest length",
                zero=True,
            )
        )
    charts.append(
        plots.lines(
            f"{step.name}: {'entropy and KL' if kl else 'entropy'}",
            [
                Series("entropy", logged(step, "entropy"), "s2"),
                Series("distance from the start (KL)", kl, "s3"),
            ],
            y="nats per token",
            zero=True,
        )
    )
    if foreseen := logged(step, "explained_variance"):
        charts.append(
            plots.lines(
                f"{step.name}: what the critic foresees",
                [Series("explained variance", foreseen, "s4")],
                y="share of the variance of returns",
            )
        )
    shares = [
        Series(name, logged(step, f"signals/{name}"), f"s{index}")
        for index, name in enumerate(("repetition", "commonest", "phrase", "copied"))
    ]
    if any(series.points for series in shares):
        charts.append(
            plots.lines(
                f"{step.name}: signs of a gamed reward",
                shares,
                y="share of answers",
                zero=True,
            )
        )
    return list(filter(None, charts))


def _reward_series(step: FinishedStep) -> list[Series]:
    """One line per reward, labeled as paid for or, with weight 0, as only watched."""
    logged_keys = set().union(*step.log)
    keys = [key for key in logged_keys if key.startswith("rewards/") and key.endswith("/mean")]
    if not keys:
        return [Series("reward", logged(step, "reward"), "s0")]
    weights = reward_weights(step)
    series = []
    for index, key in enumerate(sorted(keys)):
        name = key.removeprefix("rewards/").removesuffix("/mean")
        label = name
        if weights.get(name) == 0:
            label = f"{name} (only watched)"
        elif name in weights and len(keys) > 1:
            label = f"{name} (paid for)"
        series.append(Series(label, logged(step, key), f"s{index}"))
    return series


def reward_weights(step: FinishedStep) -> dict[str, float]:
    """Reward name -> weight, as configured. TRL logs the rewards by these names."""
    rewards = step.config.get("rewards")
    if not isinstance(rewards, Mapping):
        return {}
    return {
        name: float(spec.get("weight", 1.0))
        for name, spec in rewards.items()
        if isinstance(spec, Mapping)
    }


def facts(step: FinishedStep) -> list[tuple[str, Any]]:
    """(what it is, number) of the metrics and derived sizes that the step has."""
    measured = [(label, step.metrics.get(key)) for key, label in METRICS]
    derived_values = step.json("derived.json", {})
    derived = [(label, derived_values.get(key)) for key, label in DERIVED]
    return [(label, value) for label, value in measured + derived if isinstance(value, int | float)]
