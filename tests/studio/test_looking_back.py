"""Runs, lineage and trace of the studio: what was made, of what, and where a text comes from."""

from __future__ import annotations

import json
import time

import pytest

from llmstages.data import tables
from llmstages.pipeline.api import run, step
from llmstages.pipeline.store import Store
from llmstages.studio.app import Studio
from llmstages.studio.runs import progress_of
from llmstages.studio.trace import traced
from tests.studio.conftest import Client

LOG = """2026-11-27 05:04:34 sft runs
2026-11-27 05:04:35   tokens 100/100 in 0.1 s
2026-11-27 05:04:51   sft 146/1457, 2.3 min left loss 1.856, 9.9k tok/s
2026-11-27 05:05:06   sft 289/1457, 107.4 s left loss 1.336, reward -0.250, 9.8k tok/s
"""


def test_the_run_with_its_steps_in_order(client):
    run = client.get("/api/run")
    names = [step["name"] for step in run["steps"]]
    assert names.index("base") < names.index("helper")
    assert {step["state"] for step in run["steps"]} == {"done"}
    assert run["models"] == ["base", "helper", "plain"]
    assert run["tokenizers"][0] == "tokenizer"


def test_a_finished_step_with_its_curves_and_lines(client):
    facts = client.get("/api/step/base")
    names = [curve["name"] for curve in facts["curves"]]
    assert names[0] == "loss" and "learning_rate" in names
    assert all(len(curve["points"]) > 1 for curve in facts["curves"])
    assert facts["metrics"]["updates"] > 0
    assert "no step of that name" in client.get("/api/step/bass", 400)["error"]["message"]


def test_progress_is_read_from_lines():
    points = progress_of(LOG.splitlines())
    assert points[0] == {"done": 100, "total": 100, "left": ""}
    assert points[1] == {"done": 146, "total": 1457, "left": "2.3 min", "loss": 1.856}
    assert points[2]["reward"] == -0.25 and points[2]["left"] == "107.4 s"


def test_a_running_step_and_what_waits_for_it(made, last, tmp_path, monkeypatch):
    """A step whose lock is held runs; the page sees it end without a restart."""
    folder = tmp_path / "runs" / "now"
    folder.mkdir(parents=True)
    store = Store(tmp_path / "store")
    keys = {"sft": "sft-1", "rl": "rl-1", "broken": "broken-1"}
    facts = {"overrides": ["seed=1"], "started": time.time(), "keys": keys}
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "sft.log").write_text(LOG)
    (folder / "broken.log").write_text("2026-11-27 05:04:34 broken failed: no reason\n")
    past = type(last)({}, str(folder), store.path)
    studio = Studio(past, tmp_path / "runs")
    client = Client(studio)
    with store.making("sft-1", lambda line: None):
        states = {one["name"]: one for one in client.get("/api/run")["steps"]}
        assert states["sft"]["state"] == "running"
        assert states["sft"]["progress"]["left"] == "107.4 s"
        assert states["rl"]["state"] == "waiting"
        assert states["broken"]["state"] == "failed"
        live = client.get("/api/step/sft")
        assert live["curves"][0] == {"name": "loss", "points": [[146, 1.856], [289, 1.336]]}
        assert live["lines"][-1].endswith("9.8k tok/s")
    record = {"step": "sft", "stage": "sft.chat", "kind": "model", "finished": 1.0, "metrics": {}}
    (store.path / "sft-1").mkdir()
    (store.path / "sft-1" / "record.json").write_text(json.dumps(record))
    states = {one["name"]: one["state"] for one in client.get("/api/run")["steps"]}
    assert states["sft"] == "done"


def test_another_run_can_be_looked_at(client, studio):
    assert "no run of that name" in client.post("/api/run", 400, name="x")["error"]["message"]


def test_the_graph_of_a_step_and_what_each_artifact_is(client):
    graph = client.get("/api/lineage/helper")
    depth = {node["step"]: node["depth"] for node in graph["nodes"]}
    assert set(depth) == {"helper", "base", "tokenizer", "tools", "lookups", "pages"}
    key = {node["step"]: node["key"] for node in graph["nodes"]}
    assert graph["root"] == key["helper"]
    assert [key["base"], key["helper"]] in graph["edges"]
    for source, made in graph["edges"]:
        names = {value: name for name, value in key.items()}
        assert depth[names[source]] < depth[names[made]]
    details = client.get(f"/api/artifact/helper/{key['lookups']}")
    changed = {option["name"] for option in details["config"] if option["changed"]}
    assert changed == {"strangers", "sums"}
    assert details["rows"] and "messages" in details["rows"][0]
    assert any(file["name"] == "record.json" for file in details["files"])
    assert details["record"]["stage"] == "dialogues.world_tools"


def test_only_what_is_in_the_lineage_is_shown(client):
    plain = client.get("/api/lineage/plain")["root"]
    message = client.get(f"/api/artifact/helper/{plain}", 400)["error"]["message"]
    assert "no artifact of that key" in message
    assert "no step of that name" in client.get("/api/lineage/nobody", 400)["error"]["message"]


def test_a_secret_in_a_config_is_masked(client, studio, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "very-secret-value-123")
    step = studio.run.steps["helper"]
    step.record["config"]["note"] = "very-secret-value-123"
    root = client.get("/api/lineage/helper")["root"]
    shown = client.get(f"/api/artifact/helper/{root}")
    del step.record["config"]["note"]
    assert "very-secret-value-123" not in json.dumps(shown)


@pytest.fixture
def traced_studio(tmp_path, last):
    """A model of two sources: a corpus with a page that was copied, and dialogues."""
    proclamation = "Let it be known that the old bridge of Vuvin stays closed until spring comes."
    pages = [
        ("http://a/1", f"Today we heard this. {proclamation} So says the mayor."),
        ("http://a/2", f"{proclamation} And nobody minds."),
        ("http://a/3", "The fox lives near the river and sleeps all day."),
    ]
    folder = tmp_path / "store"
    rows = [{"id": str(n), "url": url, "text": text} for n, (url, text) in enumerate(pages)]
    noted = {"id": "1", "url": "http://a/2", "filter": "gopher_quality", "rule": "words"}

    def artifact(name, kind, inputs=()):
        path = folder / f"{name}-1"
        path.mkdir(parents=True)
        record = {
            "step": name,
            "kind": kind,
            "inputs": {source: [source] for source in inputs},
            "identity": {"inputs": dict.fromkeys(inputs, "1")},
            "finished": 1.0,
        }
        (path / "record.json").write_text(json.dumps(record))
        return path

    corpus = artifact("corpus", "corpus")
    tables.save(rows, corpus / "data")
    tables.save([{**noted, "value": 14.0, "least": 5.0, "most": None}], corpus / "annotations")
    chats = artifact("chats", "dialogues")
    talk = [{"role": "assistant", "content": "the fox lives near the river and sleeps", "tool": ""}]
    tables.save([{"messages": talk}], chats / "data")
    model = artifact("model", "model", ("corpus", "chats"))
    from llmstages.pipeline.history import PastRun, read_artifact

    step = read_artifact(model)
    past = PastRun({"model": type(step)("model", step.path, step.record)}, str(folder), folder)
    return Studio(past, tmp_path / "runs")


def test_an_answer_is_traced_to_its_pages(traced_studio):
    text = (
        "He said: let us see. Let it be known that the old bridge of Vuvin stays closed until "
        "spring comes. The fox lives near the river and sleeps tonight."
    )
    data = traced(traced_studio, {"model": "model", "text": text})
    spans = [text[one["begin"] : one["end"]] for one in data["runs"]]
    assert spans == [
        "Let it be known that the old bridge of Vuvin stays closed until spring comes",
        "The fox lives near the river and sleeps",
    ]
    first, second = data["runs"]
    assert first["documents"] == 2 and first["words"] == 15
    assert [page["url"] for page in first["pages"]] == ["http://a/1", "http://a/2"]
    page = first["pages"][1]
    assert page["match"] == spans[0] and page["after"] == ". And nobody minds."
    assert any("gopher_quality.words: 14" in line for line in page["history"])
    assert {page["step"] for page in second["pages"]} == {"corpus"}, "capitals count"
    assert data["read_all"] and {"step": "chats", "documents": 1} in data["sources"]


def test_parts_of_longer_runs_and_short_runs_are_left_out(traced_studio):
    data = traced(traced_studio, {"model": "model", "text": "the old bridge of nothing at all"})
    assert data["runs"] == []
    data = traced(traced_studio, {"model": "model", "text": "the old bridge of Vuvin", "words": 3})
    assert [one["words"] for one in data["runs"]] == [5]


def test_a_large_corpus_is_read_in_part_and_the_answer_says_so(traced_studio, monkeypatch):
    from llmstages.studio import trace

    monkeypatch.setattr(trace, "MOST_CHARACTERS", 10)
    data = traced(traced_studio, {"model": "model", "text": "the fox lives near the river and"})
    assert not data["read_all"]


def test_the_page_of_a_made_up_text_is_none(client):
    message = client.post("/api/trace", 400, model="helper", text="too short")["error"]["message"]
    assert "has 2 words" in message


def test_the_studio_finds_what_a_run_adds(tmp_path, monkeypatch):
    """A step that another process finishes is there at the next look."""
    from llmstages.pipeline import history

    monkeypatch.chdir(tmp_path)
    numbers = step("numbers", "problems.jagged", {"test": 5, "train": 5})
    run([numbers], tmp_path / "store", runs=str(tmp_path / "runs"), name="one", quiet=True)
    client = Client(Studio(history.last_run(), tmp_path / "runs"))
    assert [one["name"] for one in client.get("/api/run")["steps"]] == ["numbers"]
    more = step("more", "problems.jagged", {"test": 6, "train": 5})
    run([numbers, more], tmp_path / "store", runs=str(tmp_path / "runs"), name="one", quiet=True)
    assert {one["name"] for one in client.get("/api/run")["steps"]} == {"numbers", "more"}
