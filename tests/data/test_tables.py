"""Tables that stream: equal folders for equal rows, several shards, no rows, failing rows."""

import pytest

from llmstages.data import tables

COLUMNS = {"id": "string", "body": "binary", "n": "int64"}
ROWS = [
    {"id": f"row {n}", "body": bytes([n % 256]) * n, "n": n, "other": "not a column"}
    for n in range(2500)
]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_writer_writes_what_datasets_reads(tmp_path):
    with tables.Writer(tmp_path / "a", COLUMNS) as writer:
        for row in ROWS:
            writer.write(row)
    assert writer.rows == 2500
    assert tables.load(tmp_path / "a").to_list() == [
        {name: row[name] for name in COLUMNS} for row in ROWS
    ]
    with tables.Writer(tmp_path / "b", COLUMNS) as writer:
        for row in ROWS:
            writer.write(dict(reversed(row.items())))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_shards_follow_each_other(tmp_path):
    with tables.Writer(tmp_path / "a", COLUMNS, rows_per_batch=100, shard_bytes=500_000) as writer:
        for row in ROWS:
            writer.write(row)
    assert len(list((tmp_path / "a").glob("data-*-of-*.arrow"))) > 3
    assert tables.load(tmp_path / "a")["n"][:] == list(range(2500))


def test_a_table_of_no_rows_has_its_columns(tmp_path):
    with tables.Writer(tmp_path / "a", COLUMNS):
        pass
    assert tables.load(tmp_path / "a").column_names == list(COLUMNS)
    assert len(tables.load(tmp_path / "a")) == 0


def test_an_error_leaves_no_folder_that_looks_whole(tmp_path):
    with pytest.raises(KeyError), tables.Writer(tmp_path / "a", COLUMNS) as writer:
        writer.write({"id": "x", "n": 1})
        writer.close()
    assert not (tmp_path / "a" / "state.json").exists()
