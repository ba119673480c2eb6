"""Steps and runs from Python, without Hydra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.console import Console
from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact
from llmstages.launch.config import Launch
from llmstages.pipeline.plan import Step, make_plan
from llmstages.pipeline.runner import Run, execute
from llmstages.pipeline.store import Store
from llmstages.pipeline.wiring import make_step


def step(name: str, uses: str, config: Mapping[str, Any] | Any = None, /, **inputs: Any) -> Step:
    """One step: ``step("sft", "sft.chat", {"epochs": 1}, model=base, dialogues=[chats, extra])``.

    Args:
        name: of the step.
        uses: the registered stage.
        config: values that differ from the defaults, or an instance of the stage's Config.
        inputs: earlier Steps, lists of them, ``"hub:org/name@revision"`` or a folder.

    Raises:
        StageError: a wrong key, value or input.
    """
    values = {} if config is None else config
    if not isinstance(values, Mapping):
        values = {field: getattr(values, field) for field in values.__dataclass_fields__}
    return make_step(name, uses, values, inputs, strict=True)


def run(
    steps: Sequence[Step],
    store: str | Path = "store",
    *,
    runs: str = "",
    name: str = "run",
    launch: Launch = Launch(),
    quiet: bool = False,
) -> dict[str, Artifact]:
    """Make what is not in the store yet, in order, and return step name -> Artifact.

    Args:
        runs: where to link the results, as RUNS/NAME/STEP; "" for nowhere.
        quiet: print nothing.

    Raises:
        StageError: a step fails; finished steps are kept.
    """
    opened = Store(store)
    console = Console(to_stderr=True, quiet=quiet)
    outcome = execute(make_plan(steps, opened), Run(opened, name, runs, launch, console))
    interrupted = 130  # the exit code after Ctrl-C
    if outcome.code == interrupted:
        raise KeyboardInterrupt
    if outcome.error:
        raise StageError(outcome.error)
    return outcome.artifacts
