"""Extraction: its limits, and its process: whatever a page does, it costs that page alone."""

import os
import time

import pytest

from llmstages.core import registry
from llmstages.core.errors import StageError
from llmstages.plugins.corpus import extraction, extraction_pool
from llmstages.plugins.corpus.extraction import Settings

from .test_web import html, story

TRAFILATURA = (("use", "trafilatura"),)


def extract(body, media="text/html", **limits):
    made = registry.load_component("extractors", {"use": "trafilatura"})
    return extraction.extract(body, media, "", "http://a.example", Settings(**limits), made)


def test_a_page_that_breaks_a_limit_gets_a_rule():
    slow = b"<html><body>" + b"<p>Some text of a paragraph here, with words.</p>" * 60_000
    assert extract(slow, seconds=0.3).rule == "timeout"
    assert extract(b"x" * 100, "text/plain", max_bytes=10).rule == "too_large"
    assert extract(b"x" * 100, "text/plain", max_characters=10).rule == "too_long"
    assert extract(b"x" * 100, "text/plain", max_word=10).rule == "longest_word"
    assert extract(b"x y " * 100, "text/plain", max_word=10).rule == ""
    assert extract(b"a\0b\r\nc", "text/plain").text == "ab\nc"


class _SlowToDie:
    """Its destructor takes the CPU; Python drops an exception that is raised in one."""

    def __del__(self):
        _burn(0.3)


def _burn(seconds):
    # User time only, as the limit counts it.
    start = os.times().user
    while os.times().user - start < seconds:
        sum(range(10_000))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seconds_afterwards", [0, 60])
def test_a_time_limit_is_kept_where_python_drops_its_exception(seconds_afterwards):
    class Extractor:
        def extract(self, source, url):
            _SlowToDie()
            _burn(seconds_afterwards)
            return "A text that came too late."

    start = time.process_time()
    page = (b"<p>words</p>", "text/html", "", "http://a.example")
    found = extraction.extract(*page, Settings(seconds=0.1), Extractor())
    assert found.rule == "timeout" and time.process_time() - start < 5
    assert extraction.extract(b"x", "text/plain", "", "", Settings(), Extractor()).text == "x"


def test_elements_inside_each_other_are_counted_but_not_those_side_by_side():
    deep = b"<div>" * 2000 + b"x" + b"</div>" * 2000
    wide = b"<div>x</div>" * 2000 + b"<br>x<p>y" * 3000
    assert extract(deep).rule == "html_depth" and extract(deep).value == 2000
    assert extraction.depth(wide.decode(), 1000) <= 1000 and extract(wide).rule == ""


def test_the_same_page_gives_the_same_text_again_and_again():
    page = html(*["Same words on this page."] * 2, *story(1))
    assert len({extract(page).text for _ in range(5)}) == 1 and story(1)[0] in extract(page).text


@pytest.mark.parametrize("name", ["plain", "resiliparse"])
def test_other_extractors(name):
    if name == "resiliparse":
        pytest.importorskip("resiliparse")
    made = registry.load_component("extractors", {"use": name})
    found = extraction.extract(
        html(*story(2)), "text/html", "", "http://a.example", Settings(), made
    ).text
    assert story(2)[3] in found and "<p>" not in found
    assert ("Home" in found) == (name == "plain")


@pytest.mark.parametrize(
    "body",
    [
        b"<a" * 300_000,
        b"<" * 1_000_000,
        b"<!DOCTYPE x [<!ENTITY a 'aaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]><p>&b;</p>" * 100,
        b"<p " + b"y=1 " * 200_000 + b">text",
        b"<p>" * 100_000 + b"x",
        b"<a href='" + b"x" * 3_000_000 + b"'>text</a>",
    ],
    ids=["open", "signs", "entities", "attributes", "paragraphs", "long"],
)
def test_hostile_pages_end_within_their_time(body):
    """Each ends with a text or a rule, well within twice its limit of CPU time.

    The second limit is for loops inside libraries.
    """
    worker = extraction_pool.Worker()
    start = time.monotonic()
    found, after = worker.run(
        [(body, "text/html", "", "u"), (html(*story(1)), "text/html", "", "u")],
        Settings(seconds=2),
        TRAFILATURA,
    )
    worker.close()
    assert found.text or found.rule
    assert story(1)[0] in after.text  # the next page is extracted as ever
    assert time.monotonic() - start < 60


def test_memory_has_a_limit():
    worker = extraction_pool.Worker()
    found, after = worker.run(
        [(b"<p>word</p>" * 800_000, "text/html", "", "u"), (html(*story(1)), "text/html", "", "u")],
        Settings(seconds=20, memory_mb=600),
        TRAFILATURA,
    )
    worker.close()
    assert found.rule in ("memory", "crashed", "error", "timeout") and story(1)[0] in after.text


SERVANT = """
import os, pickle, signal, sys, time
from llmstages.plugins.corpus.extraction import Extracted
send = lambda value: (pickle.dump(value, sys.stdout.buffer), sys.stdout.buffer.flush())
send("ready")
while True:
    try:
        settings, extractor, jobs = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    for body, media, charset, url in jobs:
        if body == b"crash":
            os.abort()
        if body == b"hang":
            time.sleep(60)
        if body == b"loop":
            os.kill(os.getpid(), signal.SIGPROF)
        send(Extracted(body.decode()))
"""


def test_a_page_that_kills_or_stops_its_process_costs_that_page_alone(monkeypatch):
    monkeypatch.setattr(extraction_pool.Worker, "command", ("-c", SERVANT))
    jobs = [
        (text.encode(), "text/html", "", "u")
        for text in ("a", "crash", "b", "hang", "c", "loop", "d")
    ]
    found = extraction_pool.Worker().run(jobs, Settings(seconds=0.05), TRAFILATURA)
    assert [each.rule or each.text for each in found] == [
        "a",
        "crashed",
        "b",
        "timeout",
        "c",
        "timeout",
        "d",
    ]


def test_a_worker_that_cannot_start_is_an_error(monkeypatch):
    monkeypatch.setattr(
        extraction_pool.Worker, "command", ("-c", "raise SystemExit('no trafilatura')")
    )
    with pytest.raises(StageError, match="ended before its first page"):
        extraction_pool.Worker().run([(b"", "text/html", "", "u")], Settings(), TRAFILATURA)
