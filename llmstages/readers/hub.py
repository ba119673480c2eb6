"""Rows of a data set on the Hugging Face Hub, streamed. One place for the messages about names and networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmstages.readers.record import Bad
from llmstages.stage import StageError


def hub_rows(step: str, name: str, subset: str, split: str, revision: str) -> Iterator[tuple[str, dict[str, Any] | Bad]]:
    """(``name:number``, row) in the order of the data set; nothing is downloaded beyond what is taken."""
    if not name:
        raise StageError(f"{step} has nothing to read: say {step}.data_set=OWNER/NAME (a data set on the Hub), or read local files with {step}=files")
    import datasets

    where = f"{name}{f' ({subset})' if subset else ''}, split {split}"
    try:
        stream = datasets.load_dataset(name, subset or None, split=split, revision=revision or None, streaming=True)
        for number, row in enumerate(stream, 1):
            yield f"{name}:{number}", row
    except StageError:
        raise
    except Exception as error:  # network, name, access, format: the libraries raise a dozen kinds
        first = next((line for line in str(error).splitlines() if line.strip()), "")[:200]
        raise StageError(f"{step}: {where} cannot be read from the Hub ({type(error).__name__}: {first}). Check the network and the "
                         f"name; a private data set needs `hf auth login`; offline, download it first and use {step}=files") from error
