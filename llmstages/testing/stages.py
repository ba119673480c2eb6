"""Run a stage outside a run, and check that it keeps its contract."""

from __future__ import annotations

import dataclasses as dc
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core import artifacts, registry
from llmstages.core.artifacts import parse_input
from llmstages.core.config import build_config
from llmstages.core.contracts import violations
from llmstages.core.stage import Artifact, Context, Stage
from llmstages.testing.common import check_config, check_light_import
from llmstages.testing.tiny import tiny_artifact


@dc.dataclass(frozen=True)
class Result:
    """What a stage made: its artifact, its metrics, and the lines that it printed."""

    artifact: Artifact
    metrics: Mapping[str, float]
    said: Sequence[str]


def run_stage(
    stage: str | type,
    folder: Path,
    config: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Artifact | Sequence[Artifact]] | None = None,
) -> Result:
    """Run a stage as the runner would, without a store.

    Args:
        stage: the registered name, such as ``rl.grpo``, or the class.
        folder: a new folder; ``folder/out`` becomes the artifact.
        config: values that differ from the defaults.
        inputs: input name -> artifact, or a list of them. Inputs that are left out get a tiny
            artifact of their kind (``tiny_artifact``); optional ones stay open.
    """
    cls: Any = registry.load_stage(stage) if isinstance(stage, str) else stage
    name = stage if isinstance(stage, str) else cls.__name__
    typed = build_config(cls.Config, registry.fill_components(cls, config or {}), name)
    if hasattr(cls, "validate"):
        cls().validate(typed, name)
    folder.mkdir(parents=True, exist_ok=True)
    out, work = folder / "out", folder / "work"
    out.mkdir()
    work.mkdir()
    said: list[str] = []
    wired = _inputs(cls, folder, inputs or {})
    context = Context(folder.name, out, work, wired, say=said.append)
    metrics = dict(cls().run(typed, context))
    return Result(Artifact(folder.name, cls.output, out, folder.name), metrics, said)


def _inputs(
    cls: Any, folder: Path, given: Mapping[str, Artifact | Sequence[Artifact]]
) -> dict[str, Any]:
    """Every input of a stage: what is given, else a tiny artifact, or nothing for optional ones."""
    unknown = sorted(set(given) - set(cls.inputs))
    assert not unknown, f"{cls.__name__} has no input {unknown[0]!r}; it has {list(cls.inputs)}"
    wired: dict[str, Any] = {}
    for name, declared in cls.inputs.items():
        spec = parse_input(declared)
        value: Any = given.get(name)
        if value is None and not spec.optional and spec.kinds:
            value = tiny_artifact(spec.kinds[0], folder / "inputs" / name)
        if spec.many:
            if value is None:
                value = ()
            wired[name] = (value,) if isinstance(value, Artifact) else tuple(value)
        else:
            wired[name] = value
    return wired


def check_stage(
    stage: str | type,
    folder: Path,
    config: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Artifact | Sequence[Artifact]] | None = None,
) -> Result:
    """Check the contract of a stage, run it twice, and return the result of the first run.

    It checks the attributes and methods, help texts and ranges of the Config, that wrong values end
    in a clear error, that importing the module imports nothing heavy, that run() fills the files
    that the kind of its output requires, that metrics are finite numbers, and that two runs of
    equal config and inputs write equal bytes.

    Args:
        stage: the registered name, or the class.
        folder: an empty folder, such as pytest's ``tmp_path``.
        config: values that differ from the defaults.
        inputs: as in run_stage().
    """
    cls: Any = registry.load_stage(stage) if isinstance(stage, str) else stage
    problems = violations(cls, Stage)
    assert not problems, f"{cls.__name__} does not keep the contract of a stage: {problems}"
    check_config(cls.Config, cls.__name__)
    check_light_import(cls)
    kinds = [kind for declared in cls.inputs.values() for kind in parse_input(declared).kinds]
    for kind in (*kinds, cls.output):
        artifacts.kind_of(kind)  # StageError where nobody registers it
    assert registry.code_version(cls), f"{cls.__name__} needs a version of its own"
    first = run_stage(stage, folder / "first", config, inputs)
    again = run_stage(stage, folder / "first_again", config, inputs)
    _check_result(cls, first)
    for name, digest in _digests(first.artifact.path).items():
        same = _digests(again.artifact.path).get(name)
        assert same == digest, (
            f"{cls.__name__} wrote two different versions of {name} from equal config and inputs. "
            "Seed every random number from the config, and keep times and paths out of files"
        )
    return first


def _check_result(cls: Any, result: Result) -> None:
    absent = artifacts.missing(cls.output, result.artifact.path)
    assert not absent, f"run() did not write {absent}, which every {cls.output} has"
    for name, value in result.metrics.items():
        is_number = isinstance(value, (int, float)) and math.isfinite(value)
        assert isinstance(name, str), f"the name of a metric is {name!r}, which is not a text"
        assert is_number, f"the metric {name!r} is {value!r}, which is not a finite number"


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
