"""What an artifact was made from: a graph, and for each artifact its config, record and rows."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from llmstages.core.errors import StageError, near
from llmstages.core.secrets import mask
from llmstages.pipeline import history
from llmstages.pipeline.history import StoredArtifact
from llmstages.serve.answers import answer

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from llmstages.studio.app import Studio

ROWS = 5  # of a table that are shown
LONGEST_VALUE = 400  # characters of a value
MOST_FILES = 200
RECORD_SHOWN = ("stage", "key", "started", "finished", "seconds", "versions", "commit", "argv")


def routes(studio: Studio) -> list[BaseRoute]:
    """GET /api/lineage/STEP and GET /api/artifact/STEP/KEY."""
    from starlette.routing import Route

    def graph(request: Request) -> Response:
        return answer(lambda: graph_of(step_of(studio, request.path_params["step"])))

    def artifact(request: Request) -> Response:
        found = request.path_params
        return answer(lambda: details(studio, found["step"], found["key"]))

    return [
        Route("/api/lineage/{step}", graph),
        Route("/api/artifact/{step}/{key}", artifact),
    ]


def step_of(studio: Studio, name: str) -> StoredArtifact:
    """A step of the run.

    Raises:
        StageError: there is none of that name.
    """
    if name not in studio.run.steps:
        raise StageError(f"the run has no step of that name.{near(name, list(studio.run.steps))}")
    return studio.run.steps[name]


def graph_of(step: StoredArtifact) -> dict[str, Any]:
    """The artifacts that lead to a step.

    Returns:
        ``nodes``: step, key, kind, seconds and ``depth``: the longest way to it from the sources;
        ``edges``: [key of the source, key of what was made from it].
    """
    nodes = {artifact.path.name: artifact for artifact in history.lineage(step)}
    edges = [
        (source, key)
        for key, artifact in nodes.items()
        for source in history.source_keys(artifact)
        if source in nodes
    ]
    depths = depths_of(nodes, edges)
    return {
        "root": step.path.name,
        "nodes": [
            {
                "step": artifact.record.get("step") or artifact.name,
                "key": key,
                "kind": artifact.kind,
                "seconds": artifact.record.get("seconds"),
                "finished": artifact.finished,
                "depth": depths[key],
            }
            for key, artifact in nodes.items()
        ],
        "edges": [list(edge) for edge in edges],
    }


def depths_of(keys: Iterable[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """For each artifact the length of the longest way to it from one that was made of nothing."""
    sources: dict[str, list[str]] = {key: [] for key in keys}
    for source, made in edges:
        sources[made].append(source)

    @cache
    def depth(key: str) -> int:
        return 1 + max(map(depth, sources[key]), default=-1)

    return {key: depth(key) for key in sources}


def details(studio: Studio, step: str, key: str) -> dict[str, Any]:
    """The config, record, files and first rows of an artifact in the lineage of a step.

    Raises:
        StageError: the key is not one of the lineage.
    """
    lineage = {found.path.name: found for found in history.lineage(step_of(studio, step))}
    if key not in lineage:
        raise StageError("the lineage of the step has no artifact of that key")
    artifact = lineage[key]
    record = dict(artifact.record)
    return {
        "step": record.get("step") or artifact.name,
        "kind": artifact.kind,
        "config": options_of(record),
        "record": mask({name: record.get(name) for name in RECORD_SHOWN if name in record}),
        "metrics": record.get("metrics") or {},
        "files": files_of(artifact),
        "rows": mask(rows_of(artifact)),
    }


def options_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options of a step, each with whether it differs from the default of its stage."""
    defaults = _defaults(str(record.get("stage")))
    return [
        {"name": name, "value": value, "changed": name in defaults and defaults[name] != value}
        for name, value in mask(record.get("config") or {}).items()
    ]


def _defaults(stage: str) -> dict[str, Any]:
    """Option -> its default, for those that have one; {} if the stage is not installed any more."""
    from llmstages.core import registry

    try:
        fields = dc.fields(registry.load(registry.STAGES, stage).Config)
    except StageError:
        return {}
    defaults = {one.name: one.default for one in fields if one.default is not dc.MISSING}
    for one in fields:
        if one.default_factory is not dc.MISSING:
            defaults[one.name] = one.default_factory()
    return defaults


def files_of(artifact: StoredArtifact) -> list[dict[str, Any]]:
    """The files of an artifact with their sizes in bytes, the first ones by name."""
    paths = sorted(path for path in artifact.path.rglob("*") if path.is_file())
    return [
        {"name": path.relative_to(artifact.path).as_posix(), "bytes": path.stat().st_size}
        for path in paths[:MOST_FILES]
    ]


def rows_of(artifact: StoredArtifact) -> list[dict[str, str]]:
    """The first rows of an artifact's table, each value as a short text; [] without a table."""
    folder = artifact.path / "data"
    if not folder.is_dir():
        return []
    from llmstages.data import tables

    table = tables.load(folder)
    first = [table[number] for number in range(min(ROWS, len(table)))]
    return [{name: _shown(value) for name, value in row.items()} for row in first]


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "..."
