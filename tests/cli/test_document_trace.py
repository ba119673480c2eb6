"""``llmstages show corpus --url``: what became of one page, told from the tables of the last run."""

import json

import pytest

from llmstages.cli import document_trace
from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.pipeline import history


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
    made = {path.name.split("-")[0]: history._made(path) for path in (pages, corpus)}
    steps = {name: history.Made(name, one.path, one.record) for name, one in made.items()}
    monkeypatch.setattr(
        history, "last_run", lambda overrides=(): history.Last(steps, "runs/x", tmp_path / "store")
    )


def told(url, step="corpus"):
    return "\n".join(document_trace.print_trace(step, url))


def test_a_page_that_was_kept(last):
    text = told("http://a.example/1")
    assert (
        "read as p:1: text/html, 1 bytes" in text and "kept: 14 characters in 2 documents" in text
    )
    assert "edited by pii: 2 places" in text and "| Line 0." in text


def test_a_page_that_was_dropped_by_url_or_id(last):
    assert "dropped by gopher_quality.short_doc: 13, needs >= 50 words" in told(
        "http://a.example/2"
    ) and "| Under construction." in told("p:2")


def test_a_page_that_could_not_be_read(last):
    text = told("http://a.example/bad")
    assert "pages:    dropped by damaged: cut off" in text and "corpus:   not here" in text


def test_unknown_pages_and_wrong_steps_are_explained(last):
    with pytest.raises(StageError, match="near: http://a.example/bad"):
        told("http://a.example/ba")
    with pytest.raises(StageError, match="nothing|no corpus"):
        told("http://a.example/1", "korpus")


def test_overrides_ask_for_what_they_compose(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match="has not been run with this configuration"):
        list(
            document_trace.print_trace("corpus", "http://a.example/1", ["corpus.words=whitespace"])
        )
