"""The contract: what a stage is, on one screen.

Config says *what* (and is hashed), Context says *where* (and is not), run() fills ``ctx.out`` and
returns metrics. Left out on purpose: scheduling, caching and launching. A stage never knows
whether it runs in the runner's process, in a worker, or on eight GPUs. It reads earlier artifacts
and writes its own folder, nothing else.
"""

from __future__ import annotations

import dataclasses as dc
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from llmstages.core.errors import StageError


def option(
    default: Any = dc.MISSING,
    help: str = "",
    *,
    factory: Callable[[], Any] | None = None,
    choices: tuple[Any, ...] = (),
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    identity: bool = True,
    file: bool = False,
    renamed_from: str = "",
    needs: Mapping[str, tuple[str, str]] | None = None,
) -> Any:
    """A field of a Config: its default, its help text and the values it may take.

    Args:
        default: the value unless one is set; without it (and without factory) a value is required.
        help: one sentence with the unit or shape; shown by ``llmstages list`` and ``show``.
        factory: makes the default, for lists and dictionaries.
        choices: the only values allowed (Hydra 1.3 knows no Literal).
        ge, gt, le, lt: the range of a number: at least, above, at most, below. A list of numbers is
            checked item by item. NaN and infinity are refused for every number.
        identity: False for a field that changes how a result is made but never the result (workers,
            logging). It stays out of the fingerprint.
        file: True for a path or glob. The content of the files enters the fingerprint, not the
            path.
        renamed_from: the name of this field in an earlier version; using it is an error that says
            so.
        needs: value -> (module, what to install) for values that need a package of their own:
            ``{"spacy": ("spacy", "llmstages[spacy]")}``. Without the package the value is refused.
    """
    limits = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata = {
        "help": help,
        "identity": identity,
        "file": file,
        "choices": tuple(choices),
        "range": {name: limit for name, limit in limits.items() if limit is not None},
        "renamed_from": renamed_from,
        "needs": dict(needs or {}),
    }
    if factory is not None:
        return dc.field(default_factory=factory, metadata=metadata)
    if default is dc.MISSING:
        return dc.field(metadata=metadata)
    return dc.field(default=default, metadata=metadata)


@dc.dataclass(frozen=True)
class Artifact:
    """A finished folder of one kind (artifacts.py); ``name`` is its step, or the source.

    Example:
        >>> scores = run(steps)["evaluate"]
        >>> scores.metrics["questions"], scores.record["seconds"], scores.load()
    """

    name: str
    kind: str
    path: Path
    fingerprint: str

    @property
    def record(self) -> dict[str, Any]:
        """What made it, when, and at what cost; empty for a folder from elsewhere."""
        file = self.path / "record.json"
        if not file.exists():
            return {}
        return json.loads(file.read_text(encoding="utf-8"))

    @property
    def metrics(self) -> dict[str, Any]:
        """What its stage measured; empty for a folder from elsewhere."""
        return self.record.get("metrics", {})

    def load(self) -> Any:
        """Its content: a ``datasets.Dataset``, a model, a tokenizer or scores (opening.py)."""
        from llmstages.core.opening import open_artifact

        return open_artifact(self.kind, self.path)


class Progress(Protocol):
    """What ``ctx.progress`` yields: advance by n, optionally with a short note (``loss 1.23``)."""

    def __call__(self, n: float = 1, note: str = "") -> None: ...


@contextmanager
def _silent(description: str, total: float | None) -> Iterator[Progress]:
    yield lambda n=1, note="": None


@dc.dataclass(frozen=True)
class Context:
    """Where and how a stage runs. Nothing in here may change what the result is.

    Attributes:
        step: the name of the step in this run, for messages.
        out: the folder to fill. It is empty at the start and becomes the artifact when run()
            returns.
        work: scratch space that survives an interruption (checkpoints); removed when the step is
            done.
        inputs: input name -> Artifact; a tuple of them for a "many" input; None for an open one.
        processes: how many processes train this step together.
        cache: where the runs of one store share derived data (see cached()); None: inside work.
        progress: ``progress(description, total)`` is a context manager that yields a Progress.
        say: ``say(line)`` prints one line to the user.
    """

    step: str
    out: Path
    work: Path
    inputs: Mapping[str, Artifact | tuple[Artifact, ...] | None]
    processes: int = 1
    cache: Path | None = None
    progress: Callable[[str, float | None], Any] = _silent
    say: Callable[[str], None] = lambda line: None

    def one(self, name: str) -> Artifact:
        """The artifact of a required input."""
        artifact = self.inputs[name]
        if not isinstance(artifact, Artifact):
            raise StageError(
                f"step {self.step!r} needs its input {name!r}. "
                f"Wire it in the recipe: steps.{self.step}.{name}=STEP"
            )
        return artifact

    def maybe(self, name: str) -> Artifact | None:
        """The artifact of an optional input, or None."""
        artifact = self.inputs.get(name)
        return artifact if isinstance(artifact, Artifact) else None

    def many(self, name: str) -> tuple[Artifact, ...]:
        """The artifacts of a "many" input, in the order of the recipe."""
        value = self.inputs.get(name)
        if isinstance(value, Artifact):
            return (value,)
        return tuple(value or ())

    def cached(self, key: str, make: Callable[[Path], None]) -> Path:
        """A folder of derived data that the runs of a store share; ``make(folder)`` fills it.

        It is made once, also when several processes ask at the same time. If it is damaged, a
        message is printed and it is made again. It is not an artifact: anybody may delete it.

        Args:
            key: a name from which the whole content follows, such as a digest of what it is made
            from. make: fills the folder it is given.
        """
        from llmstages.core.cache import cached

        return cached(self.cache or self.work / "cache", key, make, self.say)


class Stage(Protocol):
    """One class in one file: Config, inputs, output, version, run.

    Attributes:
        Config: a frozen dataclass; each field is an ``option(default, help)``.
        inputs: input name -> kind of artifact. ``"model?"`` may stay open. ``"corpus*"`` takes any
            number, and the nearest one if it is not wired; ``"corpus*?"`` takes none unless wired.
            ``"problems|dialogues"`` takes either kind; ``"*"`` alone takes artifacts of any kind.
        output: the kind of artifact that run() makes.
        version: raise it when new code gives new results. The versions of inherited classes
            count too.

    Optional attributes and methods, looked for by name:
        components (mapping): Config field -> default components, for a field that holds
            components of the group of the same name: ``{"filters": ("url", "language")}``, or
            ``{"extractors": {"html": "trafilatura"}}`` where each member has a role.
        smoke (mapping): Config field -> a small value for ``recipe=smoke`` and ``smoke=true``.
        validate(config, step): raises StageError where values do not fit each other; called by
            ``llmstages plan``, before any work. It is pure and light.
        trains (bool): a launcher may spread the stage over processes; others run in one.
        estimate(config, known): for ``llmstages plan``, the metrics that run() is expected to
            return (``{"documents": 100}``) and, for a stage that trains, ``training``: a
            Training (cost/model.py) that gives memory, time and cost, for one that lets models
            write, ``generation``: a Generation (cost/generation.py); or ``no_estimate``: what is
            missing for one. known: input name -> a mapping for each source, with its ``name``
            and its metrics. It is pure and light: no file, no heavy import.
        prepare(config, ctx): for stages that train, a Prepared (data/dialogues.py) with the
            tokens, the mask and the checks of what run() will train on; ``llmstages inspect``
            shows it.
    """

    Config: ClassVar[type]
    inputs: ClassVar[Mapping[str, str]]
    output: ClassVar[str]
    version: ClassVar[str]

    def run(self, config: Any, ctx: Context) -> Mapping[str, float]:
        """Fill ``ctx.out`` and return metrics: numbers by name, measured, not copied."""
        ...
