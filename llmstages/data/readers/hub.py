"""Rows of a data set on the Hugging Face Hub, streamed; and the messages about what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError


def hub_rows(
    step: str, name: str, subset: str, split: str, revision: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(``name:number``, row) in the order of the data set.

    Nothing is downloaded beyond what is taken. Raises StageError if the data set cannot be read.

    Args:
        step: the name of the step, for messages.
        name: OWNER/NAME, or a local folder of data files as a checkout of a data set has them.
        subset: the configuration of the data set, "" for its default.
        split: the split.
        revision: branch, tag or commit; not used for a folder.
    """
    if not name:
        raise StageError(
            f"{step} has nothing to read: set {step}.data_set=OWNER/NAME (a data set on the Hub), "
            f"or read local files with {step}=files"
        )
    import datasets

    is_folder = Path(name).is_dir()
    # The rows of a folder have the same names wherever it lies.
    short_name = Path(name).resolve().name if is_folder else name
    try:
        stream: Any = datasets.load_dataset(
            name,
            subset or None,
            split=split,
            revision=None if is_folder else revision or None,
            streaming=True,
        )
        for number, row in enumerate(stream, 1):
            yield f"{short_name}:{number}", row
    except StageError:
        raise
    except Exception as error:
        # Network, name, access, format: the libraries raise a dozen kinds of exceptions.
        subset_note = f" ({subset})" if subset else ""
        where = f"{name}{subset_note}, split {split}"
        raise StageError(_explain(error, step, where, is_folder)) from error


def _explain(error: Exception, step: str, where: str, is_folder: bool) -> str:
    """What went wrong and what to do about it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    first_line = lines[0][:200] if lines else ""
    cause = f"{type(error).__name__}: {first_line}"
    if is_folder:
        return (
            f"{step}: the folder {where} cannot be read as a data set ({cause}). Check its files "
            f"and the split; {step}=files reads them row by row and leaves out what is damaged"
        )
    return (
        f"{step}: {where} cannot be read from the Hub ({cause}). Check the network and the name; "
        f"a private data set needs `hf auth login`; offline, download it first and use {step}=files"
    )
