"""corpus.mode=annotate: nothing is dropped, all values of all rules are written, limits swept."""

import json

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables

from .test_web import DEFAULT, MIXED, documents, run


def test_annotate_keeps_what_drop_drops_and_says_why(tmp_path):
    source = documents(tmp_path / "in", MIXED)
    _, _, dropped, _ = run(source, tmp_path / "drop", filters=DEFAULT)
    metrics, data, hard, funnel = run(source, tmp_path / "note", filters=DEFAULT, mode="annotate")
    # Without a text there is no document.
    assert {row["rule"] for row in hard} == {"extract.empty", "extract.encoding"}
    assert metrics["kept"] == 8 and sum(row["dropped"] for row in funnel) == 2
    verdicts = {row["id"]: row["verdict"] for row in data if row["verdict"]}
    assert verdicts == {
        row["id"]: row["rule"] for row in dropped if not row["rule"].startswith("extract")
    }
    assert sum(row.get("would_drop", 0) for row in funnel) == len(verdicts)


def test_every_rule_has_a_value_for_every_document(tmp_path):
    source = documents(tmp_path / "in", MIXED)
    run(
        source,
        tmp_path / "out",
        filters={"gopher_quality": {"use": "gopher_quality"}},
        mode="annotate",
    )
    notes = tables.load(tmp_path / "out" / "annotations")
    short = {row["id"]: row["value"] for row in notes if row["rule"] == "short_doc"}
    assert len(short) == 8 and short["p:4"] < 50 and short["p:0"] > 50
    # Also the rules after the broken one.
    assert len({row["rule"] for row in notes if row["id"] == "p:4"}) == 10
    sweep = json.loads((tmp_path / "out" / "sweep.json").read_text())
    rule = next(row for row in sweep if row["rule"] == "short_doc")
    assert rule["least"] == 50 and rule["most"] is None and len(rule["quantiles"]) == 101
    assert rule["quantiles"][0] == min(short.values()) and rule["quantiles"][-1] == max(
        short.values()
    )


def test_a_limit_taken_from_the_sweep_drops_that_share(tmp_path):
    source = documents(tmp_path / "in", MIXED)
    run(
        source,
        tmp_path / "note",
        filters={"gopher_quality": {"use": "gopher_quality"}},
        mode="annotate",
    )
    values = sorted(
        row["value"]
        for row in tables.load(tmp_path / "note" / "annotations")
        if row["rule"] == "short_doc"
    )
    limit = int(values[len(values) // 2])
    metrics, *_ = run(
        source,
        tmp_path / "drop",
        filters={
            "gopher_quality": {
                "use": "gopher_quality",
                "min_words": limit,
                "min_alphabetic": 0.0,
                "min_stop_words": 0,
            }
        },
    )
    assert metrics["dropped"] - 2 == sum(value < limit for value in values)


def test_a_group_that_edits_cannot_be_annotated(tmp_path):
    with pytest.raises(StageError, match="~corpus.filters.line_dedup"):
        run(
            documents(tmp_path / "in", MIXED),
            tmp_path / "out",
            filters={"line_dedup": {"use": "line_dedup"}},
            mode="annotate",
        )
