"""Tables leave as files that other programs read, with every row and column."""

from __future__ import annotations

import datetime
import gzip
import json

import pytest

from llmstages.convert.table_files import export_table
from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.testing.tiny import tiny_artifact


def rows_of(folder) -> list:
    return tables.load(folder).to_list()


@pytest.mark.parametrize("kind", ["corpus", "dialogues", "preferences", "problems"])
@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".jsonl.gz"])
def test_every_kind_comes_back(kind, ending, tmp_path):
    import pandas

    artifact = tiny_artifact(kind, tmp_path / kind)
    file = tmp_path / f"out{ending}"
    steps: list[float] = []
    count = export_table(artifact.path / "data", file, steps.append)
    rows = rows_of(artifact.path / "data")
    assert count == len(rows) == sum(steps)
    if ending == ".parquet":
        assert len(pandas.read_parquet(file)) == count
        import pyarrow.parquet as parquet

        assert parquet.read_table(file).to_pylist() == rows
    else:
        text = gzip.decompress(file.read_bytes()) if ending.endswith("gz") else file.read_bytes()
        assert [json.loads(line) for line in text.decode().splitlines()] == rows
    assert not list(tmp_path.glob("*.part"))


def test_more_rows_than_a_batch(tmp_path):
    tables.save([{"n": n, "text": f"é{n}"} for n in range(2500)], tmp_path / "data")
    export_table(tmp_path / "data", tmp_path / "a.jsonl")
    export_table(tmp_path / "data", tmp_path / "b.jsonl.gz")
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == list(range(2500))
    assert "é2499" in lines[-1]
    assert gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()).decode().splitlines() == lines


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    import pyarrow.parquet as parquet

    with tables.Writer(tmp_path / "data", {"id": "string", "n": "int64"}):
        pass
    assert export_table(tmp_path / "data", tmp_path / "a.parquet") == 0
    assert parquet.read_schema(tmp_path / "a.parquet").names == ["id", "n"]


def test_bytes_do_not_become_json(tmp_path):
    artifact = tiny_artifact("documents", tmp_path / "documents")
    with pytest.raises(StageError, match=r"bytes .* \.parquet"):
        export_table(artifact.path / "data", tmp_path / "a.jsonl")
    assert not list(tmp_path.glob("a.jsonl*"))
    assert export_table(artifact.path / "data", tmp_path / "a.parquet") == 4


def test_dates_become_text(tmp_path):
    tables.save([{"when": datetime.datetime(2026, 11, 26, 4, 5)}], tmp_path / "data")
    export_table(tmp_path / "data", tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"when": "2026-11-26T04:05:00"}


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(StageError, match="has to end in one of .parquet, .jsonl"):
        export_table(tmp_path, tmp_path / "a.csv")
