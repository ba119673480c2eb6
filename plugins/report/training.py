"""Training as pictures: loss curves, gates, and the curves of reinforcement learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmstages.plugins.report import plots, tokens
from llmstages.plugins.report.plots import Series
from llmstages.plugins.report.steps import Chain, View


def series(log: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(update, value) wherever the key was logged."""
    return [
        (float(row.get("step", i)), float(row[key]))
        for i, row in enumerate(log)
        if isinstance(row.get(key), int | float)
    ]


def cards(chain: Chain, models: Sequence[View]) -> list[dict[str, Any]]:
    """One entry a trained step: its curves, gates, masked samples and headline numbers."""
    out = []
    for step in models:
        rewarded = any("reward" in row for row in step.log)
        charts = rewards(step) if rewarded else losses(step)
        out.append(
            {
                "name": step.name,
                "stage": step.stage,
                "charts": charts,
                "gates": step.json("gates.json", []),
                "facts": facts(step),
                "masks": tokens.masked(chain, step),
                "kept": step.lines("kept.jsonl")[:2],
                "grown": grown(step),
            }
        )
    return out


def grown(step: View) -> dict[str, Any]:
    """What one prompt became while the model was trained: {prompt, texts: [(update, text)]}; {} without samples."""
    rows = step.lines("samples.jsonl")
    mine = [row for row in rows if row["prompt"] == rows[0]["prompt"]]
    return (
        {"prompt": rows[0]["prompt"], "texts": [(row["step"], row["text"]) for row in mine]}
        if rows
        else {}
    )


def losses(step: View) -> list[Any]:
    """Training and held-out loss on one chart, the unigram loss as the line to beat."""
    limits = (
        [(float(step.metrics["unigram_loss"]), "unigram")]
        if isinstance(step.metrics.get("unigram_loss"), int | float)
        else []
    )
    train, held = series(step.log, "loss"), series(step.log, "eval_loss")
    chart = plots.lines(
        f"{step.name}: loss",
        [Series("training", train, "s0"), Series("held out", held, "s1")],
        y="nats per token" if step.kind == "model" else "",
        limits=limits if train or held else [],
    )
    more = []
    if accuracy := series(step.log, "eval_accuracy"):
        more.append(
            plots.lines(f"{step.name}: accuracy", [Series("held out", accuracy, "s1")], zero=True)
        )
    if margins := series(step.log, "rewards/margins"):
        more.append(
            plots.lines(
                f"{step.name}: chosen over rejected",
                [
                    Series("margin of the implicit reward", margins, "s0"),
                    Series("share ranked right", series(step.log, "rewards/accuracies"), "s1"),
                ],
                zero=True,
            )
        )
    if ended := series(step.log, "format/ended"):
        more.append(
            plots.lines(
                f"{step.name}: format while training",
                [
                    Series("answers that end their turn", ended, "s1"),
                    Series("empty", series(step.log, "format/empty"), "s2"),
                    Series("repeating themselves", series(step.log, "format/repeating"), "s3"),
                ],
                y="share of answers",
                zero=True,
            )
        )
    return [c for c in (chart, *more) if c and len(train) + len(held) > 1]


def rewards(step: View) -> list[Any]:
    """Rewards on one chart (what is paid for and what is only watched), then length, cut answers, KL and entropy."""
    parts = sorted(
        {
            key
            for row in step.log
            for key in row
            if key.startswith("rewards/") and key.endswith("/mean")
        }
    )
    paid = paid_for(step)
    shown = []
    for index, key in enumerate(parts):
        name = key.removeprefix("rewards/").removesuffix("/mean")
        weight = paid.get(name)
        told = (
            f"{name} (only watched)"
            if weight == 0
            else f"{name} (paid for)"
            if weight is not None and len(parts) > 1
            else name
        )
        shown.append(Series(told, series(step.log, key), f"s{index}"))
    if not shown:
        shown = [Series("reward", series(step.log, "reward"), "s0")]
    charts = [plots.lines(f"{step.name}: reward", shown, y="mean of a batch")]
    length, cut = (
        series(step.log, "completions/mean_length"),
        series(step.log, "completions/clipped_ratio"),
    )
    charts.append(
        plots.lines(
            f"{step.name}: answer length", [Series("length", length, "s2")], y="tokens", zero=True
        )
    )
    if max((share for _, share in cut), default=0) > 0.02:
        charts.append(
            plots.lines(
                f"{step.name}: cut off",
                [Series("cut off", cut, "s2")],
                y="share of answers that hit the longest length",
                zero=True,
            )
        )
    spread = [
        Series("entropy", series(step.log, "entropy"), "s2"),
        Series("distance from the start (KL)", series(step.log, "kl"), "s3"),
    ]
    charts.append(
        plots.lines(
            f"{step.name}: {'entropy and KL' if spread[1].points else 'entropy'}",
            spread,
            y="nats per token",
            zero=True,
        )
    )
    return [c for c in charts if c]


def paid_for(step: View) -> dict[str, float]:
    """Reward name -> weight, as configured (TRL logs them by these names)."""
    specs = step.config.get("rewards")
    if not isinstance(specs, Mapping):
        return {}
    return {
        name: float(spec.get("weight", 1.0))
        for name, spec in specs.items()
        if isinstance(spec, Mapping)
    }


def facts(step: View) -> list[tuple[str, Any]]:
    """A few numbers of a step in words, those there are."""
    wanted = (
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
        ("tokens_per_second", "tokens a second"),
        ("mfu", "of the device's peak (MFU)"),
    )
    dial = (
        ("depth", "depth, the dial"),
        ("hidden", "width"),
        ("batch_tokens", "tokens a batch"),
        ("learning_rate", "peak learning rate"),
    )
    return [
        (label, values[key])
        for values, keys in ((step.metrics, wanted), (step.json("derived.json", {}), dial))
        for key, label in keys
        if isinstance(values.get(key), int | float)
    ]
