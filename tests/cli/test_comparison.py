"""The comparison of a sweep: which metrics, mean and spread over seeds, and the files."""

import csv
import json
import statistics

import pytest

from llmstages.cli.comparison import (
    ClaimOverRuns,
    Spread,
    SweptRun,
    claims_over_runs,
    over_seeds,
    save,
    shown_metrics,
)
from llmstages.pipeline.runner import Outcome, Result


def swept(varied, error="", **metrics):
    return SweptRun(varied, Outcome({"rl": Result("new", metrics=metrics)}, {}, error))


def test_metrics_that_runs_are_judged_by_come_before_counts():
    first = {
        "pretrain.rows": 1,
        "pretrain.padding": 0.1,
        "pretrain.validation_loss": 2.0,
        "pretrain.unigram_loss": 3.0,
        "pretrain.bits_per_byte": 1.5,
        "sft.examples": 10,
        "sft.seconds": 3,
        "evaluate.questions/all/rl/right": 0.5,
        "evaluate.same": 1,
    }
    second = {name: value + 1 for name, value in first.items()} | {"evaluate.same": 1}
    assert shown_metrics([first, second]) == [
        "pretrain.validation_loss",
        "pretrain.bits_per_byte",
        "sft.examples",
        "evaluate.questions/all/rl/right",
    ]


def test_no_more_columns_than_fit():
    first = {f"step{number}.loss": number for number in range(9)} | {"a.count": 1}
    second = {name: value + 1 for name, value in first.items()}
    assert shown_metrics([first, second]) == [f"step{number}.loss" for number in range(3, 9)]


def test_a_page_of_three_seeds(tmp_path):
    """Claims with their intervals, how often they were met, curves of all seeds in one chart."""
    from llmstages.cli import sweep_page

    runs = []
    for seed, value in enumerate((0.5, 0.7, 0.9)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        rows = [{"step": at, "loss": 3.0 - at * value} for at in range(5)]
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        claim = {"name": "<b>gain", "value": value, "target": ">= 0.6", "met": value >= 0.6}
        claim["interval"] = [value - 0.1, value + 0.1]
        result = Result("new", path=str(folder), metrics={"loss": value})
        outcome = Outcome({"rl": result}, {})
        runs.append(SweptRun([f"seed={seed}"], outcome, [claim]))
    (row,) = sweep_page.claim_rows(runs)
    assert (row["met"], row["n"]) == (2, 3)
    assert row["summary"]["mean"] == "0.7" and row["summary"]["deviation"] == "0.2"
    # Student's t with two degrees of freedom: 0.7 +- 4.303 * 0.2 / sqrt(3)
    assert row["summary"]["interval"] == "0.2031 to 1.197"
    sweep_page.write(runs, tmp_path / "page.html", "three seeds")
    text = (tmp_path / "page.html").read_text()
    assert "2 of 3" in text and "0.4 to 0.6" in text
    assert text.count("<polyline") == 3
    assert "<b>gain" not in text and "&lt;b&gt;gain" in text
    assert "<script" not in text and "http" not in text.replace("http-equiv", "")


def test_a_page_keeps_variants_apart_and_survives_what_diverged(tmp_path):
    from llmstages.cli import sweep_page

    runs = []
    for variant, values in (("grpo", (1.0, 1.0)), ("ppo", (5.0, float("nan")))):
        for seed, value in enumerate(values):
            claim = {"name": "gain", "value": None, "target": ">= 1", "met": False}
            metrics = {"loss": value}
            outcome = Outcome({"rl": Result("new", metrics=metrics)}, {})
            runs.append(SweptRun([f"rl={variant}", f"seed={seed}"], outcome, [claim]))
    rows = sweep_page.metric_rows(runs)
    assert [(row["group"], row["summary"]["mean"]) for row in rows] == [
        ("rl=grpo", "1"),
        ("rl=ppo", "5"),
    ]
    assert [row["interval"] for row in sweep_page.claim_rows(runs)] == ["not measured"] * 2
    sweep_page.write(runs, tmp_path / "page.html", "two variants")
    assert over_seeds(runs)["rl=grpo"]["rl.loss"].mean == 1.0


def test_runs_that_differ_in_seeds_alone_are_summed_up():
    runs = [
        swept(["rl=grpo", "rl.seed=0"], loss=1.0, steps=3),
        swept(["rl=grpo", "rl.seed=1"], loss=2.0, steps=3),
        swept(["rl=grpo", "rl.seed=2"], loss=4.0, steps=3),
        swept(["rl=dpo", "rl.seed=0"], loss=9.0),
        swept(["rl=dpo", "rl.seed=1"], "it failed", loss=1.0),
    ]
    spreads = over_seeds(runs)
    assert list(spreads) == ["rl=grpo"]
    loss = spreads["rl=grpo"]["rl.loss"]
    assert loss.n == 3
    assert loss.mean == pytest.approx(7 / 3)
    assert loss.deviation == pytest.approx(statistics.stdev([1, 2, 4]))
    assert str(Spread(2.345678, 0.012345, 3)) == "2.346 ± 0.012"


def test_without_seeds_there_is_no_mean():
    assert over_seeds([swept(["rl=grpo"], loss=1.0), swept(["rl=dpo"], loss=2.0)]) == {}
    assert list(over_seeds([swept(["seed=0"], loss=1.0), swept(["seed=1"], loss=2.0)])) == ["all"]


def test_claims_are_counted_over_runs():
    def claim(value, met):
        return {"name": "it learns", "value": value, "met": met, "target": ">= 0.5"}

    outcome = Outcome({}, {}, "")
    alone = {**claim(1.0, True), "name": "in one run alone"}
    runs = [
        SweptRun(["seed=0"], outcome, [claim(0.7, True), alone]),
        SweptRun(["seed=1"], outcome, [claim(0.4, False)]),
        SweptRun(["seed=2"], outcome, [claim(None, False)]),
    ]
    assert claims_over_runs(runs) == {"it learns": ClaimOverRuns(1, 2, 0.4, 0.7, ">= 0.5")}


def test_the_files_hold_every_metric_also_of_runs_that_failed(tmp_path):
    runs = [
        swept(["seed=0"], loss=1.0, padding=0.5, note="ä, b"),
        swept(["seed=1"], loss=3.0, padding=0.5),
        swept(["seed=2"], "it failed"),
    ]
    table, tree = save(runs, tmp_path / "runs", "toy")
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rl.loss"] for row in rows] == ["1.0", "3.0", ""]
    assert [row["state"] for row in rows] == ["ok", "ok", "failed"]
    assert rows[0]["rl.note"] == "ä, b"
    facts = json.loads(tree.read_text())
    assert facts["over_seeds"]["all"]["rl.loss"] == {"mean": 2.0, "deviation": 2**0.5, "n": 2}


def test_a_sweep_over_seeds_prints_means_and_says_where_all_is(cli, toys):
    done = cli(
        "run", "-m", "--json", "recipe=toy", "toymodel.learning_rate=1,2", "toymodel.seed=0,1"
    )
    assert "mean ± standard deviation over seeds" in done.err
    rate = done.json["over_seeds"]["toymodel.learning_rate=2"]["toymodel.rate"]
    assert rate == {"mean": 2.0, "deviation": 0.0, "n": 2}
    assert all((toys / file).is_file() for file in done.json["files"])
    # A comparison is not taken for a run.
    assert "toymodel.seed=1" in cli("show", "toymodel").out.splitlines()[0]
