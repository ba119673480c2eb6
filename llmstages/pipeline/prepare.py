"""What every command begins with: overrides composed, steps wired, the plan made.

Also how a plan and the end of a run are written as JSON for other programs.
"""

from __future__ import annotations

import dataclasses as dc
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmstages.core.errors import StageError, near
from llmstages.core.secrets import mask
from llmstages.pipeline import history
from llmstages.pipeline.compose_cache import compose
from llmstages.pipeline.overrides import command, key_of, merge, value_of
from llmstages.pipeline.plan import Planned, Step, make_plan
from llmstages.pipeline.run_config import RunConfig, check_run_name
from llmstages.pipeline.store import Store
from llmstages.pipeline.wiring import make_steps

if TYPE_CHECKING:
    from llmstages.pipeline.runner import Outcome


@dc.dataclass(frozen=True)
class PreparedRun:
    """One composed and planned run."""

    composed: RunConfig
    store: Store
    planned: Sequence[Planned]
    overrides: Sequence[str] = ()

    def find(self, name: str) -> Planned:
        """The planned step of a name."""
        for plan in self.planned:
            if plan.step.name == name:
                return plan
        names = [plan.step.name for plan in self.planned]
        raise StageError(
            f"the run has no step {name!r}.{near(name, names)} Steps: {', '.join(names)}"
        )


def prepare(overrides: Sequence[str], name: str | None = None) -> PreparedRun:
    """Compose, wire and plan. Every mistake of the user is found here, before any work.

    Args:
        name: of the run, instead of the composed one.
    """
    composed = compose(overrides)
    if name:
        check_run_name(name, composed.runs)
        composed = dc.replace(composed, name=name)
    store = Store(composed.store)
    steps: list[Step] = make_steps(
        composed.slots, composed.steps, composed.only, composed.given, composed.notes
    )
    return PreparedRun(composed, store, make_plan(steps, store), tuple(overrides))


def prepare_past(given: Sequence[str], step: str, say: Callable[[str], None]) -> PreparedRun:
    """Prepare what the last run composed, up to and including a step.

    Args:
        given: overrides on top of those of the last run. ``name=NAME`` chooses another run;
            with ``recipe=NAME`` they are all there is.
        step: the step that is asked about.
        say: gets one line that says which run it is.
    """
    past = history.last_invocation(given)
    if past is None:
        return prepare(merge(given, f"only={step}"))
    extra = [word for word in given if key_of(word) != "name"]
    which = "run" if value_of(given, "name") else "last run,"
    say(f"of the {which} {past.name!r}: {command('run', past.overrides, *extra)}")
    return prepare(merge(past.overrides, *extra, f"only={step}"), past.name)


def plan_json(session: PreparedRun, estimates: Mapping[str, Any]) -> dict[str, Any]:
    """The plan for programs.

    Args:
        estimates: step -> its estimate (cost/plan.py), for steps that have one and are not reused.
    """
    steps = {}
    for plan in session.planned:
        name = plan.step.name
        steps[name] = {
            "state": plan.state,
            "why": plan.why,
            "stage": plan.step.uses,
            "notes": list(plan.step.notes),
            "estimate": estimates.get(name),
            "path": str(session.store.folder(plan.key)),
        }
    return {"steps": steps}


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The end of a run for programs: steps, claims and report."""
    end: dict[str, Any] = {
        "steps": {name: dc.asdict(result) for name, result in outcome.results.items()},
        "claims": claims(outcome),
        "report": report_path(outcome),
    }
    if outcome.error:
        end["error"] = outcome.error
    return end


def _report(outcome: Outcome) -> str | None:
    reports = [name for name, artifact in outcome.artifacts.items() if artifact.kind == "report"]
    return reports[-1] if reports else None


def report_path(outcome: Outcome) -> str | None:
    """index.html of the run's last report."""
    name = _report(outcome)
    return str(Path(outcome.results[name].path) / "index.html") if name else None


def claims(outcome: Outcome) -> list[Mapping[str, Any]]:
    """What the report says was to be shown and whether it was."""
    name = _report(outcome)
    if not name:
        return []
    return json.loads((outcome.artifacts[name].path / "claims.json").read_text(encoding="utf-8"))


def print_json(value: Any) -> None:
    """One object on the last line of standard output."""
    print(json.dumps(mask(value), ensure_ascii=False), flush=True)
