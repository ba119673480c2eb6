"""Memory grows neither with the input nor with what it expands to, measured in new processes."""

import gzip
import json
import random
import subprocess
import sys
import zlib

import pytest

from .test_readers import page, record

READ = """
import json, resource, sys, time
from pathlib import Path
from llmstages.data.readers import Rejected, read

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

list(read(Path(sys.argv[1])))
before = peak()
measured = {}
for name in sys.argv[2:]:
    start = time.process_time()
    documents = []
    for document in read(Path(name), block=100_000):
        is_bad = isinstance(document, Rejected)
        documents.append((document.rule, "") if is_bad else ("", document.url))
    measured[Path(name).name] = [documents, time.process_time() - start, peak() - before]
print(json.dumps(measured))
"""
STAGE = """
import resource, sys
from pathlib import Path
from llmstages.plugins.pages.files import Files
from llmstages.core.stage import Context
out = Path(sys.argv[2])
metrics = Files().run(Files.Config(path=sys.argv[1]), Context("pages", out, out, {}))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(metrics["documents"], metrics["dropped"], peak)
"""


def python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def packed(before, megabytes, after=b""):
    """A gzip member that expands to so many megabytes of one letter."""
    deflate, letters = zlib.compressobj(9, zlib.DEFLATED, 31), b"a" * 1_000_000
    return (
        deflate.compress(before)
        + b"".join(deflate.compress(letters) for _ in range(megabytes))
        + deflate.compress(after)
        + deflate.flush()
    )


def bombs(folder, megabytes):
    """Small files that hold, or are, one large record, most of them between two good ones."""
    member = record("http://a.example/2", b"", length=megabytes * 1_000_000 + 44)[:-4]
    content = packed(b"<html>", megabytes)
    block = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n" + content
    )
    encoded = record(
        "http://a.example/2", block, kind="resource", media="application/http"
    ).replace(b"WARC-Type: resource", b"WARC-Type: response")
    return {
        "member.warc.gz": gzip.compress(page(1))
        + packed(member, megabytes, b"\r\n\r\n")
        + gzip.compress(page(3)),
        "encoded.warc.gz": gzip.compress(page(1)) + gzip.compress(encoded) + gzip.compress(page(3)),
        "header.warc.gz": gzip.compress(page(1))
        + packed(b"WARC/1.0\r\nX: ", megabytes)
        + gzip.compress(page(3)),
        "lines.jsonl.gz": packed(
            b'{"text": "1", "url": "1"}\n{"text": "', megabytes, b'"}\n{"text": "3", "url": "3"}\n'
        ),
        "list.json.gz": packed(
            b'[\n{"text": "1", "url": "1"},\n{"text": "',
            megabytes,
            b'"},\n{"text": "3", "url": "3"}\n]',
        ),
        "rows.csv.gz": packed(b'text,url\n1,1\n"', megabytes, b'",2\n3,3\n'),
        "page.html.gz": content,
        "text.txt.gz": packed(b"first line\n", megabytes, b"\nlast line\n"),
    }


@pytest.mark.parametrize("megabytes", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_what_expands_a_thousand_times_is_one_dropped_row(tmp_path, megabytes):
    (tmp_path / "small.jsonl").write_text('{"text": "1"}')
    files = bombs(tmp_path, megabytes)
    for name, content in files.items():
        assert len(content) < 1100 * megabytes
        (tmp_path / name).write_bytes(content)
    measured = json.loads(
        python(READ, tmp_path / "small.jsonl", *(tmp_path / name for name in files))
    )
    for name, (documents, seconds, memory) in measured.items():
        rules = [rule for rule, _ in documents if rule]
        assert rules == ["damaged" if name.startswith("header") else "too_large"], (name, documents)
        assert len(documents) - 1 == (0 if name.startswith("page") else 2), name
        print(f"{name}: {seconds:.1f} s of CPU time, {memory} MB")
        assert seconds < 5, (name, seconds, memory)
        assert memory < 300, (name, seconds, memory)


def write_lines(path, size):
    rng, done, number = random.Random(0), 0, 0
    pages = [
        bytes(rng.choices(b"abcdefgh  .,\n", k=rng.randint(2_000, 200_000))) for _ in range(50)
    ]
    with open(path, "wb") as stream:
        while done < size:
            done += stream.write(
                json.dumps(
                    {
                        "text": f"{number} {pages[number % 50].decode()}",
                        "url": f"http://a.example/{number}",
                    }
                ).encode()
                + b"\n"
            )
            number += 1
    return number


def write_warc(path, size):
    rng, done, number = random.Random(0), 0, 0
    pages = [rng.randbytes(rng.randint(1_000, 60_000)).hex().encode() for _ in range(50)]
    with open(path, "wb") as stream:
        while done < size:
            done += stream.write(
                gzip.compress(
                    record(
                        f"http://a.example/{number}", b"<html>%d " % number + pages[number % 50]
                    ),
                    1,
                )
            )
            number += 1
    return number


@pytest.mark.slow
@pytest.mark.parametrize("name, write", [("a.jsonl", write_lines), ("a.warc.gz", write_warc)])
def test_a_gigabyte_takes_the_memory_of_a_hundred_megabytes(tmp_path, name, write):
    peaks = []
    for size in (100_000_000, 1_000_000_000):
        documents = write(tmp_path / name, size)
        out = tmp_path / str(size)
        out.mkdir()
        kept, dropped, peak = map(int, python(STAGE, tmp_path / name, out).split())
        assert (kept, dropped) == (documents, 0)
        peaks.append(peak)
    print(name, peaks, "MB")
    assert peaks[1] < 600, peaks
    assert peaks[1] <= 1.3 * peaks[0] + 100, peaks
