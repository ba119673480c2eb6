"""What earlier runs made, found by the names that people use.

A name is a step, a key of the store, a folder or a hub address.

The commands that look at results (chat, tokens) start here. Nothing is composed or planned: what
counts is what lies in ``runs/`` and in the store, so that a result can be used although its recipe
has changed since.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError, near
from llmstages.core.secrets import mask
from llmstages.pipeline.overrides import key_of, value_of
from llmstages.pipeline.plan import Source
from llmstages.pipeline.store import RECORD, Store

# Beside the links of a run; no step's name has a dot.
INVOCATION = "run.json"
RUN_LOG = "run.log"


@dataclass(frozen=True)
class StoredArtifact:
    """A finished step, or a folder from elsewhere, whose record is empty.

    Attributes:
        outdated: why this is not what the run was last asked for, or "".
    """

    name: str
    path: Path
    record: Mapping[str, Any]
    outdated: str = ""

    @property
    def kind(self) -> str:
        return str(self.record.get("kind", ""))

    @property
    def finished(self) -> float:
        """Seconds since the epoch; 0 if it is not known."""
        return self.record.get("finished", 0)


@dataclass(frozen=True)
class PastRun:
    """The finished steps of a run.

    Attributes:
        steps: name -> step.
        where: the folder in which they were found, for messages.
        store: the store of the run.
        chat: the step whose model the recipe chooses to talk to, if it does.
    """

    steps: Mapping[str, StoredArtifact]
    where: str
    store: Path
    chat: str | None = None

    def of_kind(self, kind: str) -> list[StoredArtifact]:
        """The steps that made artifacts of a kind, in the order in which they were finished."""
        steps = [step for step in self.steps.values() if step.kind == kind]
        return sorted(steps, key=lambda step: step.finished)


@dataclass(frozen=True)
class Invocation:
    """How a run was started, as ``runs/NAME/run.json`` says.

    Attributes:
        name: of the run.
        overrides: as the user wrote them.
        started: seconds since the epoch.
    """

    name: str
    overrides: Sequence[str]
    started: float


def save_invocation(
    runs: Path | str, name: str, overrides: Sequence[str], keys: Mapping[str, str]
) -> None:
    """Note how a run is started, so that later commands know what it composed.

    Args:
        keys: step -> its key in the store. A link that leads elsewhere is an earlier result.

    Raises:
        StageError: the folder cannot be written to.
    """
    file = Path(runs) / name / INVOCATION
    facts = mask({"overrides": list(overrides), "started": time.time(), "keys": dict(keys)})
    aside = file.with_name(f".{INVOCATION}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
        aside.replace(file)
    except OSError as error:
        raise StageError(
            f"cannot write to the folder of the run, {file.parent}: {error.strerror}. "
            "Choose another: runs=FOLDER"
        ) from error


def run_log(runs: Path | str, name: str) -> Path:
    """The log of a run: what it printed, from the plan to the last table."""
    return Path(runs) / name / RUN_LOG


def step_log(step: str, given: Sequence[str] = ()) -> Path:
    """The log of a step in the last run, or in the run that ``name=`` or ``recipe=`` names.

    Raises:
        StageError: there is none; the message lists the logs that there are.
    """
    from llmstages.pipeline.compose_cache import compose

    past = last_invocation(given)
    composed = compose([word for word in given if key_of(word) in ("runs", "store", "recipe")])
    folder = Path(composed.runs) / (past.name if past else composed.name)
    file = folder / f"{step}.log"
    if file.exists():
        return file
    others = sorted(Path(composed.runs).glob(f"*/{step}.log"))
    logs = sorted(path.stem for path in folder.glob("*.log") if path.name != RUN_LOG)
    advice = f"; it has one in {', '.join(map(str, others))}" if others else ""
    raise StageError(
        f"{folder}/ has no log of {step!r}, since that run did not make it{advice}."
        f"{near(step, logs)} Logs there: {', '.join(logs) or 'none'}"
    )


def invocations(runs: Path | str) -> list[Invocation]:
    """How the runs in a folder were started, the last one first."""
    found: list[Invocation] = []
    for file in Path(runs).glob(f"*/{INVOCATION}"):
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            found.append(Invocation(file.parent.name, facts["overrides"], facts["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # half of a disk's last write: the run is as if it were of an earlier version
    return sorted(found, key=lambda invocation: -invocation.started)


def last_invocation(given: Sequence[str] = ()) -> Invocation | None:
    """How the last run was started, or the one that ``name=`` names.

    None where ``recipe=`` is given, since that composes a run of its own, and where there is no
    run yet.

    Raises:
        StageError: no run has the name; the message lists those that there are.
    """
    from llmstages.pipeline.compose_cache import compose

    if value_of(given, "recipe"):
        return None
    places = [word for word in given if key_of(word) in ("runs", "store")]
    runs = compose(places).runs
    known = invocations(runs)
    name = value_of(given, "name")
    if not name:
        return known[0] if known else None
    for invocation in known:
        if invocation.name == name:
            return invocation
    names = [invocation.name for invocation in known]
    raise StageError(
        f"name={name}: there is no run of that name in {runs}/.{near(name, names)} "
        f"Runs: {', '.join(names) or 'none'}"
    )


def last_run(overrides: Sequence[str] = ()) -> PastRun:
    """The run that changed last, or the one that the overrides name (``name=`` or ``recipe=``).

    Without runs it is the newest result of each step in the store.
    """
    from llmstages.pipeline.compose_cache import compose

    composed = compose(overrides)
    store = Path(composed.store)
    runs = Path(composed.runs or "runs")
    if any(override.startswith(("name=", "recipe=")) for override in overrides):
        folder = runs / composed.name
        return PastRun(_steps_of_run(folder), str(folder), store, composed.chat)
    newest: PastRun | None = None
    newest_time = 0.0
    for folder in runs.glob("*"):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        steps = _steps_of_run(folder)
        if not steps:
            continue
        # The folder's own time counts too: a run that reused every step changed only its links.
        changed = max(folder.stat().st_mtime, *(step.finished for step in steps.values()))
        if newest is None or changed > newest_time:
            newest = PastRun(steps, str(folder), store, composed.chat)
            newest_time = changed
    return newest or PastRun(_newest_of_store(store), str(store), store, composed.chat)


def run_in(folder: Path, past: PastRun) -> PastRun:
    """The run in a folder as it is now, with the store of another one that was read before."""
    return PastRun(_steps_of_run(folder), str(folder), past.store, past.chat)


def _steps_of_run(folder: Path) -> dict[str, StoredArtifact]:
    keys = planned_keys(folder)
    steps = {}
    for link in sorted(folder.glob("*")):
        step = read_artifact(link)
        if not step.record:
            continue
        if keys.get(step.name, step.path.name) != step.path.name:
            made = time.strftime("%Y-%m-%d %H:%M", time.localtime(step.finished))
            why = (
                f"{step.name} is an earlier result, of {made}: the last run {folder.name!r} asked "
                "for another one and did not finish it"
            )
            step = replace(step, outdated=why)
        steps[step.name] = step
    return steps


def planned_keys(folder: Path) -> Mapping[str, str]:
    """Step -> key, as the run was last asked for; empty if that is not known."""
    try:
        facts = json.loads((folder / INVOCATION).read_text(encoding="utf-8"))
        return dict(facts["keys"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _newest_of_store(store: Path) -> dict[str, StoredArtifact]:
    """Step -> its newest result."""
    newest: dict[str, StoredArtifact] = {}
    for record_file in store.glob(f"*/{RECORD}"):
        step = read_artifact(record_file.parent)
        name = str(step.record.get("step") or step.name)
        if name not in newest or newest[name].finished < step.finished:
            newest[name] = StoredArtifact(name, step.path, step.record)
    return newest


def read_artifact(folder: Path) -> StoredArtifact:
    """The artifact in a folder, under the folder's name.

    Raises:
        StageError: its record is damaged.
    """
    file = folder / RECORD
    if not file.exists():
        return StoredArtifact(folder.name, folder, {})
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StageError(
            f"{file} cannot be read ({error}); `llmstages verify` names what is damaged"
        ) from error
    return StoredArtifact(folder.name, folder.resolve(), record)


def find(given: str, run: PastRun, kind: str) -> StoredArtifact:
    """What a user names: a step, a key of the store, a folder, or ``[hub:]ORG/NAME[@REVISION]``.

    Args:
        given: the name.
        run: where a step is looked for.
        kind: what is wanted, for a download and for messages.

    Raises:
        StageError: there is no such thing; the message lists what there is.
    """
    if given in run.steps:
        return run.steps[given]
    # Names of the run go first, so that a folder called `sft` does not hide the step.
    for path in (Path(given).expanduser(), run.store / given):
        if path.is_dir():
            return StoredArtifact(given, path.resolve(), read_artifact(path).record)
    is_hub_name = given.count("/") == 1 and not given.startswith((".", "~", "/"))
    if given.startswith("hub:") or is_hub_name:
        return _download(given, kind)
    raise StageError(
        f"{_not_found(given, run, kind)}; also taken: a folder, a key of the store, or "
        "hub:ORG/NAME@REVISION"
    )


def find_step(name: str, run: PastRun, kind: str) -> StoredArtifact:
    """The step of a run that made a kind of artifact; no folder and no hub address is taken.

    Raises:
        StageError: there is no such step; the message lists what there is.
    """
    step = run.steps.get(name)
    if step is None or not _fits(step, kind):
        raise StageError(_not_found(name, run, kind))
    return step


def _not_found(name: str, run: PastRun, kind: str) -> str:
    fits = [step.name for step in run.steps.values() if _fits(step, kind)]
    has = ", ".join(fits) or "none"
    return f"there is no {kind} {name!r}.{near(name, fits)} {run.where} has {has}"


def _download(given: str, kind: str) -> StoredArtifact:
    from llmstages.pipeline.sources import fetch

    address = given if given.startswith("hub:") else f"hub:{given}"
    if "@" not in address:
        address += "@main"
    return StoredArtifact(given, fetch(Source(address, kind)).path, {})


def _fits(step: StoredArtifact, kind: str) -> bool:
    """Whether a step has what is wanted: a model folder holds its tokenizer too."""
    return step.kind == kind or (kind == "tokenizer" and step.kind == "model")


def lineage(artifact: StoredArtifact) -> Iterator[StoredArtifact]:
    """The artifact and everything that it was made from, nearest first.

    What is no longer in its store is left out.
    """
    queue = [artifact]
    seen: set[Path] = set()
    while queue:
        current = queue.pop(0)
        if current.path in seen:
            continue
        seen.add(current.path)
        yield current
        for key in source_keys(current):
            folder = current.path.parent / key
            if (folder / RECORD).exists():
                found = read_artifact(folder)
                name = str(found.record.get("step") or found.name)
                queue.append(StoredArtifact(name, folder, found.record))


def source_keys(artifact: StoredArtifact) -> list[str]:
    """The keys, in its store, of what an artifact was made from."""
    return [f"{name}-{fingerprint}" for name, fingerprint in _sources(artifact.record)]


def newer_sources(artifact: StoredArtifact, run: PastRun) -> list[str]:
    """Steps of a run that an artifact was made from, but in an earlier version."""
    return [
        name
        for name, fingerprint in _sources(artifact.record)
        if name in run.steps and run.steps[name].path.name != f"{name}-{fingerprint}"
    ]


def made_from(store: Store, key: str) -> list[str]:
    """Names of the steps whose results in the store were made from a result, directly or not.

    They are in the order in which they were finished.
    """
    records = sorted(store.records(), key=lambda record: record.get("finished", 0))
    keys = {key}
    names: dict[str, None] = {}  # a set that keeps the order
    for record in records:
        sources = {f"{name}-{fingerprint}" for name, fingerprint in _sources(record)}
        if sources & keys:
            keys.add(record["key"])
            names[str(record["step"])] = None
    return list(names)


def _sources(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(step, fingerprint) of each source of a recorded step.

    The names are in its inputs, the fingerprints in its identity.
    """
    identity = record.get("identity") or {}
    fingerprints = identity.get("inputs") or {}
    for name, steps in (record.get("inputs") or {}).items():
        fingerprint = fingerprints.get(name)
        if isinstance(fingerprint, list):  # of a "many" input: [step, fingerprint] pairs
            for step, step_fingerprint in fingerprint:
                yield str(step), str(step_fingerprint)
        elif fingerprint is not None and steps:
            yield steps[0], str(fingerprint)
