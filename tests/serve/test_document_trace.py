"""``llmstages show corpus --url``: what became of one page, by the tables of the last run."""

import json

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.pipeline import history
from llmstages.serve import document_trace


@pytest.fixture
def last(tmp_path, monkeypatch):
    """A run with a documents step and a corpus made from it."""
    pages, corpus = tmp_path / "store" / "pages-1", tmp_path / "store" / "corpus-2"
    for folder, record in (
        (pages, {"kind": "documents", "step": "pages"}),
        (
            corpus,
            {
                "kind": "corpus",
                "step": "corpus",
                "inputs": {"documents": ["pages"]},
                "identity": {"inputs": {"documents": "1"}},
            },
        ),
    ):
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(record))
    tables.save(
        [
            {
                "id": f"p:{i}",
                "url": f"http://a.example/{i}",
                "body": b"x" * i,
                "media": "text/html",
                "charset": "",
            }
            for i in range(4)
        ],
        pages / "data",
    )
    tables.save(
        [
            {
                "id": "p:9",
                "url": "http://a.example/bad",
                "rule": "damaged",
                "value": "cut off",
                "limit": "",
                "excerpt": "",
            }
        ],
        pages / "dropped",
    )
    tables.save(
        [{"id": f"p:1#{k}", "url": "http://a.example/1", "text": f"Line {k}."} for k in range(2)],
        corpus / "data",
    )
    tables.save(
        [
            {
                "id": "p:2",
                "url": "http://a.example/2",
                "rule": "gopher_quality.short_doc",
                "value": "13",
                "limit": ">= 50 words",
                "excerpt": "Under construction.",
            }
        ],
        corpus / "dropped",
    )
    tables.save(
        [{"id": "p:1", "url": "http://a.example/1", "filter": "pii", "count": 2}], corpus / "edits"
    )
    counts = {"seen": 3, "dropped": 1, "edited": 0}
    funnel = [
        {"rule": "extract.empty", "kind": "extract", **counts},
        {"rule": "gopher_quality.short_doc", "kind": "judge", **counts},
        {"rule": "gopher_quality.long_words", "kind": "judge", **counts},
        {"rule": "length", "kind": "judge", **counts, "would_drop": 1},
        {"rule": "pii", "kind": "edit", **counts},
        {"rule": "split.min_paragraph_words", "kind": "split", **counts},
    ]
    (corpus / "funnel.json").write_text(json.dumps(funnel))
    length = {"id": "p:3", "url": "http://a.example/3", "filter": "length", "rule": "words"}
    tables.save(
        [
            {**length, "value": 7.0, "least": 10.0, "most": None},
            {**length, "value": 20.0, "least": 10.0, "most": 30.0},
        ],
        corpus / "annotations",
    )
    steps = {}
    for path in (pages, corpus):
        name = path.name.split("-")[0]
        artifact = history.read_artifact(path)
        steps[name] = history.StoredArtifact(name, artifact.path, artifact.record)
    run = history.PastRun(steps, "runs/x", tmp_path / "store")
    monkeypatch.setattr(history, "last_run", lambda overrides=(): run)


def trace(url, step="corpus"):
    return "\n".join(document_trace.trace_lines(step, url))


def test_a_page_that_was_kept(last):
    text = trace("http://a.example/1")
    assert "read as p:1: text/html, 1 bytes" in text
    assert "kept: 14 characters in 2 documents" in text
    assert "passed extract, gopher_quality\n" in text, "what only measures or edits drops nothing"
    assert "edited by pii: 2 places" in text
    assert "| Line 0." in text


def test_a_page_that_was_dropped_by_url_or_id(last):
    rule = "dropped by gopher_quality.short_doc: 13, needs >= 50 words"
    assert rule in trace("http://a.example/2")
    assert "| Under construction." in trace("p:2")


def test_rules_that_a_page_was_measured_by(last):
    text = trace("http://a.example/3")
    assert "broken length.words: 7, >= 10" in text
    assert "held   length.words: 20, >= 10 and <= 30" in text


def test_a_page_that_could_not_be_read(last):
    text = trace("http://a.example/bad")
    assert "pages:    dropped by damaged: cut off" in text
    assert "corpus:   not here" in text


def test_unknown_pages_and_wrong_steps_are_explained(last):
    with pytest.raises(StageError, match="near: http://a.example/bad"):
        trace("http://a.example/ba")
    with pytest.raises(StageError, match="nothing|no corpus"):
        trace("http://a.example/1", "korpus")


def test_overrides_ask_for_what_they_compose(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match="has not been run with this configuration"):
        list(
            document_trace.trace_lines("corpus", "http://a.example/1", ["corpus.words=whitespace"])
        )
