"""How the filter pipeline is spread over processes or machines; all engines give one result.

An engine is a function ``run(pipeline, files, rows, work, workers, options) -> list[Path]``: it
reads the Arrow streams in ``files`` (``rows`` rows in all), hands them to the pipeline in batches
and returns Arrow streams of outcomes, in the order of the rows. Left out on purpose: any
knowledge of filters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CHOICES = ("datasets", "datatrove")


def run(
    name: str,
    pipeline: Any,
    files: Sequence[Path],
    rows: int,
    work: Path,
    workers: int,
    options: Mapping[str, str],
) -> list[Path]:
    """Run the pipeline under an engine (one of CHOICES)."""
    from llmstages.plugins.corpus.engines import datasets, datatrove

    engine = {"datasets": datasets, "datatrove": datatrove}[name]
    work.mkdir(parents=True, exist_ok=True)
    return engine.run(pipeline, files, rows, work, workers, options)
