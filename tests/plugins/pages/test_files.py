"""pages.files and pages.hub as stages."""

import gzip

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.plugins.pages.files import Files
from llmstages.plugins.pages.hub import Hub

from .test_readers import page, record


def table(folder):
    """Rows of a table; datasets cannot load one without rows."""
    return tables.load(folder) if list(folder.glob("*.arrow")) else []


def run(stage, out, **values):
    out.mkdir()
    log = []
    metrics = stage().run(stage.Config(**values), Context("pages", out, out, {}, say=log.append))
    return metrics, tables.load(out / "data"), table(out / "dropped"), log


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.warc.gz").write_bytes(
        gzip.compress(page(1))
        + gzip.compress(record("http://a.example/2", b"x", media="image/png"))
    )
    (tmp_path / "in" / "b.html").write_text("<html><p>two</p>")
    (tmp_path / "in" / "deep" / "c.md").write_text("# three")
    (tmp_path / "in" / "deep" / "d.jsonl").write_text('{"content": "four", "id": "row4"}\nbroken\n')
    return tmp_path


def test_a_folder_of_everything(folder):
    metrics, data, dropped, log = run(Files, folder / "out", path=str(folder / "in"))
    assert data["id"][:] == ["a.warc.gz:1", "b.html", "c.md", "row4"]
    assert data["media"][:] == ["text/html", "text/html", "text/plain", "text/plain"]
    assert data["url"][:] == ["http://a.example/1", "file:b.html", "file:c.md", "file:d.jsonl:1"]
    assert dropped["rule"][:] == ["media", "format"]
    assert dropped["id"][1] == "d.jsonl:2"
    assert metrics["documents"] == 4
    assert metrics["dropped"] == 2
    assert len(log) == 2


def test_equal_input_gives_equal_bytes(folder):
    for name in ("one", "two"):
        run(Files, folder / name, path=str(folder / "in"))
    one, two = (
        {p.relative_to(folder / n): p.read_bytes() for p in (folder / n).rglob("*") if p.is_file()}
        for n in ("one", "two")
    )
    assert one == two


def test_limit_is_announced(folder):
    metrics, _, _, log = run(Files, folder / "out", path=str(folder / "in"), limit=2)
    assert metrics["documents"] == 2
    assert any("stopped after 2" in line for line in log)


def test_nothing_usable_is_an_error_that_names_the_first_reason(folder):
    (folder / "x.jsonl").write_text("{}\n")
    with pytest.raises(
        StageError, match="no usable document; left out: 1 empty, first: x.jsonl:1: no text"
    ):
        run(Files, folder / "out", path=str(folder / "x.jsonl"))


def test_hub_streams_and_explains_a_missing_network(tmp_path, monkeypatch):
    import datasets

    table = [{"text": "one", "url": "http://a/1"}, {"text": ""}, {"text": "two"}, {"text": "three"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: iter(table))
    metrics, data, dropped, _ = run(Hub, tmp_path / "a", data_set="x/y", limit=2)
    assert [body.decode() for body in data["body"]] == ["one", "two"]
    assert dropped["rule"][:] == ["empty"]
    assert metrics["documents"] == 2
    with pytest.raises(StageError, match="no column 'body'; it has text, url"):
        run(Hub, tmp_path / "b", data_set="x/y", text_column="body")

    def offline(*args, **kwargs):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(StageError, match="Check the network and the name.*pages=files"):
        run(Hub, tmp_path / "c", data_set="x/y")
    with pytest.raises(StageError, match="pages.data_set=OWNER/NAME"):
        run(Hub, tmp_path / "d")


def test_hub_streams_a_local_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lines = [
        '{"text": "one", "url": "http://a/1", "id": "first"}',
        '{"text": null, "url": "http://a/2"}',
        '{"text": "three \\u0000", "url": null}',
        '{"text": "%s"}' % ("x" * 200),
    ]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.jsonl").write_text("\n".join(lines))
    (tmp_path / "mine" / "test.jsonl").write_text('{"text": "held out"}')
    _, data, dropped, _ = run(Hub, tmp_path / "a", data_set=str(tmp_path / "mine"), max_bytes=100)
    assert [(row["id"], row["url"], row["body"]) for row in data] == [
        ("first", "http://a/1", b"one"),
        ("mine:3", "hub:mine:3", b"three "),
    ]
    assert [(row["id"], row["rule"]) for row in dropped] == [
        ("mine:2", "null_text"),
        ("mine:4", "too_large"),
    ]
    _, data, _, _ = run(Hub, tmp_path / "b", data_set=str(tmp_path / "mine"), split="test")
    assert data["body"][:] == [b"held out"]
    for split, broken in (("dev", ""), ("train", "no JSON")):
        (tmp_path / "mine" / "train.jsonl").write_text(broken or lines[0])
        with pytest.raises(
            StageError,
            match="the folder .*mine, split .* cannot be read as a data set.*"
            "pages=files reads them row by row",
        ):
            run(Hub, tmp_path / split, data_set=str(tmp_path / "mine"), split=split)


def test_progress_moves_within_a_file_and_ends_at_its_size(tmp_path, monkeypatch):
    from contextlib import contextmanager

    from llmstages.plugins.pages import files

    monkeypatch.setattr(files, "EVERY", 0)
    (tmp_path / "a.jsonl").write_text('{"text": "%s"}\n' % ("x" * 1000) * 1000)
    moves = []

    @contextmanager
    def progress(description, total):
        moves.append(total)
        yield lambda n=1, note="": moves.append((n, note))

    (tmp_path / "out").mkdir()
    Files().run(
        Files.Config(path=str(tmp_path / "a.jsonl")),
        Context("pages", tmp_path / "out", tmp_path, {}, progress=progress),
    )
    steps = [n for n, _ in moves[1:]]
    assert moves[0] == 1.0
    assert abs(sum(steps) - 1.013) < 1e-6
    assert sum(n > 0 for n in steps) >= 4
    assert "1000 documents, " in moves[-1][1]


@pytest.mark.parametrize(
    "stage, values",
    [
        (Files, {"max_bytes": 0}),
        (Files, {"text_block": -1}),
        (Files, {"limit": -1}),
        (Hub, {"max_bytes": 10**9}),
    ],
)
def test_values_out_of_range_are_refused(stage, values):
    if stage is Files:
        values = {"path": "x", **values}
    [key] = values.keys() - {"path"}
    with pytest.raises(StageError, match=f"pages.{key}"):
        build_config(stage.Config, values, "pages")
