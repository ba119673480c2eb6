"""Arrow tables that come out the same byte for byte, and JSON lines. Imports ``datasets`` only inside functions.

``Dataset.save_to_disk`` writes a random fingerprint into state.json; here it is derived from the content, so two runs
of one step give equal folders.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmstages.stage import StageError

MESSAGE = ("role", "content", "tool")


def message(role: str, content: str, tool: str = "") -> dict[str, str]:
    """One turn. A tool call is ``message("assistant", argument, tool=name)``, its result ``message("tool", text, name)``."""
    return {"role": role, "content": content, "tool": tool}


def save(rows: Sequence[Mapping[str, Any]] | Any, folder: Path, columns: Sequence[str] = ()) -> int:
    """Write rows (dicts, or a datasets.Dataset) to ``folder`` and return their number.

    columns: column names in order, needed when rows may be empty.
    """
    import datasets

    datasets.disable_progress_bars()
    if isinstance(rows, datasets.Dataset):
        table = rows
    elif rows:
        table = datasets.Dataset.from_list([dict(row) for row in rows])
    else:
        table = datasets.Dataset.from_dict({name: [] for name in columns})
    table._fingerprint = "0" * 16
    table.save_to_disk(str(folder), num_shards=None if len(table) else 1)  # of nothing it would write no file at all
    digest = hashlib.sha256()
    for file in sorted(Path(folder).glob("*.arrow")):
        digest.update(file.read_bytes())
    state = json.loads((Path(folder) / "state.json").read_text())
    write_json(Path(folder) / "state.json", {**state, "_fingerprint": digest.hexdigest()[:16]})
    return len(table)


def load(folder: Path) -> Any:
    """The datasets.Dataset at ``artifact.path / "data"`` or any folder written by save()."""
    import datasets

    if not Path(folder).is_dir():
        raise StageError(f"no table at {folder}: the artifact is damaged or of another kind; redo the step that made it")
    table = datasets.load_from_disk(str(folder))
    return datasets.concatenate_datasets(list(table.values())) if isinstance(table, datasets.DatasetDict) else table


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines."""
    with open(path, "w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; an absent file is an empty list."""
    if not Path(path).exists():
        return []
    with open(path, encoding="utf-8") as stream:
        return [json.loads(line) for line in stream if line.strip()]


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, sorted and indented."""
    Path(path).write_text(json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1) + "\n", encoding="utf-8")
