"""What a plan will cost before it runs: the steps' own estimates, put on a named machine.

Walks the plan as data will flow. A finished step tells its recorded metrics, a new one what its stage expects
(``estimate``, see stage.py), and each hands this on to the steps it feeds. What training a step expects becomes memory,
hours and money here. What is not known yet is said, never guessed in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.cost.model import Training, memory, model_from_config
from llmstages.launch.config import Launch
from llmstages.launch.hardware import Hardware
from llmstages.pipeline.plan import Planned, Source, Step
from llmstages.pipeline.store import Store

Facts = Mapping[str, Any]


def estimate_steps(
    planned: Sequence[Planned], store: Store, hardware: Hardware, launch: Launch
) -> dict[str, dict[str, Any]]:
    """Step -> its estimate, for the steps to be run that have one. Bytes, tokens, FLOPs, hours, US dollars; None: not known yet."""
    known: dict[Step, Facts] = {}
    found: dict[str, dict[str, Any]] = {}
    for plan in planned:
        if plan.state == "reused":
            known[plan.step] = _recorded(plan, store)
            continue
        try:
            facts = _expected(plan, known)
            training = facts.get("training")
            told = (
                estimate_on(training, hardware, zero_stage(launch))
                if isinstance(training, Training)
                else {}
            )
        except Exception as error:  # a plan is not refused for want of an estimate: whatever a plugin raises becomes its one line
            facts, told = (
                {
                    "name": plan.step.name,
                    "no_estimate": f"{plan.step.uses}.estimate(): {type(error).__name__}: {error}",
                },
                {},
            )
        known[plan.step] = facts
        if "no_estimate" in facts:
            told = {"no_estimate": facts["no_estimate"]}
        if told:
            found[plan.step.name] = told
    return found


def _recorded(plan: Planned, store: Store) -> Facts:
    """What a finished step says of itself: its metrics, the bytes of its table, the sizes of its model."""
    record = store.record(plan.key)
    held = sum(size for name, (size, _) in record["files"].items() if name.startswith("data/"))
    return {
        "name": plan.step.name,
        **record["metrics"],
        **({"bytes": held} if held else {}),
        **_model(store.folder(plan.key), plan.step.kind),
    }


def _expected(plan: Planned, known: Mapping[Step, Facts]) -> Facts:
    """What a stage expects of a run, and of the model it trains; nothing where it has no estimate()."""
    step = plan.step
    if not hasattr(step.stage, "estimate"):
        return {"name": step.name}
    inputs: dict[str, list[Facts]] = {name: [] for name in step.stage.inputs}
    for name, fed in step.sources():
        inputs[name].append(_source(fed) if isinstance(fed, Source) else known[fed])
    facts = step.stage().estimate(step.config, inputs)
    training = facts.get("training")
    return {
        "name": step.name,
        **({"model": training.model} if isinstance(training, Training) else {}),
        **facts,
    }


def _source(source: Source) -> Facts:
    return {
        "name": source.name,
        **({} if source.name.startswith("hub:") else _model(Path(source.name), source.kind)),
    }


def _model(folder: Path, kind: str) -> Facts:
    """The sizes of a model folder, where its config.json tells them."""
    if kind != "model" or not (folder / "config.json").is_file():
        return {}
    try:
        model = model_from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (
        ValueError,
        KeyError,
    ):  # a folder of others: whether it is a model is for the step to find out
        return {}
    return {"model": model} if model else {}


def zero_stage(launch: Launch) -> int:
    """Stage of ZeRO that the launcher asks DeepSpeed for, 3 for FSDP, which shards as much; 0 for none."""
    return 3 if launch.fsdp else int(launch.deepspeed.get("zero_optimization", {}).get("stage", 0))


def estimate_on(work: Training, hardware: Hardware, zero: int = 0) -> dict[str, Any]:
    """The estimate of one step on a machine, as JSON says it."""
    flops, tokens = work.flops(), work.tokens()
    hours = None if flops is None else flops / hardware.speed(work.bf16) / 3600
    notes = []
    at_once = work.at_once(hardware.count) * hardware.count
    if work.batch_size % at_once:
        notes.append(
            f"batch_size={work.batch_size} cannot be shared by {hardware.count} processes: "
            f"make it a multiple of {at_once}, or set micro_batch_size"
        )
    need = memory(work, hardware.count, zero, hardware.is_cpu)
    room = hardware.memory()
    if room and need["peak"] > room:
        notes.append(
            "does not fit: lower micro_batch_size"
            + (" or shard with launch=zero2" if hardware.count > 1 and not zero else "")
        )
    return {
        "hardware": hardware.name,
        "parameters": work.model.parameters(),
        "trained": work.adapters or work.model.parameters(),
        "tokens": tokens,
        "updates": work.updates(),
        "because": work.because,
        "flops_per_token": work.model.flops(work.row),
        "flops": flops,
        "hours": hours,
        "cost": None if hours is None else hours * hardware.count * hardware.price,
        "mfu": hardware.mfu,
        "zero": zero,
        "memory": need,
        "memory_available": room,
        "notes": notes,
    }


def lines(estimate: Mapping[str, Any]) -> Iterator[str]:
    """One estimate for people."""
    if "no_estimate" in estimate:
        yield f"no estimate: {estimate['no_estimate']}"
        return
    trained = (
        f" ({count(estimate['trained'])} trained)"
        if estimate["trained"] != estimate["parameters"]
        else ""
    )
    if estimate["tokens"] is None:
        yield f"{count(estimate['parameters'])} parameters{trained}, {count(estimate['flops_per_token'])} FLOPs a token; how long: {estimate['because']}"
    else:
        yield (
            f"{count(estimate['parameters'])} parameters{trained}, {count(estimate['tokens'])} tokens in {estimate['updates']:,} updates "
            f"({estimate['because']})"
        )
        flops = f"{estimate['flops']:.2e}".replace("e+", "e")
        yield (
            f"{flops} FLOPs: {duration(estimate['hours'])} on {estimate['hardware']} at {estimate['mfu']:.0%} of peak{money(estimate['cost'])}; "
            f"{estimate['tokens'] / estimate['parameters']:.2g} tokens a parameter"
        )
    need, room = estimate["memory"], estimate["memory_available"]
    parts = ", ".join(
        f"{name} {size(need[name])}" for name in need if name not in ("live", "peak") and need[name]
    )
    sharded = f" (ZeRO-{estimate['zero']})" if estimate["zero"] else ""
    yield f"memory: peak {size(need['peak'])}{f' of {size(room)}' if room else ''}{sharded}, beside the process itself: {parts}"
    yield from estimate["notes"]


def total(
    estimates: Mapping[str, Mapping[str, Any]], hardware: Hardware, launch: Launch
) -> Iterator[str]:
    """The sum over a plan, and what it leaves out."""
    counted = [one for one in estimates.values() if one.get("hours") is not None]
    if not counted:
        return
    waiting = [name for name, one in estimates.items() if one.get("hours") is None]
    hours, cost = sum(one["hours"] for one in counted), sum(one["cost"] for one in counted)
    yield (
        f"training: {duration(hours)} on {hardware.name}{money(cost)}, evaluation, data and communication not counted"
        + (f", nor {', '.join(waiting)}" if waiting else "")
    )
    if hardware.count > 1 and launch.processes != hardware.count:
        yield f"to use all of it: launch=ddp launch.processes={hardware.count}"


def count(value: float) -> str:
    """Of tokens and parameters: 124 M, 1.02 B."""
    for unit, name in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")):
        if value >= 0.9995 * unit:  # what would round to 1000 of the unit below
            return f"{value / unit:.3g}{name}"
    return f"{value:g}"


def size(value: float) -> str:
    """Of memory, in decimal units."""
    return f"{value / 1e9:.3g} GB" if value >= 0.9995e9 else f"{value / 1e6:.3g} MB"


def duration(hours: float) -> str:
    """Seconds to days."""
    for unit, name, most in ((3600, "s", 2 / 60), (60, "min", 2), (1, "h", 72)):
        if hours < most:
            return f"{hours * unit:.3g} {name}"
    return f"{hours / 24:,.0f} days"


def money(cost: float) -> str:
    """``, about $2.20``; nothing for a machine without a price."""
    return f", about ${cost:,.2f}" if cost else ""
