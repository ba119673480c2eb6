"""500 malformed records among 5,000 good documents: the good are kept, the bad are named."""

import gzip
import json
import random

from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.plugins.pages.files import Files

from .test_readers import page, record

MAX = 20_000
rng = random.Random(0)


def broken_member(url):
    """A gzip member with wrong bytes in its middle."""
    data = gzip.compress(record(url, rng.randbytes(300).hex().encode()))
    return data[:150] + rng.randbytes(40) + data[190:]


def encoded(url, content, encoding):
    return (
        record(url, content)
        .replace(b"text/html\r\n\r\n", b"text/html\r\nContent-Encoding: " + encoding + b"\r\n\r\n")
        .replace(b"Content-Length: ", b"Content-Length: 0000", 1)
    )


def fixed(data):
    """The record with its true length."""
    head, _, block = data.partition(b"\r\n\r\n")
    lines = [
        b"Content-Length: %d" % (len(block) - 4) if line.startswith(b"Content-Length") else line
        for line in head.split(b"\r\n")
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + block


BAD_MEMBERS = [
    broken_member,
    lambda url: b"junk between the members" * 3,
    lambda url: gzip.compress(record(url, b"<html>too short for its length", length=90_000)),
    lambda url: gzip.compress(record(url, b"<html>gone", status="404 Not Found")),
    lambda url: gzip.compress(record(url, b"\x89PNG", media="image/png")),
    lambda url: gzip.compress(record(url, b"<html>" + b"x" * MAX)),
    lambda url: gzip.compress(
        fixed(encoded(url, gzip.compress(b"<html>" + b"x" * 100 * MAX), b"gzip"))
    ),
    lambda url: gzip.compress(fixed(encoded(url, b"\x1f\x8b\x08" + rng.randbytes(100), b"gzip"))),
    lambda url: gzip.compress(fixed(encoded(url, b"\0\1\2" + rng.randbytes(100), b"br"))),
    lambda url: gzip.compress(b"WARC/1.0\r\nno header at all\r\n\r\n"),
    lambda url: gzip.compress(record(url, b"<html>")[:120]),
    lambda url: gzip.compress(
        record(url, b"<html>").replace(b"Content-Length: ", b"Content-Length: many")
    ),
]
BAD_LINES = [
    b"not json",
    b"[1, 2]",
    b'"text"',
    b"12",
    b"null",
    b'{"text": null}',
    b'{"text": ""}',
    b"{}",
    b'{"text": 5}',
    b'{"text": "cut',
    b'{"text": "' + b"x" * (MAX + 1) + b'"}',
    b'{"text": "' + b"x" * 10 * MAX + b'"}',
    b"[" * 100_000,
    rng.randbytes(200).replace(b"\n", b""),
    b'{"text": "\x01 control"}',
    b'{"a": {"text": "deep"}}',
]
BAD_FILES = [
    ("html", b""),
    ("md", b" \n\n"),
    ("html.gz", gzip.compress(b"<html>cut" * 90)[:-9]),
    ("html", b"<html>" + b"x" * MAX),
    ("parquet", b"PAR1 nonsense"),
    ("html.gz", b"no gzip"),
    ("jsonl", b""),
    ("json", b"{ nonsense"),
    ("txt", b"x" * (MAX + 1)),
    ("html.gz", gzip.compress(b"<html>" + b"x" * 200 * MAX)),
    ("csv", b""),
    ("warc", b""),
    ("warc", b"no record\n"),
    ("json", b"[]"),
    ("txt.zst", b"no zstd"),
    ("csv", b'text,n\n"open,1\n'),
]


def write(folder):
    """Write the input; returns the urls of the good documents and the places of the bad ones."""
    good, bad = [], []
    kinds = [True] * 2000 + [False] * 200
    rng.shuffle(kinds)
    warc, plain = [], []
    for number, is_good in enumerate(kinds):
        url = f"http://a.example/{number}"
        if is_good:
            good.append(url)
        else:
            bad.append("a.warc.gz")
        warc.append(
            gzip.compress(page(number)) if is_good else BAD_MEMBERS[number % len(BAD_MEMBERS)](url)
        )
    (folder / "a.warc.gz").write_bytes(b"".join(warc))
    rng.shuffle(kinds)
    for number, is_good in enumerate(kinds):
        if is_good:
            good.append(f"http://b.example/{number}")
            plain.append(
                json.dumps(
                    {"text": f"Text {number}, größer.", "url": good[-1]},
                    ensure_ascii=number % 2 == 0,
                ).encode()
            )
        else:
            bad.append(f"b.jsonl:{number + 1}")
            plain.append(BAD_LINES[number % len(BAD_LINES)])
    (folder / "b.jsonl").write_bytes(b"\n".join(plain))
    (folder / "c").mkdir()
    for number in range(1000):
        name = f"{number}.{('html', 'txt', 'md')[number % 3]}"
        (folder / "c" / name).write_text(f"<p>File {number}</p>\n")
        good.append(f"file:{name}")
    for number in range(100):
        ending, content = BAD_FILES[number % len(BAD_FILES)]
        (folder / "c" / f"bad{number}.{ending}").write_bytes(content)
        bad.append(f"bad{number}.{ending}")
    return good, bad


def test_no_good_document_is_lost_and_each_bad_record_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    good, bad = write(tmp_path / "in")
    assert len(good) == 5000
    assert len(bad) == 500
    out = tmp_path / "out"
    out.mkdir()
    log = []
    metrics = Files().run(
        Files.Config(path=str(tmp_path / "in"), max_bytes=MAX),
        Context("pages", out, out, {}, say=log.append),
    )
    assert sorted(tables.load(out / "data")["url"]) == sorted(good)
    dropped = tables.load(out / "dropped").to_list()
    assert all(row["id"] and row["rule"] and row["value"] for row in dropped)
    assert not [place for place in bad if not any(row["id"].startswith(place) for row in dropped)]
    assert len(dropped) == metrics["dropped"] == len(bad)
    # One message per reason, and one for files without documents.
    assert len(log) == 1 + len({row["rule"] for row in dropped})
