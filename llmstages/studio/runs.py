"""Runs and their steps: what is finished, what is running and how far it is, what failed."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmstages.core.errors import StageError, near
from llmstages.core.locks import held_if_free
from llmstages.core.secrets import mask
from llmstages.pipeline import history
from llmstages.pipeline.store import RECORD, Store
from llmstages.serve import fields
from llmstages.serve.answers import answer, answer_object

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from llmstages.studio.app import Studio

TAIL_LINES = 60
TAIL_BYTES = 200_000  # of a log that are read
MOST_POINTS = 400  # of a curve
MOST_CURVES = 12
# "2026-11-27 05:04:51   pretrain 146/1457, 2.3 min left loss 1.856, 9.9k tok/s"
PROGRESS = re.compile(r"^(?P<time>[\d-]+ [\d:]+)\s+\S.*? (?P<done>[\d.]+)/(?P<total>[\d.]+)[, ]")
LEFT = re.compile(r"([\d.]+ (?:s|min|h)) left")
VALUE = re.compile(r"\b(loss|reward) (-?\d+(?:\.\d+)?)")
WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


def routes(studio: Studio) -> list[BaseRoute]:
    """GET /api/run, POST /api/run, GET /api/step/STEP."""
    from starlette.routing import Route

    def run(request: Request) -> Response:
        return answer(lambda: run_facts(studio))

    async def choose(request: Request) -> Response:
        return await answer_object(request, lambda given: choose_run(studio, given))

    def step(request: Request) -> Response:
        return answer(lambda: step_facts(studio, request.path_params["step"]))

    return [
        Route("/api/run", run, methods=["GET"]),
        Route("/api/run", choose, methods=["POST"]),
        Route("/api/step/{step}", step),
    ]


def choose_run(studio: Studio, given: dict[str, Any]) -> dict[str, Any]:
    """Look at another run of the runs folder.

    Raises:
        StageError: there is none of that name.
    """
    name = fields.text(given, "name", 200)
    known = [invocation.name for invocation in history.invocations(studio.runs)]
    if name not in known:
        raise StageError(f"there is no run of that name.{near(name, known)}")
    studio.folder = studio.runs / name
    return run_facts(studio)


def run_facts(studio: Studio) -> dict[str, Any]:
    """The run as it is now.

    Returns:
        ``where``, ``models``, ``tokenizers`` and ``chat``: names for the views; ``runs``: all
        runs, the last one first; ``steps``: those that were asked for, with their state.
    """
    run = studio.reload()
    tokenizers = [step.name for step in run.of_kind("tokenizer")]
    return {
        "where": run.where,
        "name": studio.folder.name if studio.folder else "",
        "runs": [
            {"name": one.name, "overrides": mask(list(one.overrides)), "started": one.started}
            for one in history.invocations(studio.runs)
        ],
        "models": studio.pool.names(),
        "chat": run.chat,
        "tokenizers": [*tokenizers, *studio.pool.names()],
        "steps": steps_of(studio),
        "report": str(run.steps["report"].path) if "report" in run.steps else "",
    }


def steps_of(studio: Studio) -> list[dict[str, Any]]:
    """The steps of the run, in the order of the plan, or by time where there is no plan."""
    planned = history.planned_keys(studio.folder) if studio.folder else {}
    store = Store(studio.run.store)
    steps = [_state(studio, store, name, key) for name, key in planned.items()]
    # A run from Python has no plan on disk, and earlier results stay linked.
    others = [step for step in studio.run.steps.values() if step.name not in planned]
    others.sort(key=lambda step: step.finished)
    return steps + [_finished(step.name, step.record, step.outdated) for step in others]


def _finished(name: str, record: Any, outdated: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "kind": record.get("kind", ""),
        "stage": record.get("stage", ""),
        "state": DONE,
        "seconds": record.get("seconds"),
        "finished": record.get("finished", 0),
        "outdated": outdated,
        "metrics": record.get("metrics") or {},
    }


def _state(studio: Studio, store: Store, name: str, key: str) -> dict[str, Any]:
    """A planned step: finished, running (its lock is held), failed (it left a log) or waiting."""
    if (store.folder(key) / RECORD).exists():
        return _finished(name, store.record(key))
    state = WAITING
    log = _log_of(studio, name)
    if store.lock_file(key).exists():
        with held_if_free(store.lock_file(key)) as free:
            state = WAITING if free else RUNNING
    lines = _tail(log)
    if state == WAITING and any(f"{name} failed" in line for line in lines[-5:]):
        state = FAILED
    progress = progress_of(lines)
    last = progress[-1] if progress and state == RUNNING else {}
    return {"name": name, "kind": "", "state": state, "progress": last, "metrics": {}}


def step_facts(studio: Studio, name: str) -> dict[str, Any]:
    """A step in detail: its state, the tail of its log, its curves.

    Raises:
        StageError: the run has no such step.
    """
    studio.reload()
    steps = {step["name"]: step for step in steps_of(studio)}
    if name not in steps:
        raise StageError(f"the run has no step of that name.{near(name, list(steps))}")
    lines = _tail(_log_of(studio, name))
    facts = steps[name]
    curves = _logged_curves(studio, name) if facts["state"] == DONE else []
    if not curves:
        curves = _curves_of_progress(progress_of(lines))
    return {**facts, "lines": mask(lines[-TAIL_LINES:]), "curves": curves, "now": time.time()}


def _log_of(studio: Studio, name: str) -> Path:
    return (studio.folder or studio.runs) / f"{name}.log"


def _tail(log: Path) -> list[str]:
    """The last lines of a log; none if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def progress_of(lines: list[str]) -> list[dict[str, Any]]:
    """The progress that a log tells: done, total, time left, and what is measured meanwhile."""
    points = []
    for line in lines:
        match = PROGRESS.match(line)
        if not match:
            continue
        left = LEFT.search(line)
        point: dict[str, Any] = {
            "done": float(match["done"]),
            "total": float(match["total"]),
            "left": left[1] if left else "",
        }
        point.update({name: float(value) for name, value in VALUE.findall(line)})
        points.append(point)
    return points


def _curves_of_progress(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    curves = []
    for name in ("loss", "reward"):
        values = [[point["done"], point[name]] for point in points if name in point]
        if len(values) > 1:
            curves.append({"name": name, "points": values[-MOST_POINTS:]})
    return curves


def _logged_curves(studio: Studio, name: str) -> list[dict[str, Any]]:
    """The curves of a finished training step, from its log.jsonl."""
    file = studio.run.steps[name].path / "log.jsonl" if name in studio.run.steps else None
    if file is None or not file.exists():
        return []
    from llmstages.data import tables

    rows = tables.read_lines(file)
    curves: dict[str, list[list[float]]] = {}
    for row in rows:
        for metric, value in row.items():
            if metric not in ("step", "epoch") and isinstance(value, (int, float)):
                curves.setdefault(metric, []).append([row.get("step", 0), value])
    chosen = sorted(curves, key=lambda metric: (metric not in ("loss", "reward"), metric))
    return [
        {"name": metric, "points": _thinned(curves[metric])}
        for metric in chosen
        if len(curves[metric]) > 1
    ][:MOST_CURVES]


def _thinned(points: list[list[float]]) -> list[list[float]]:
    stride = -(-len(points) // MOST_POINTS)
    return points[::stride]
