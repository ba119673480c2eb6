"""What a plan will cost before it runs: the steps' own estimates, for a named machine.

It walks the plan in the order in which data will flow. A finished step contributes its recorded
metrics, a new one what its stage expects (``estimate``, see core/stage.py), and each hands this on
to the steps that it feeds. For a step that trains, the expectation becomes memory, hours and money
here. What is not known yet is named; it is never guessed silently.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.cost import power
from llmstages.cost.generation import Generation
from llmstages.cost.memory import training_memory
from llmstages.cost.model import (
    Training,
    model_from_config,
    tokenizer_facts,
)
from llmstages.launch.config import Launch
from llmstages.launch.hardware import Hardware
from llmstages.pipeline.plan import Planned, Source, Step
from llmstages.pipeline.store import Store

Facts = Mapping[str, Any]  # what is known of a step or source; always with its ``name``
UNITS = ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k"))
# (units per hour, name, the hours up to which the unit is used)
TIME_UNITS = ((3600, "s", 2 / 60), (60, "min", 2), (1, "h", 72))


def estimate_steps(
    planned: Sequence[Planned], store: Store, hardware: Hardware, launch: Launch
) -> dict[str, dict[str, Any]]:
    """Step -> its estimate, for the steps to be run that have one.

    Amounts are in bytes, tokens, FLOPs, hours and US dollars; None: not known yet.
    """
    known: dict[Step, Facts] = {}
    estimates: dict[str, dict[str, Any]] = {}
    for plan in planned:
        step = plan.step
        if plan.state == "reused":
            known[step] = _recorded_facts(plan, store)
            continue
        try:
            facts = _expected_facts(step, known)
            estimate = _estimate(facts, hardware, launch)
        except Exception as error:
            # The lack of an estimate must not stop a plan: whatever a plugin raises is one line.
            reason = f"{step.uses}.estimate(): {type(error).__name__}: {error}"
            facts = {"name": step.name, "no_estimate": reason}
            estimate = {"no_estimate": reason}
        if step.kind == "scores" and estimate and facts.get("questions"):
            estimate = {**estimate, **power.facts(int(facts["questions"]))}
        known[step] = facts
        if estimate:
            estimates[step.name] = estimate
    return estimates


def _estimate(facts: Facts, hardware: Hardware, launch: Launch) -> dict[str, Any]:
    """The estimate of a step from what its stage expects; empty if there is none."""
    if "no_estimate" in facts:
        return {"no_estimate": facts["no_estimate"]}
    estimate: dict[str, Any] = {}
    training, generation = facts.get("training"), facts.get("generation")
    if isinstance(training, Training):
        estimate = estimate_training(training, hardware, zero_stage(launch))
    if isinstance(generation, Generation):
        estimate = add_generation(estimate, generation, hardware)
    if not estimate and "summary" in facts:
        return {"summary": facts["summary"]}
    return estimate


def _recorded_facts(plan: Planned, store: Store) -> Facts:
    """Facts about a finished step: its metrics, the bytes of its table, the sizes of its model."""
    record = store.record(plan.key)
    facts = {"name": plan.step.name, **record["metrics"]}
    table_size = 0
    for name, (size, _) in record["files"].items():
        if name.startswith("data/"):
            table_size += size
    folder = store.folder(plan.key)
    if table_size:
        facts["bytes"] = table_size
        facts["table"] = str(folder / "data")
    return {**facts, **_model_facts(folder, plan.step.kind)}


def _expected_facts(step: Step, known: Mapping[Step, Facts]) -> Facts:
    """What a stage expects of a run, and the model that it trains, if it has an estimate()."""
    if not hasattr(step.stage, "estimate"):
        return {"name": step.name}
    inputs: dict[str, list[Facts]] = {name: [] for name in step.stage.inputs}
    for name, source in step.sources():
        if isinstance(source, Source):
            inputs[name].append(_source_facts(source))
        else:
            inputs[name].append(known[source])
    expected = step.stage().estimate(step.config, inputs)
    facts: dict[str, Any] = {"name": step.name}
    training = expected.get("training")
    if isinstance(training, Training):
        facts["model"] = training.model  # what it trains is what it makes
    return {**facts, **expected}


def _source_facts(source: Source) -> Facts:
    facts = {"name": source.name}
    if source.name.startswith("hub:"):
        return facts  # its files would have to be downloaded first
    return {**facts, **_model_facts(Path(source.name), source.kind)}


def _model_facts(folder: Path, kind: str) -> Facts:
    """The sizes of the model in a folder, if its config.json gives them."""
    file = folder / "config.json"
    if kind != "model" or not file.is_file():
        return {}
    try:
        model = model_from_config(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError):
        # A folder from elsewhere: the step itself finds out whether it is a model.
        return {}
    tokenizer = tokenizer_facts(folder)
    return {"model": model, **tokenizer} if model else tokenizer


def zero_stage(launch: Launch) -> int:
    """The stage of ZeRO that a launcher asks for; 0 for none.

    FSDP counts as stage 3, since it shards the same.
    """
    if launch.fsdp:
        return 3
    return int(launch.deepspeed.get("zero_optimization", {}).get("stage", 0))


def estimate_training(work: Training, hardware: Hardware, zero: int = 0) -> dict[str, Any]:
    """The estimate of one training step on a machine, as plain values for JSON."""
    flops = work.flops()
    hours = cost = None
    if flops is not None:
        hours = flops / hardware.speed(work.bf16) / 3600
        cost = hours * hardware.count * hardware.price
    memory = training_memory(work, hardware.count, zero, hardware.is_cpu)
    available = hardware.memory()
    return {
        "hardware": hardware.name,
        "parameters": work.model.parameters(),
        "trained": work.trained(),
        "tokens": work.tokens(),
        "updates": work.updates(),
        "because": work.because,
        "flops_per_token": work.model.flops(work.max_length),
        "flops": flops,
        "hours": hours,
        "cost": cost,
        "mfu": hardware.mfu,
        "zero": zero,
        "memory": memory,
        "memory_available": available,
        "notes": _problems(work, hardware, zero, memory["peak"], available),
    }


def add_generation(
    estimate: Mapping[str, Any], work: Generation, hardware: Hardware
) -> dict[str, Any]:
    """The estimate of a step that also lets models write; ``estimate`` is that of its training.

    Without training it is empty, and the step runs in one process. Time and cost of both parts are
    added, and so is their memory.
    """
    processes = hardware.count if estimate else 1
    speed = hardware.speed(bf16=False) / hardware.count
    hours = work.seconds(speed, processes) / 3600
    cost = hours * hardware.count * hardware.price
    available = hardware.memory()
    memory = dict(estimate.get("memory") or {"weights": work.weight_bytes(), "peak": 0})
    if not memory["peak"]:
        memory["peak"] = memory["weights"]
    memory |= {"cache": work.cache_bytes(), "kept": work.kept_bytes}
    memory["peak"] += work.cache_bytes() + work.kept_bytes
    notes = [note for note in estimate.get("notes", ()) if not note.startswith("does not fit")]
    if available and memory["peak"] > available:
        lower = "micro_batch_size or max_completion_length" if estimate else "batch"
        notes.append(f"does not fit: lower {lower}")
    return {
        **estimate,
        "hardware": hardware.name,
        "generation": {
            "replies": len(work.models) * work.prompts,
            "tokens": work.tokens(),
            "new_tokens": work.new_tokens,
            "flops": work.flops(),
            "hours": hours,
            "processes": processes,
            "because": work.because,
        },
        "hours": hours + (estimate.get("hours") or 0.0),
        "cost": cost + (estimate.get("cost") or 0.0),
        "mfu": hardware.mfu,
        "zero": estimate.get("zero", 0),
        "memory": memory,
        "memory_available": available,
        "notes": notes,
    }


def _problems(
    work: Training, hardware: Hardware, zero: int, peak: int, available: float
) -> list[str]:
    """What would not work on this machine, and what to change."""
    notes = []
    rows_at_once = work.rows_at_once(hardware.count) * hardware.count
    if work.batch_size % rows_at_once:
        notes.append(
            f"batch_size={work.batch_size} cannot be shared by {hardware.count} processes: "
            f"make it a multiple of {rows_at_once}, or set micro_batch_size"
        )
    if available and peak > available:
        note = "does not fit: lower micro_batch_size"
        if hardware.count > 1 and not zero:
            note += " or shard with launch=zero2"
        notes.append(note)
    return notes


def describe(estimate: Mapping[str, Any]) -> Iterator[str]:
    """One estimate for people, line by line."""
    if "summary" in estimate:
        yield estimate["summary"]
        return
    if "no_estimate" in estimate:
        yield f"no estimate: {estimate['no_estimate']}"
        return
    if "parameters" in estimate:
        yield from _describe_training(estimate)
    if "generation" in estimate:
        yield _describe_generation(estimate["generation"])
    yield _describe_memory(estimate)
    if estimate.get("questions"):
        yield power.describe(int(estimate["questions"]))
    yield from estimate["notes"]


def _describe_generation(generation: Mapping[str, Any]) -> str:
    processes = f"{generation['processes']} processes"
    if generation["processes"] == 1:
        processes = "one process"
    return (
        f"generation: at most {format_count(generation['tokens'])} tokens in "
        f"{format_count(generation['replies'])} replies of up to {generation['new_tokens']} "
        f"({generation['because']}): {format_hours(generation['hours'])} in {processes}"
    )


def _describe_training(estimate: Mapping[str, Any]) -> Iterator[str]:
    sizes = f"{format_count(estimate['parameters'])} parameters"
    if estimate["trained"] != estimate["parameters"]:
        sizes += f" ({format_count(estimate['trained'])} trained)"
    if estimate["tokens"] is None:
        per_token = format_count(estimate["flops_per_token"])
        yield f"{sizes}, {per_token} FLOPs per token; duration: {estimate['because']}"
    else:
        yield (
            f"{sizes}, {format_count(estimate['tokens'])} tokens in {estimate['updates']:,} "
            f"updates ({estimate['because']})"
        )
        yield _describe_work(estimate)


def _describe_work(estimate: Mapping[str, Any]) -> str:
    flops = f"{estimate['flops']:.2e}".replace("e+", "e")
    tokens_per_parameter = estimate["tokens"] / estimate["parameters"]
    # Where a step also generates, its hours are those of both parts.
    share = 1.0
    if "generation" in estimate:
        share = 1 - estimate["generation"]["hours"] / estimate["hours"]
    hours, cost = share * estimate["hours"], share * estimate["cost"]
    return (
        f"{flops} FLOPs: {format_hours(hours)} on {estimate['hardware']} "
        f"at {estimate['mfu']:.0%} of peak{format_cost(cost)}; "
        f"{tokens_per_parameter:.2g} tokens per parameter"
    )


def _describe_memory(estimate: Mapping[str, Any]) -> str:
    memory, available = estimate["memory"], estimate["memory_available"]
    text = f"memory: peak {format_bytes(memory['peak'])}"
    if available:
        text += f" of {format_bytes(available)}"
    if estimate["zero"]:
        text += f" (ZeRO-{estimate['zero']})"
    purposes = []
    for name, size in memory.items():
        if size and name not in ("live", "peak"):
            purposes.append(f"{name} {format_bytes(size)}")
    return f"{text}, without the process itself: {', '.join(purposes)}"


def describe_total(
    estimates: Mapping[str, Mapping[str, Any]], hardware: Hardware, launch: Launch
) -> Iterator[str]:
    """The sum over a plan, and what it leaves out."""
    hours = cost = 0.0
    unknown = []
    timed = {name: known for name, known in estimates.items() if "summary" not in known}
    for name, estimate in timed.items():
        if estimate.get("hours") is None:
            unknown.append(name)
        else:
            hours += estimate["hours"]
            cost += estimate["cost"]
    if len(unknown) == len(timed):
        return
    work, rest = "training", "evaluation, data and communication"
    if any("generation" in estimate for estimate in estimates.values()):
        work, rest = "training and generation", "data and communication"
    text = (
        f"{work}: {format_hours(hours)} on {hardware.name}{format_cost(cost)}, {rest} not counted"
    )
    if unknown:
        text += f", nor {', '.join(unknown)}"
    yield text
    if hardware.count > 1 and launch.processes != hardware.count:
        yield f"to use all of it: launch=ddp launch.processes={hardware.count}"


def format_count(value: float) -> str:
    """A number of tokens or parameters for people: 124 M, 1.02 B."""
    for unit, name in UNITS:
        # From 999.5 of the unit below, three digits would round to 1000.
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:g}"


def format_bytes(value: float) -> str:
    """An amount of memory for people, in decimal units."""
    if value >= 0.9995e9:
        return f"{value / 1e9:.3g} GB"
    return f"{value / 1e6:.3g} MB"


def format_hours(hours: float) -> str:
    """A duration for people, in seconds to days."""
    for per_hour, name, most in TIME_UNITS:
        if hours < most:
            return f"{hours * per_hour:.3g} {name}"
    return f"{hours / 24:,.0f} days"


def format_cost(cost: float) -> str:
    """``, about $2.20``; nothing for a machine without a price."""
    if not cost:
        return ""
    return f", about ${cost:,.2f}"
