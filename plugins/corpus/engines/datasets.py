"""One machine: ``datasets.Dataset.map``, memory-mapped Arrow in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.plugins.corpus.filter_pipeline import BATCH


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
        workers: processes; 1 works in this process.
        options: must be empty.
    """
    import datasets

    if options:
        raise StageError(
            f"engine=datasets takes no engine_options, but was given {', '.join(options)}; "
            "they belong to engine=datatrove"
        )
    datasets.disable_progress_bars()
    if workers > 1:
        pipeline.preload()
    table = datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])
    try:
        outcomes = table.with_format("arrow").map(
            pipeline,
            batched=True,
            batch_size=BATCH,
            with_indices=True,
            remove_columns=table.column_names,
            writer_batch_size=4 * BATCH,
            num_proc=workers if workers > 1 else None,
            features=datasets.Features.from_arrow_schema(pipeline.schema()),
            cache_file_name=str(work / "outcomes.arrow"),
            load_from_cache_file=False,
            new_fingerprint="outcomes",
        )
    except RuntimeError as error:
        if "abruptly died" not in str(error):
            raise
        raise StageError(
            f"one of the {workers} corpus processes was ended from outside, most likely for lack "
            "of memory; use fewer: corpus.workers=1"
        ) from error
    return [Path(file["filename"]) for file in outcomes.cache_files]
