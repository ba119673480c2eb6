"""Bodies without their end are counted; several gzip members are one body."""

from __future__ import annotations

import gzip
import zlib

import pytest

from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.data.readers import Record, read_warc
from llmstages.plugins.pages.files import Files

TEXT = b"<html>" + b"".join(b"<p>Paragraph %d of the page.</p>" % number for number in range(60))
HALF = len(TEXT) // 2


def warc(body: bytes, headers: str = "", warc_headers: str = "") -> bytes:
    """A WARC file of one page."""
    block = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{headers}\r\n".encode() + body
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/1\r\n"
        "WARC-Record-ID: <urn:uuid:1>\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        f"Content-Type: application/http\r\n{warc_headers}Content-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def chunked(body: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    pieces = [body[start : start + 500] for start in range(0, len(body), 500)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


GZIP = "Content-Encoding: gzip\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
PACKED = gzip.compress(TEXT)
MEMBERS = gzip.compress(TEXT[:HALF]) + gzip.compress(TEXT[HALF:])
WHOLE = {
    "plain": warc(TEXT, f"Content-Length: {len(TEXT)}\r\n"),
    "no length": warc(TEXT),
    "one member": warc(PACKED, f"{GZIP}Content-Length: {len(PACKED)}\r\n"),
    "two members": warc(MEMBERS, GZIP),
    "an empty member first": warc(gzip.compress(b"") + PACKED, GZIP),
    "padding after the end": warc(PACKED + b"\0" * 20, GZIP),
    "deflate": warc(zlib.compress(TEXT), "Content-Encoding: deflate\r\n"),
    "raw deflate": warc(zlib.compress(TEXT)[2:-4], "Content-Encoding: deflate\r\n"),
    "chunked": warc(chunked(TEXT), CHUNKED),
    "chunked members": warc(chunked(MEMBERS), CHUNKED + GZIP),
    # Crawlers keep the headers of what they unpacked.
    "unpacked": warc(TEXT, f"{GZIP}Content-Length: {len(PACKED)}\r\n"),
    "unpacked and longer": warc(b"<html>hi", f"{GZIP}Content-Length: 500\r\n"),
    "joined": warc(TEXT, CHUNKED),
    "longer than it says": warc(TEXT, "Content-Length: 10\r\n"),
}
CUT = {
    "gzip without its end": (warc(PACKED[:-40], GZIP), "gzip stream has no end"),
    "second member": (warc(MEMBERS[:-40], GZIP), "gzip stream has no end"),
    "deflate": (warc(zlib.compress(TEXT)[:-40], "Content-Encoding: deflate\r\n"), "no end"),
    "Content-Length": (warc(TEXT[:HALF], f"Content-Length: {len(TEXT)}\r\n"), f"{HALF} of "),
    "last chunk": (warc(chunked(TEXT, b""), CHUNKED), "last chunk"),
    "length": (warc(TEXT, "", "WARC-Truncated: length\r\n"), "WARC-Truncated: length"),
    "disconnect": (warc(TEXT, "", "WARC-Truncated: disconnect\r\n"), "disconnect"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_bodies_are_read_to_their_end(name, tmp_path):
    (tmp_path / "a.warc").write_bytes(WHOLE[name])
    (page,) = read_warc(tmp_path / "a.warc")
    assert isinstance(page, Record)
    assert page.body == (b"<html>hi" if name == "unpacked and longer" else TEXT)
    assert not page.cut


@pytest.mark.parametrize("name", CUT)
def test_a_body_without_its_end_says_so(name, tmp_path):
    data, why = CUT[name]
    (tmp_path / "a.warc").write_bytes(data)
    (page,) = read_warc(tmp_path / "a.warc")
    assert isinstance(page, Record)
    assert why in page.cut


@pytest.mark.parametrize("keep_cut, kept", [(True, 3), (False, 1)])
def test_cut_pages_are_counted_and_kept_by_choice(keep_cut, kept, tmp_path):
    for name in ("gzip without its end", "length"):
        (tmp_path / f"{name}.warc").write_bytes(CUT[name][0])
    (tmp_path / "whole.warc").write_bytes(WHOLE["plain"])
    said: list[str] = []
    out = tmp_path / "out"
    out.mkdir()
    ctx = Context("pages", out, out, {}, say=said.append)
    config = Files.Config(path=str(tmp_path), keep_cut=keep_cut)
    metrics = Files().run(config, ctx)
    assert (metrics["documents"], metrics["cut"], metrics["dropped"]) == (kept, 2, 3 - kept)
    assert sum("2 documents are not whole" in line for line in said) == 1
    dropped = tables.load(out / "dropped")
    assert list(dropped["rule"]) == ["cut"] * (3 - kept)
