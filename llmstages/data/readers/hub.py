"""Rows of a data set on the Hugging Face Hub, streamed. One place for the messages about names and networks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.data.readers.record import Rejected


def hub_rows(
    step: str, name: str, subset: str, split: str, revision: str
) -> Iterator[tuple[str, dict[str, Any] | Rejected]]:
    """(``name:number``, row) in the order of the data set; nothing is downloaded beyond what is taken.

    name: OWNER/NAME, or a local folder of data files as a checkout of a data set has them.
    """
    if not name:
        raise StageError(
            f"{step} has nothing to read: say {step}.data_set=OWNER/NAME (a data set on the Hub), or read local files with {step}=files"
        )
    import datasets

    local = Path(name).is_dir()
    where = f"{name}{f' ({subset})' if subset else ''}, split {split}"
    short = (
        Path(name).resolve().name if local else name
    )  # rows of a folder are named alike wherever it lies
    try:
        stream = datasets.load_dataset(
            name,
            subset or None,
            split=split,
            revision=None if local else revision or None,
            streaming=True,
        )
        for number, row in enumerate(stream, 1):
            yield f"{short}:{number}", row
    except StageError:
        raise
    except Exception as error:  # network, name, access, format: the libraries raise a dozen kinds
        first = next((line for line in str(error).splitlines() if line.strip()), "")[:200]
        if local:
            raise StageError(
                f"{step}: the folder {where} cannot be read as a data set ({type(error).__name__}: {first}). Check its "
                f"files and the split; {step}=files reads them row by row and leaves out what is damaged"
            ) from error
        raise StageError(
            f"{step}: {where} cannot be read from the Hub ({type(error).__name__}: {first}). Check the network and the "
            f"name; a private data set needs `hf auth login`; offline, download it first and use {step}=files"
        ) from error
