"""Files of every kind, whole and damaged: what is readable is read, what is not is named."""

import contextlib
import gzip
import io
import json
from pathlib import Path

import pytest

from llmstages.core.errors import StageError
from llmstages.data.readers import Record, Rejected, find, read, read_warc, rows
from llmstages.data.readers.streams import Meter
from llmstages.data.readers.warc import _records

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "warc_bad"


def record(url, body, *, kind="response", status="200 OK", media="text/html", length=None):
    """The bytes of one WARC record."""
    block = body
    content_type = media
    if kind == "response":
        block = f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\n\r\n".encode() + body
        content_type = "application/http; msgtype=response"
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\n"
        f"WARC-Record-ID: <urn:uuid:{url}>\r\n"
        f"WARC-Date: 2024-01-01T00:00:00Z\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(block) if length is None else length}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def page(number):
    return record(
        f"http://a.example/{number}",
        b"<html><p>page %d</p>" % number + bytes(range(32, 127)) * (number % 7 + 1),
    )


def urls(results):
    return [int(each.url.rsplit("/", 1)[1]) for each in results if isinstance(each, Record)]


def test_each_record_type_and_media(tmp_path):
    path = tmp_path / "a.warc.gz"
    path.write_bytes(
        b"".join(
            map(
                gzip.compress,
                [
                    record("", b"software: x", kind="warcinfo"),
                    page(1),
                    record("http://a.example/2", b"GET /", kind="request"),
                    record("http://a.example/3", b"plain", kind="conversion", media="text/plain"),
                    record("http://a.example/4", b"<html>\xfc", media="text/html; charset=latin-1"),
                    record("http://a.example/5", b"gone", status="404 Not Found"),
                    record("http://a.example/6", b"\x89PNG", media="image/png"),
                    record("own:7", b"<html>other scheme"),
                    record("metadata://x/8", b"log", kind="resource", media="text/plain"),
                ],
            )
        )
    )
    results = list(read_warc(path))
    assert [(r.url[-1], r.media) for r in results if isinstance(r, Record)] == [
        ("1", "text/html"),
        ("3", "text/plain"),
        ("4", "text/html"),
        ("7", "text/html"),
    ]
    assert [(b.url[-1], b.rule) for b in results if isinstance(b, Rejected)] == [
        ("5", "status"),
        ("6", "media"),
    ]
    assert results[0].id == "a.warc.gz:2"
    assert results[2].charset == "latin-1"
    assert results[-1].body == b"<html>other scheme"


def test_a_file_cut_off_gives_all_whole_records_and_says_where(tmp_path):
    data = b"".join(gzip.compress(page(n)) for n in range(10))
    (tmp_path / "cut.warc.gz").write_bytes(data[: len(data) - 40])
    results = list(read_warc(tmp_path / "cut.warc.gz"))
    assert urls(results) == list(range(9))
    assert any("cut off" in each.reason for each in results if isinstance(each, Rejected))


def test_reading_goes_on_after_a_damaged_member(tmp_path):
    members = [gzip.compress(page(n)) for n in range(10)]
    members[4] = members[4][:60] + bytes(40) + members[4][100:]
    (tmp_path / "bad.warc.gz").write_bytes(
        b"".join(members[:7]) + b"garbage" + b"".join(members[7:])
    )
    results = list(read_warc(tmp_path / "bad.warc.gz"))
    assert urls(results) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    reasons = " | ".join(each.reason for each in results if isinstance(each, Rejected))
    assert "damaged gzip member" in reasons
    assert "not a gzip member" in reasons


def test_one_gzip_member_for_the_whole_file_whole_and_damaged(tmp_path):
    data = gzip.compress(b"".join(page(n) for n in range(200)), 1)
    (tmp_path / "one.warc.gz").write_bytes(data)
    assert urls(read_warc(tmp_path / "one.warc.gz")) == list(range(200))
    (tmp_path / "half.warc.gz").write_bytes(data[: len(data) // 2])
    results = list(read_warc(tmp_path / "half.warc.gz"))
    kept = urls(results)
    assert kept == list(range(len(kept)))
    assert 60 < len(kept) < 140
    assert isinstance(results[-1], Rejected)


def test_a_record_spread_over_two_members(tmp_path):
    whole = page(3)
    (tmp_path / "two.warc.gz").write_bytes(
        gzip.compress(whole[:300]) + gzip.compress(whole[300:]) + gzip.compress(page(4))
    )
    assert urls(read_warc(tmp_path / "two.warc.gz")) == [3, 4]


def test_plain_text_wrong_lengths_and_junk(tmp_path):
    body = b"<html><p>wrong</p>" * 10
    for name, length in (("long", 100_000), ("short", 90)):
        (tmp_path / f"{name}.warc").write_bytes(
            page(1) + record("http://a.example/2", body, length=length) + b"junk\r\n" + page(3)
        )
        results = list(read_warc(tmp_path / f"{name}.warc"))
        assert [n for n in urls(results) if n != 2] == [1, 3], name
        assert any(isinstance(each, Rejected) for each in results), name
    (tmp_path / "empty.warc").write_bytes(b"")
    assert [each.reason for each in read_warc(tmp_path / "empty.warc")] == ["the file is empty"]


# Records of each file, counted by eye (a "WARC/1.0" line with headers after it); the records that
# warcio's ArchiveIterator gives, which stops at what it takes for damage; the size of the page, if
# there is one.
ODD = {
    "example-bad-non-chunked.warc.gz": (6, 1, 1270),
    "example-bad.warc.gz.bad": (6, 1, 1270),
    "example-iana.org-chunked.warc": (3, 3, 7223),
    "example-space-in-target-uri.warc.gz": (2, 2, None),
    "example-trunc.warc": (4, 4, 1270),
    "example-wget-bad-target-uri.warc.gz": (6, 6, 1270),
    "example-wrong-chunks.warc.gz": (2, 1, 1270),
    "example.warc.gz": (6, 6, 1270),
    "post-test.warc.gz": (6, 6, None),
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development data")
@pytest.mark.parametrize("name", ODD)
def test_the_odd_files_of_other_tools_are_read_further_than_warcio_reads_them(name):
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    records, by_warcio, page_size = ODD[name]
    results = list(_records(SHARED / name, 10_000_000, Meter()))
    assert len(results) == records
    assert not [each for each in results if isinstance(each, Rejected)]
    pages = [each for each in read_warc(SHARED / name) if isinstance(each, Record)]
    assert [len(each.body) for each in pages] == ([page_size] if page_size else [])
    warcio_records = 0
    with open(SHARED / name, "rb") as stream, contextlib.suppress(ArchiveLoadFailed):
        for _ in ArchiveIterator(stream):
            warcio_records += 1
    assert warcio_records == by_warcio <= records


def test_tables_keep_every_good_row_and_number_the_bad(tmp_path):
    lines = [
        '\ufeff{"text": "one", "url": "http://a/1"}'.encode(),
        b"",
        b"not json",
        b'{"text": "b\xffd"}',
        b'{"text": null}',
        b"[1]",
        rb'{"text": "\ud800 lone"}',
        b'{"html": "<p>x"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    results = list(read(tmp_path / "a.jsonl"))
    assert [(each.id, each.body.decode()) for each in results if isinstance(each, Record)] == [
        ("a.jsonl:1", "one"),
        ("a.jsonl:4", "b\ufffdd"),
        ("a.jsonl:7", "\ufffd lone"),
        ("a.jsonl:8", "<p>x"),
    ]
    assert [(each.position, each.rule) for each in results if isinstance(each, Rejected)] == [
        ("a.jsonl:3", "format"),
        ("a.jsonl:5", "null_text"),
        ("a.jsonl:6", "format"),
    ]
    assert results[-1].media == "text/html"


def test_the_same_rows_from_every_table_type(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = [{"text": 'eins,\n"zwei"', "n": "1"}, {"text": "drei " * 50_000, "n": "2"}]
    lines = "\n".join(map(json.dumps, table)).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    with pyarrow.output_stream(tmp_path / "a.jsonl.zst", compression="zstd") as stream:
        stream.write(lines)
    (tmp_path / "a.json").write_text(json.dumps(table))
    (tmp_path / "b.json").write_text(json.dumps({"version": 1, "data": table}))
    (tmp_path / "c.json").write_bytes(lines)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "a.parquet")
    quoted = io.StringIO()
    import csv

    writer = csv.DictWriter(quoted, ["text", "n"])
    writer.writeheader()
    writer.writerows(table)
    (tmp_path / "a.csv").write_text(quoted.getvalue())
    for path in sorted(tmp_path.iterdir()):
        assert [row for _, row in rows(path)] == table, path.name


def test_damaged_tables_are_named_not_raised(tmp_path):
    good = b'{"text": "x"}\n' * 5000
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(good)[:-20])
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    (tmp_path / "a.json").write_text("{ nonsense")
    for path in sorted(tmp_path.iterdir()):
        assert isinstance(list(rows(path))[-1][1], Rejected), path.name


def test_long_text_files_are_cut_at_line_ends_and_lose_nothing(tmp_path):
    text = "\n\n".join(f"Paragraph {n} of a book. " * 5 for n in range(100))
    (tmp_path / "book.txt").write_text(text)
    parts = list(read(tmp_path / "book.txt", block=1000))
    assert len(parts) > 5
    assert b"".join(part.body for part in parts).decode() == text
    assert parts[1].id == "book.txt:2"
    assert all(part.body.endswith(b"\n\n") for part in parts[:-1])
    assert len(list(read(tmp_path / "book.txt"))) == 1


def test_find_says_what_is_there(tmp_path):
    (tmp_path / "pages.warc.gz").touch()
    (tmp_path / "notes.docx").touch()
    assert [p.name for p in find(str(tmp_path), "pages")] == ["pages.warc.gz"]
    assert [p.name for p in find(f"{tmp_path}/*.gz", "pages")] == ["pages.warc.gz"]
    for pattern, expected in (
        ("", "set pages.path=FILE"),
        (f"{tmp_path}/page.warc.gz", "has pages.warc.gz"),
        (f"{tmp_path}/*.html", "matches no file"),
        (f"{tmp_path}/x/y/z", "no such file"),
    ):
        with pytest.raises(StageError, match=expected):
            find(pattern, "pages")
    with pytest.raises(StageError, match="'.docx' cannot be read"):
        list(read(tmp_path / "notes.docx"))
