"""Tables as saved ``datasets`` folders, and JSON files. Equal rows give equal bytes.

``Dataset.save_to_disk`` writes a random fingerprint into state.json. Here the fingerprint follows
from the content, so two runs of one step give equal folders. ``datasets`` and ``pyarrow`` are
imported only inside functions.
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
DROPPED_COLUMNS: dict[str, str] = dict.fromkeys(
    ("id", "url", "rule", "value", "limit", "excerpt"), "string"
)
BATCH_BYTES = 16_000_000


class Writer:
    """Writes a ``datasets`` folder row by row, so that a table may be larger than memory.

    The folder is complete after close(), and only then a table. Equal rows give equal bytes,
    whatever the order of their keys.

    Args:
        folder: where to write; it is created.
        columns: name -> Arrow type ("string", "large_string", "binary", "int64", "float64").
        rows_per_batch: rows held in memory; fewer if they are long.
        shard_bytes: a new file is started after this many bytes.
    """

    def __init__(
        self,
        folder: Path,
        columns: Mapping[str, str],
        rows_per_batch: int = 1000,
        shard_bytes: int = 500_000_000,
    ) -> None:
        import pyarrow as pa

        self.folder = Path(folder)
        self.rows = 0
        self._rows_per_batch = rows_per_batch
        self._shard_bytes = shard_bytes
        self._schema = pa.schema(
            [pa.field(name, pa.type_for_alias(kind)) for name, kind in columns.items()]
        )
        self._batch: list[Mapping[str, Any]] = []
        self._batch_bytes = 0
        self._shards: list[Path] = []
        self._file: Any = None
        self._stream: Any = None
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row. Keys that are not columns are left out."""
        self._batch.append(row)
        for value in row.values():
            if isinstance(value, (str, bytes)):
                self._batch_bytes += len(value)
        self.rows += 1
        if len(self._batch) >= self._rows_per_batch or self._batch_bytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._batch:
            return
        arrays = []
        for field in self._schema:
            values = [row[field.name] for row in self._batch]
            arrays.append(pa.array(values, field.type))
        self._batch = []
        self._batch_bytes = 0
        if self._file is None or self._file.tell() >= self._shard_bytes:
            self._start_shard()
        self._stream.write_batch(pa.record_batch(arrays, schema=self._schema))

    def _start_shard(self) -> None:
        import pyarrow as pa

        self._end_shard()
        # The final name holds the number of shards, which is known only at the end.
        shard = self.folder / f"part-{len(self._shards):05d}.arrow"
        self._shards.append(shard)
        self._file = pa.OSFile(str(shard), "wb")
        self._stream = pa.ipc.new_stream(self._file, self._schema)

    def _end_shard(self) -> None:
        if self._file is None:
            return
        self._stream.close()
        self._file.close()
        self._file = None
        self._stream = None

    def close(self) -> int:
        """Finish the folder and return the number of rows."""
        self._flush()
        if not self._shards:
            # A table without rows still has its columns.
            self._start_shard()
        self._end_shard()
        names = []
        for number, shard in enumerate(self._shards):
            name = f"data-{number:05d}-of-{len(self._shards):05d}.arrow"
            shard.rename(self.folder / name)
            names.append(name)
        _write_description(self.folder, self._schema, names)
        return self.rows

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._end_shard()


def _write_description(folder: Path, schema: Any, names: Sequence[str]) -> None:
    """Write the two small files that make a folder of Arrow streams a saved ``Dataset``."""
    import datasets

    features = datasets.Features.from_arrow_schema(schema)
    datasets.DatasetInfo(features=features).write_to_directory(str(folder))
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": _fingerprint(folder),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    write_json(folder / "state.json", state)


def _fingerprint(folder: Path) -> str:
    """A digest of the Arrow files of a folder."""
    digest = hashlib.sha256()
    for file in sorted(Path(folder).glob("*.arrow")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def save(rows: Sequence[Mapping[str, Any]] | Any, folder: Path, columns: Iterable[str] = ()) -> int:
    """Write rows that fit in memory to a folder and return their number. Writer is for the rest.

    Args:
        rows: dictionaries, or a ``datasets.Dataset``.
        folder: where to write.
        columns: names of the columns in order, needed when there may be no rows.
    """
    import datasets

    datasets.disable_progress_bars()
    if isinstance(rows, datasets.Dataset):
        table = rows
    elif rows:
        # datasets takes the columns of the first row alone, and drops those of later ones.
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = datasets.Dataset.from_dict(
            {name: [row.get(name) for row in rows] for name in names}
        )
    else:
        table = datasets.Dataset.from_dict({name: [] for name in columns})
    table._fingerprint = "0" * 16
    # Without num_shards, datasets writes no file at all for a table without rows.
    table.save_to_disk(str(folder), num_shards=None if len(table) else 1)
    state_path = Path(folder) / "state.json"
    state = json.loads(state_path.read_text())
    state["_fingerprint"] = _fingerprint(folder)
    write_json(state_path, state)
    return len(table)


def load(folder: Path) -> Any:
    """The ``datasets.Dataset`` in a folder, usually ``artifact.path / "data"``.

    The splits of a ``DatasetDict`` are joined. Raises StageError if there is no such folder.
    """
    import datasets

    if not Path(folder).is_dir():
        raise StageError(
            f"no table at {folder}: the artifact is damaged or of another kind; "
            "run the step that made it again"
        )
    table = datasets.load_from_disk(str(folder))
    if isinstance(table, datasets.DatasetDict):
        return datasets.concatenate_datasets(list(table.values()))
    return table


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, with sorted keys."""
    with Path(path).open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a missing file counts as empty."""
    if not Path(path).exists():
        return []
    with Path(path).open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream if line.strip()]


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, indented and with sorted keys."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1)
    Path(path).write_text(text + "\n", encoding="utf-8")
