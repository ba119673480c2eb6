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

from llmstages.core.errors import StageError

# The ``dropped/`` table, one row per input that was left out: the rule it broke, the value that
# was measured, the limit of the rule, and the beginning of the input.
DROPPED_COLUMNS = dict.fromkeys(("id", "url", "rule", "value", "limit", "excerpt"), "string")


class Writer:
    """Writes a ``datasets`` folder row by row, so that a table may be larger than memory.

    columns: name -> Arrow type ("string", "large_string", "binary", "int64", "float64"). The folder appears complete on close();
    equal rows give equal bytes, however they were handed over.
    """

    def __init__(
        self,
        folder: Path,
        columns: Mapping[str, str],
        rows_per_batch: int = 1000,
        shard_bytes: int = 500_000_000,
    ) -> None:
        import pyarrow as pa

        self.folder, self.rows, self._shard_bytes = Path(folder), 0, shard_bytes
        self._most, self._most_bytes = rows_per_batch, 16_000_000
        self._schema = pa.schema(
            [pa.field(name, pa.type_for_alias(kind)) for name, kind in columns.items()]
        )
        self._pending: list[Mapping[str, Any]] = []
        self._pending_bytes = 0
        self._shards: list[Path] = []
        self._sink: Any = None
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row; keys that are no column are left out."""
        self._pending.append(row)
        self._pending_bytes += sum(
            len(value) for value in row.values() if isinstance(value, (str, bytes))
        )
        self.rows += 1
        if len(self._pending) >= self._most or self._pending_bytes >= self._most_bytes:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._pending:
            return
        columns = [
            pa.array([row[field.name] for row in self._pending], field.type)
            for field in self._schema
        ]
        self._pending, self._pending_bytes = [], 0
        if self._sink is None or self._sink[0].tell() >= self._shard_bytes:
            self._next_shard()
        self._sink[1].write_batch(pa.record_batch(columns, schema=self._schema))

    def _next_shard(self) -> None:
        import pyarrow as pa

        self._end_shard()
        self._shards.append(self.folder / f"part-{len(self._shards):05d}.arrow")
        stream = pa.OSFile(str(self._shards[-1]), "wb")
        self._sink = (stream, pa.ipc.new_stream(stream, self._schema))

    def _end_shard(self) -> None:
        if self._sink:
            self._sink[1].close()
            self._sink[0].close()
        self._sink = None

    def close(self) -> int:
        """Finish the folder and return the number of rows."""
        self._flush()
        if not self._shards:
            self._next_shard()  # a table of no rows still has its columns
        self._end_shard()
        names = [
            f"data-{number:05d}-of-{len(self._shards):05d}.arrow"
            for number in range(len(self._shards))
        ]
        for shard, name in zip(self._shards, names, strict=True):
            shard.rename(self.folder / name)
        _describe(self.folder, self._schema, names)
        return self.rows

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._end_shard()


def _describe(folder: Path, schema: Any, names: Sequence[str]) -> None:
    """The two small files that make a folder of Arrow streams a saved ``datasets.Dataset``."""
    import datasets

    datasets.DatasetInfo(features=datasets.Features.from_arrow_schema(schema)).write_to_directory(
        str(folder)
    )
    write_json(
        folder / "state.json",
        {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": _digest(folder),
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        },
    )


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(folder).glob("*.arrow")):
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def save(rows: Sequence[Mapping[str, Any]] | Any, folder: Path, columns: Sequence[str] = ()) -> int:
    """Write rows (dicts, or a datasets.Dataset) to ``folder`` and return their number; Writer is for tables that stream.

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
    table.save_to_disk(
        str(folder), num_shards=None if len(table) else 1
    )  # of nothing it would write no file at all
    state = json.loads((Path(folder) / "state.json").read_text())
    write_json(Path(folder) / "state.json", {**state, "_fingerprint": _digest(folder)})
    return len(table)


def load(folder: Path) -> Any:
    """The datasets.Dataset at ``artifact.path / "data"`` or any folder written by save()."""
    import datasets

    if not Path(folder).is_dir():
        raise StageError(
            f"no table at {folder}: the artifact is damaged or of another kind; redo the step that made it"
        )
    table = datasets.load_from_disk(str(folder))
    return (
        datasets.concatenate_datasets(list(table.values()))
        if isinstance(table, datasets.DatasetDict)
        else table
    )


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
    Path(path).write_text(
        json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1) + "\n", encoding="utf-8"
    )
