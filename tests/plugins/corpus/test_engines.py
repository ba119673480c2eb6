"""engine=datasets and engine=datatrove: same documents, same reasons, in the same order."""

import random

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables

from .test_web import DEFAULT, MIXED, WORDS, documents, html, run, story

FILTERS = {
    **DEFAULT,
    "c4": {"use": "c4"},
    "fineweb_quality": {"use": "fineweb_quality"},
    "line_dedup": {"use": "line_dedup"},
}


def pages(count):
    """Good pages, near copies, short ones and repetitive ones."""
    rng = random.Random(0)
    made = []
    for i in range(count):
        kind = i % 7
        if kind < 4:
            text = story(i)
        elif kind == 4:
            text = [*story(i - kind), "One more."]
        elif kind == 5:
            text = rng.choices(WORDS, k=8)
        else:
            text = ["spam offer " * 40]
        if i % 3:
            made.append((f"http://a.example/{i}", html(*text), "text/html"))
        else:
            made.append((f"http://a.example/{i}", "\n".join(text).encode(), "text/plain"))
    return made + MIXED


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    source = documents(folder / "in", pages(250))
    return source, run(source, folder / "one", filters=FILTERS, workers=1)


def same(one, other):
    assert one[0] == other[0] and one[3] == other[3]
    assert one[1].to_list() == other[1].to_list() and list(one[2]) == list(other[2])


def test_two_processes_of_datasets_give_the_same(reference, tmp_path):
    same(reference[1], run(reference[0], tmp_path / "out", filters=FILTERS, workers=2))


@pytest.mark.parametrize("tasks", ["2", "5"])
def test_datatrove_gives_the_same(reference, tmp_path, tasks):
    pytest.importorskip("datatrove")
    found = run(
        reference[0],
        tmp_path / "out",
        filters=FILTERS,
        workers=2,
        engine="datatrove",
        engine_options={"tasks": tasks},
    )
    same(reference[1], found)
    assert len({row["rule"] for row in found[2]}) >= 5  # the comparison would be empty otherwise


def test_engine_options_are_checked(tmp_path):
    source = documents(tmp_path / "in", MIXED)
    with pytest.raises(StageError, match="engine=datasets takes no engine_options"):
        run(source, tmp_path / "a", engine_options={"tasks": "2"})
    with pytest.raises(StageError, match="executor=cloud is none of local, slurm, ray"):
        run(source, tmp_path / "b", engine="datatrove", engine_options={"executor": "cloud"})
    with pytest.raises(StageError, match="tasks=many is not a whole number"):
        run(source, tmp_path / "c", engine="datatrove", engine_options={"tasks": "many"})


def test_fates_do_not_depend_on_where_batches_end(reference, tmp_path, monkeypatch):
    from llmstages.plugins.corpus.engines import datasets

    monkeypatch.setattr(datasets, "BATCH", 7)
    same(reference[1], run(reference[0], tmp_path / "out", filters=FILTERS, workers=1))


def test_every_document_read_is_kept_or_dropped(reference):
    source, (metrics, data, dropped, _) = reference
    ids = tables.load(source.path / "data")["id"][:]
    assert sorted([*data["id"], *dropped["id"]]) == sorted(ids) and metrics["read"] == len(ids)
