"""What a model card says about a model: gathered from its record, its lineage and evaluations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmstages.convert.hf_folder import has_template, stored_dtype
from llmstages.convert.model_card import CardFacts, Score
from llmstages.convert.weight_files import WeightFiles
from llmstages.pipeline.history import StoredArtifact, lineage, read_artifact
from llmstages.pipeline.store import RECORD
from llmstages.train import checks

SCORES = "scores.json"


def card_facts(artifact: StoredArtifact, name: str, license: str = "", **more: Any) -> CardFacts:
    """The facts of a model artifact, or of a model folder from elsewhere.

    Args:
        more: further attributes of CardFacts, which take the place of those found.
    """
    found: dict[str, Any] = {
        "name": name,
        "record": artifact.record,
        "lineage": [step.record for step in lineage(artifact) if step.path != artifact.path],
        "checks": _checks(artifact.path),
        "scores": list(_scores(artifact)),
        "parameters": WeightFiles(artifact.path).parameters(),
        "dtype": stored_dtype(artifact.path),
        "chat": has_template(artifact.path),
        "license": license,
    }
    return CardFacts(**{**found, **more})


def _checks(folder: Path) -> list[Mapping[str, Any]]:
    found = _read(folder / checks.FILE)
    return found if isinstance(found, list) else []


def _read(file: Path) -> Any:
    """The JSON value of a file; None if there is no such file."""
    if not file.exists():
        return None
    return json.loads(file.read_text(encoding="utf-8"))


def _scores(artifact: StoredArtifact) -> Iterator[Score]:
    """What evaluations in the same store measured for exactly this model, the newest first.

    An evaluation is of this model if its record names the model's fingerprint; a later model of
    the same step has another one.
    """
    if not artifact.record:
        return
    model = [artifact.record["step"], artifact.record["fingerprint"]]
    evaluations = []
    for record_file in artifact.path.parent.glob(f"*/{RECORD}"):
        step = read_artifact(record_file.parent)
        if step.kind == "scores" and model in _measured(step.record):
            evaluations.append(step)
    seen = set()
    for step in sorted(evaluations, key=lambda step: -step.finished):
        for score in _scores_of(step, model[0]):
            place = (score.task, score.group, score.metric)
            if place not in seen:
                seen.add(place)
                yield score


def _measured(record: Mapping[str, Any]) -> Iterator[list[str]]:
    """[step, fingerprint] of each model that an evaluation measured."""
    inputs = (record.get("identity") or {}).get("inputs") or {}
    for value in inputs.values():
        if isinstance(value, list):
            yield from value


def _scores_of(step: StoredArtifact, model: str) -> Iterator[Score]:
    scores = _read(step.path / SCORES) or {}
    for task, groups in scores.items():
        for group, models in groups.items():
            for metric, value in models.get(model, {}).items():
                if isinstance(value, (int, float)):
                    yield Score(task, group, metric, value)
