"""Bad inputs of every kind: each costs one document, which is named with its place."""

import gzip
import json
import random

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.data.readers import Record, Rejected, clean, open_file, read, read_warc, rows
from llmstages.plugins.pages.files import Files

from .test_readers import page, record, urls

MEMBERS = [gzip.compress(page(n)) for n in range(50)]


def files(folder, **values):
    out = folder / "out"
    out.mkdir()
    log = []
    metrics = Files().run(
        Files.Config(path=str(folder / "in"), **values),
        Context("pages", out, out, {}, say=log.append),
    )
    return (
        metrics,
        tables.load(out / "data").to_list(),
        tables.load(out / "dropped").to_list(),
        log,
    )


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def bad(results):
    return [each for each in results if isinstance(each, Rejected)]


def test_a_warc_cut_in_the_middle_gives_the_records_before_and_one_reason(source):
    (source / "cut.warc.gz").write_bytes(b"".join(MEMBERS[:25]) + MEMBERS[25][:120])
    results = list(read_warc(source / "cut.warc.gz"))
    assert urls(results) == list(range(25))
    [rejected] = bad(results)
    assert "cut off" in rejected.reason
    assert "to the end are lost" in rejected.reason
    assert rejected.position.startswith(f"cut.warc.gz, byte {sum(map(len, MEMBERS[:25]))}")


def test_forty_bad_bytes_cost_the_record_they_hit(source):
    for at in range(20, 160, 20):
        hit = bytearray(b"".join(MEMBERS))
        start = sum(map(len, MEMBERS[:25])) + at
        hit[start : start + 40] = random.Random(at).randbytes(40)
        (source / "hit.warc.gz").write_bytes(hit)
        results = list(read_warc(source / "hit.warc.gz"))
        assert [n for n in range(50) if n not in urls(results)] == [25], at
        assert len(bad(results)) == 1
        assert "continues at byte" in bad(results)[0].reason


def test_a_member_whose_checksum_is_wrong_gives_no_page(source):
    data = bytearray(MEMBERS[1])
    data[-6] ^= 1
    (source / "sum.warc.gz").write_bytes(MEMBERS[0] + data + MEMBERS[2])
    results = list(read_warc(source / "sum.warc.gz"))
    assert urls(results) == [0, 2]
    assert "incorrect data check" in bad(results)[0].reason
    assert bad(results)[0].url == "http://a.example/1"


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_whole_file_as_one_member(source, ending):
    import pyarrow

    with pyarrow.output_stream(
        source / f"one.warc.{ending}", compression={"gz": "gzip", "zst": "zstd"}[ending]
    ) as stream:
        stream.write(b"".join(page(n) for n in range(50)))
    assert urls(read_warc(source / f"one.warc.{ending}")) == list(range(50))
    whole = (source / f"one.warc.{ending}").read_bytes()
    (source / f"one.warc.{ending}").write_bytes(whole[:-5])
    assert len(bad(read_warc(source / f"one.warc.{ending}"))) == 1


def test_a_wrong_length_swallows_no_other_record(source):
    for length in (500, 3000, 10**9, 10**15):
        (source / "long.warc").write_bytes(
            b"".join(map(page, range(5)))
            + record("http://a.example/5", b"<html>", length=length)
            + b"".join(map(page, range(6, 20)))
        )
        for most in (800, 10_000_000):
            results = list(read_warc(source / "long.warc", most))
            assert urls(results) == [n for n in range(20) if n != 5], length
            assert [each.url for each in bad(results)] == ["http://a.example/5"]
            assert "Content-Length is wrong" in bad(results)[0].reason


def test_a_warc_within_a_page_is_no_record(source):
    inner = b"<html>" + page(8) + b"\r\n"
    (source / "nested.warc").write_bytes(page(1) + record("http://a.example/2", inner) + page(3))
    assert urls(read_warc(source / "nested.warc")) == [1, 2, 3]


def test_empty_files_are_named_and_all_empty_is_an_error(source):
    for name in ("a.warc", "b.jsonl", "c.csv", "d.txt", "e.html", "f.json"):
        (source / name).touch()
    (source / "g.jsonl.gz").write_bytes(gzip.compress(b"\n\n"))
    with pytest.raises(
        StageError,
        match="holds no usable document; left out: 1 damaged, 6 empty, "
        "first: a.warc: the file is empty",
    ):
        files(source.parent)
    (source.parent / "out").rename(source.parent / "before")
    (source / "h.txt").write_text("good")
    metrics, _, dropped, log = files(source.parent)
    assert metrics["documents"] == 1
    assert len(dropped) == 7
    assert any("7 of 8 files hold no document (first: a.warc)" in line for line in log)


def test_a_latin_1_page_with_stray_bytes_keeps_its_charset(source):
    body = "<html><p>Größe, Übermaß, naïve</p>".encode("latin-1") + b"\x81\xff"
    (source / "a.warc").write_bytes(
        record("http://a.example/1", body, media="text/html; Charset='ISO-8859-1'")
    )
    [results] = read(source / "a.warc")
    assert results.charset == "ISO-8859-1"
    assert results.body == body
    assert "Größe, Übermaß, naïve" in results.body.decode(results.charset)


def test_bad_lines_are_named_and_what_is_no_unicode_is_replaced_and_counted(source):
    lines = [
        b'{"text": "one"}',
        b'{"text": null, "url": "http://a/2"}',
        b"no JSON",
        b'{"text": "lone \\ud800 \\udfff", "url": "u\\ud800"}',
        b'{"text": "bad \xff\xfe bytes"}',
        b'{"text": "nul \\u0000 here"}',
        b'{"te\xffxt": 1}',
        b"[" * 100_000,
        b'{"text": "last"}',
    ]
    (source / "a.jsonl").write_bytes(b"\n".join(lines))
    metrics, data, dropped, log = files(source.parent)
    assert [row["body"].decode() for row in data] == [
        "one",
        "lone \ufffd \ufffd",
        "bad \ufffd\ufffd bytes",
        "nul  here",
        "last",
    ]
    assert [(row["id"], row["rule"]) for row in dropped] == [
        ("a.jsonl:2", "null_text"),
        ("a.jsonl:3", "format"),
        ("a.jsonl:7", "empty"),
        ("a.jsonl:8", "format"),
    ]
    assert dropped[0]["url"] == "http://a/2"
    assert data[1]["url"] == "u\ufffd"
    assert metrics["replaced"] == 4
    assert any(
        "4 characters" in line and "in 2 documents (first: a.jsonl:4)" in line for line in log
    )
    assert clean("\ud800a\0") == "\ufffda"


def test_a_line_of_100_mb_and_an_attribute_of_10_mb(source):
    (source / "a.jsonl").write_bytes(
        b'{"text": "one"}\n{"text": "' + b"word " * 20_000_000 + b'"}\n{"text": "three"}\n'
    )
    (source / "b.html").write_bytes(b"<p title='" + b"x" * 10_000_000 + b"'>")
    (source / "c.txt").write_bytes(b"first line\n" + b"word " * 20_000_000 + b"\nlast line\n")
    _, data, dropped, _ = files(source.parent, text_block=100)
    assert [row["body"] for row in data] == [b"one", b"three", b"first line\n", b"last line\n"]
    assert [(row["id"], row["rule"]) for row in dropped] == [
        ("a.jsonl:2", "too_large"),
        ("b.html", "too_large"),
        ("c.txt:2", "too_large"),
    ]
    assert dropped[1]["limit"] == "<= 10000000 bytes"


def test_damage_in_gzipped_lines_costs_one_member(source):
    lines = [
        json.dumps({"text": f"line {n} " + random.Random(n).randbytes(500).hex()}).encode() + b"\n"
        for n in range(300)
    ]
    parts = [gzip.compress(b"".join(lines[start : start + 100])) for start in (0, 100, 200)]
    parts[1] = parts[1][:40_000] + bytes(50) + parts[1][40_050:]
    (source / "a.jsonl.gz").write_bytes(b"".join(parts) + bytes(1000))
    results = list(read(source / "a.jsonl.gz"))
    kept = [int(each.body.split()[1]) for each in results if isinstance(each, Record)]
    assert kept[:100] == list(range(100))
    assert kept[-100:] == list(range(200, 300))
    assert 150 < kept[-101] < 180
    assert "continues at byte" in bad(results)[-1].reason
    # Some lines expand to nonsense before gzip sees the damage.
    assert len(bad(results)) < 40
    (source / "a.txt.gz").write_bytes(b"".join(parts[:2]))
    text = list(read(source / "a.txt.gz", block=10_000))
    assert b"".join(part.body for part in text[:-1]).startswith(b"".join(lines[:150]))
    assert isinstance(text[-1], Rejected)


def test_gzip_reads_what_python_reads(source):
    data = random.Random(0).randbytes(1_000_000) + bytes(3_000_000)
    (source / "a.gz").write_bytes(
        gzip.compress(data[:5]) + gzip.compress(b"") + gzip.compress(data[5:]) + bytes(100)
    )
    with open_file(source / "a.gz") as stream:
        assert stream.read() == data


def test_one_damaged_item_of_a_list_and_one_open_quote_cost_one_row(source):
    items = [{"text": f"item {n}", "more": [{"text": "inner"}]} for n in range(500)]
    text = json.dumps(items, indent=2)
    (source / "a.json").write_text(text.replace('"item 250"', '"item 250'))
    results = list(rows(source / "a.json"))
    assert [row for _, row in results if isinstance(row, dict)] == items[:250] + items[251:]
    assert results[250][1].position == "a.json:251"
    (source / "b.json").write_text(json.dumps(items)[:-40])
    assert [row for _, row in rows(source / "b.json")][:-1] == items[:-1]
    (source / "c.csv").write_text(
        "text,n\nzero,0\n" + '"open,1\n' + "".join(f"row {n},{n}\n" for n in range(2, 500))
    )
    results = list(rows(source / "c.csv"))
    assert [int(row["n"]) for _, row in results if isinstance(row, dict)] == [
        n for n in range(500) if n != 1
    ]
    assert results[1][1].position == "c.csv:3"
    assert "quote" in results[1][1].reason


def test_one_json_object_too_large_names_json_lines(source, monkeypatch):
    monkeypatch.setattr("llmstages.data.readers.json_rows.WHOLE", 1000)
    (source / "a.json").write_text(json.dumps({"data": [{"text": "x" * 100}] * 50}, indent=1))
    [results] = read(source / "a.json")
    assert results.rule == "too_large"
    assert ".jsonl" in results.reason


def test_a_damaged_row_group_of_parquet_costs_itself(source):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(
        [{"text": random.Random(n).randbytes(200).hex()} for n in range(300)]
    )
    pyarrow.parquet.write_table(
        table, source / "a.parquet", row_group_size=100, use_dictionary=False
    )
    data = bytearray((source / "a.parquet").read_bytes())
    half = len(data) // 2
    data[half - 10_000 : half + 10_000] = bytes(20_000)
    (source / "a.parquet").write_bytes(data)
    results = list(read(source / "a.parquet"))
    kept = [each.id for each in results if isinstance(each, Record)]
    assert kept[:100] == [f"a.parquet:{n}" for n in range(1, 101)]
    assert kept[-100:] == [f"a.parquet:{n}" for n in range(201, 301)]
    assert bad(results)


def test_a_file_that_cannot_be_opened_is_named(source):
    (source / "b.warc").mkdir()
    assert [(each.position, each.rule) for each in read(source / "b.warc")] == [
        ("b.warc", "damaged")
    ]
