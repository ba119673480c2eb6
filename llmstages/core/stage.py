"""The contract: what a stage is, on one screen.

Config says *what* (and is hashed), Context says *where* (and is not), run() fills ``ctx.out`` and returns metrics.
Left out on purpose: scheduling, caching and launching. A stage never knows whether it runs in the runner's process,
in a worker, or on eight GPUs; it reads earlier artifacts and writes its own folder, nothing else.
"""

from __future__ import annotations

import dataclasses as dc
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
        file: True for a path or glob. The content of the files enters the fingerprint, not the path.
        renamed_from: the name of this field in an earlier version; using it is an error that says so.
    """
    limits = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata = {
        "help": help,
        "identity": identity,
        "file": file,
        "choices": tuple(choices),
        "range": {name: limit for name, limit in limits.items() if limit is not None},
        "renamed_from": renamed_from,
    }
    if factory is not None:
        return dc.field(default_factory=factory, metadata=metadata)
    if default is dc.MISSING:
        return dc.field(metadata=metadata)
    return dc.field(default=default, metadata=metadata)


@dc.dataclass(frozen=True)
class Artifact:
    """A finished folder of one kind (see kinds.py). ``name`` is the step that made it, or the source as written."""

    name: str
    kind: str
    path: Path
    fingerprint: str


class Progress(Protocol):
    """What ``ctx.progress`` hands out: advance by n, optionally with a short note (``loss 1.23, 9.1k tok/s``)."""

    def __call__(self, n: float = 1, note: str = "") -> None: ...


@contextmanager
def _silent(description: str, total: float | None) -> Iterator[Progress]:
    yield lambda n=1, note="": None


@dc.dataclass(frozen=True)
class Context:
    """Where and how a stage runs. Nothing in here may change what the result is.

    out: the folder to fill, empty at the start; becomes the artifact when run() returns.
    work: scratch that survives an interruption (checkpoints); removed when the step is done.
    inputs: input name -> Artifact, a tuple of them for "many" inputs, None for an optional input left open.
    cache: where runs of one store share what they derive (see cached()); None: within work.
    progress(description, total): context manager giving a Progress; say(line): one line to the user.
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
        found = self.inputs[name]
        if not isinstance(found, Artifact):
            raise StageError(
                f"step {self.step!r} needs its input {name!r}; wire it in the recipe: steps.{self.step}.{name}=STEP"
            )
        return found

    def maybe(self, name: str) -> Artifact | None:
        """The artifact of an optional input, or None."""
        found = self.inputs.get(name)
        return found if isinstance(found, Artifact) else None

    def many(self, name: str) -> tuple[Artifact, ...]:
        """The artifacts of a "many" input, in recipe order."""
        found = self.inputs.get(name)
        return (found,) if isinstance(found, Artifact) else tuple(found or ())

    def cached(self, key: str, make: Callable[[Path], None]) -> Path:
        """A folder of derived data, filled by ``make(folder)`` unless a step of this store has made it before.

        key: a name that says all the content follows from (a digest of it). Made once, also by several processes at
        the same time; found damaged, it is made again with a line. Not an artifact: anybody may delete it.
        """
        from llmstages.core.cache import cached

        return cached(self.cache or self.work / "cache", key, make, self.say)


class Stage(Protocol):
    """One class in one file: Config, inputs, output, version, run.

    inputs: name -> kind. "model?" may be left open, "corpus*" takes any number ("corpus*?": none unless wired), "problems|dialogues" takes either,
    "*" alone takes any number of any kind.
    parts: Config field -> registry group, for fields that hold a mapping of smaller plugins (``filters``); the names
    listed are the defaults: ``{"filters": ("url", "language")}``, or ``{"extractors": {"html": "trafilatura"}}`` where a member is
    a role. Absent where a stage has none.
    trains: True for stages a launcher may spread over processes; the others always run once.
    estimate(config, known) -> mapping: optional, a method for ``llmstages plan``: which metrics run() is expected to return,
    under the same names ("documents", "vocab_size"), and, where it trains, ``training``: a Training (estimate.py), from which
    the planner tells memory, time and cost; or ``no_estimate``: what it waits for. known: input name ->
    one mapping for each source: its ``name``, its metrics if it is made, else what it is expected to return; ``model``, the
    sizes of a model; ``bytes`` of its table. Pure and light: no file, no heavy import. Left out: nothing is estimated.
    prepare(config, ctx) -> Prepared (dialogues.py): optional, for stages that train: tokens, mask and gates of what run() will train
    on, and nothing else done; ``llmstages inspect`` shows it.
    """

    Config: ClassVar[type]
    inputs: ClassVar[Mapping[str, str]]
    output: ClassVar[str]
    version: ClassVar[str]

    def run(self, config: Any, ctx: Context) -> Mapping[str, float]: ...
