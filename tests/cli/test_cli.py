"""The command line: quick and light where nothing is run, and one clear message for every mistake."""

import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "transformers", "datasets", "trl", "accelerate")


@pytest.mark.parametrize(
    "words, limit", [(["--help"], 0.15), (["list"], 0.5), (["plan", "recipe=toy"], 0.5)]
)
def test_help_list_and_plan_are_quick_and_import_nothing_heavy(toys, words, limit):
    times = []
    for _ in range(4):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "llmstages", *words], capture_output=True, text=True
        )
        times.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    assert min(times) < limit * 2, (
        "twice the limit, since the machine that runs the tests is shared; accept/01-startup holds the limit"
    )
    code = f"import sys\nfrom llmstages.cli.main import main\ntry:\n    main({words})\nexcept SystemExit: pass\nprint([m for m in {HEAVY} if m in sys.modules])"
    assert subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    ).stdout.endswith("[]\n")


def test_plan_tells_what_a_swap_reruns(cli):
    cli("run", "recipe=toy")
    plan = cli("plan", "--json", "recipe=toy", "toymodel@tuned=distilled").json["steps"]
    assert {name for name, s in plan.items() if s["state"] != "reused"} == {"tuned", "toyreport"}
    assert plan["tuned"]["why"].startswith("toymodel.plain -> toymodel.distilled (nearest tuned-")
    assert plan["toyreport"]["why"].startswith("input steps changed (tuned is new)")


@pytest.mark.parametrize(
    "words, said",
    [
        (["plan", "recipe=toy", "toymodel.learning_rat=1"], "Did you mean 'learning_rate'"),
        (["plan", "recipe=toy", "--jsn"], "unknown option '--jsn'. Did you mean '--json'"),
        (["show", "tund", "recipe=toy"], "Did you mean 'tuned'"),
        (["list", "toymodl"], "Did you mean 'toymodel'"),
        (["report", "recipe=toy"], "there is no report"),
        (["run", "recipe=toy", "seed=x"], "seed: 'x' is not a whole number"),
        (["run", "-m", "recipe=toy", "toymodel=plain,plian"], "Did you mean 'plain'"),
        (["run", "-m", "recipe=toy", "toymodel.seed=range(1"], "cannot read the sweep"),
    ],
)
def test_mistakes_exit_2_with_one_message(cli, words, said):
    done = cli(*words)
    assert done.code == 2 and said in done.err and done.err.startswith("error: "), done.err


def test_show_tells_values_origins_inputs_and_lineage(cli):
    cli("run", "recipe=toy")
    shown = cli("show", "tuned", "recipe=toy").out
    assert "conf/toymodel/eager.yaml" in shown and "base    model?   toymodel" in shown
    assert "why it was new: never run" in shown and "toypages.count" in shown.split("lineage")[1]
    assert (
        "command line"
        in cli("show", "toycorpus", "recipe=toy", "toycorpus.filters.toy_short.most=4").out
    )


def test_list_names_variants_presets_and_packages(cli):
    assert "broken, distilled, plain" in cli("list").out
    shown = cli("list", "toymodel").out
    assert "toys 0.1" in shown and "BROKEN" in shown and "A larger step." in shown
    assert "Keep small numbers." in cli("list", "filters").out


def test_rm_and_redo_say_what_hangs_on_a_step(cli):
    cli("run", "recipe=toy")
    redone = cli("redo", "toycorpus", "recipe=toy").out
    assert "toycorpus done" in redone and "same as before, byte for byte" in redone
    removed = cli("rm", "toycorpus", "recipe=toy").out
    assert "made from it and kept: toymodel, tuned, toyreport" in removed
    assert "nothing to remove" in cli("rm", "toycorpus", "recipe=toy").out


def test_a_sweep_compares_its_runs(cli, toys):
    done = cli("run", "-m", "--json", "recipe=toy", "toymodel.learning_rate=1,2", "toymodel.seed=0")
    assert done.code == 0 and [r["overrides"] for r in done.json["runs"]] == [
        "toymodel.learning_rate=1",
        "toymodel.learning_rate=2",
    ]
    assert (
        "toymodel.rate" in done.err
        and done.json["runs"][1]["steps"]["toypages"]["state"] == "reused"
    )
    assert sorted(p.name for p in (toys / "runs").iterdir()) == [
        "toy+toymodel.learning_rate=1",
        "toy+toymodel.learning_rate=2",
    ]


def test_a_run_ends_with_claims_report_and_the_next_step(cli):
    done = cli("run", "recipe=toy").out
    assert (
        "MISSED  is large" in done
        and "report  runs/toy/toyreport/index.html" in done
        and done.endswith("next    llmstages chat\n")
    )
    assert cli("report", "recipe=toy").out.startswith("store/toyreport-")
