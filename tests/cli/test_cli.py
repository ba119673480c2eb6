"""The command line: quick and light where nothing is run, and one clear message per mistake."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmstages.cli.main import main

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
    # Twice the limit, since the machine that runs the tests is shared.
    assert min(times) < limit * 2
    script = (
        "import sys\n"
        "from llmstages.cli.main import main\n"
        "try:\n"
        f"    main({words})\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n")


def test_plan_tells_what_a_swap_reruns(cli):
    cli("run", "recipe=toy")
    plan = cli("plan", "--json", "recipe=toy", "toymodel@tuned=distilled").json["steps"]
    to_run = {name for name, step in plan.items() if step["state"] != "reused"}
    assert to_run == {"tuned", "toyreport"}
    assert plan["tuned"]["why"].startswith("toymodel.plain -> toymodel.distilled (nearest tuned-")
    assert plan["toyreport"]["why"].startswith("input steps changed (tuned is new)")


@pytest.mark.parametrize(
    "words, message",
    [
        (["plan", "recipe=toy", "toymodel.learning_rat=1"], "Did you mean 'learning_rate'"),
        (["plan", "recipe=toy", "--jsn"], "unknown option '--jsn'. Did you mean '--json'"),
        (["list", "--tokeniser"], "unknown option '--tokeniser'. Did you mean '--tokenizer'"),
        (["show", "tund", "recipe=toy"], "Did you mean 'tuned'"),
        (["list", "toymodl"], "Did you mean 'toymodel'"),
        (["report", "recipe=toy"], "there is no report"),
        (["run", "recipe=toy", "seed=x"], "seed: 'x' is not a whole number"),
        (["run", "recipe=toy", "launch.slurm.nodes=0"], "launch.slurm.nodes is 0, but it must be"),
        (["run", "-m", "recipe=toy", "toymodel=plain,plian"], "Did you mean 'plain'"),
        (["run", "-m", "recipe=toy", "toymodel.seed=range(1"], "cannot read the sweep"),
    ],
)
def test_mistakes_exit_2_with_one_message(cli, words, message):
    done = cli(*words)
    assert done.code == 2, done.err
    assert message in done.err
    assert done.err.startswith("error: ")


def test_show_tells_values_origins_inputs_and_lineage(cli):
    cli("run", "recipe=toy")
    shown = cli("show", "tuned", "recipe=toy").out
    assert "conf/toymodel/eager.yaml" in shown
    assert "base    model?   toymodel" in shown
    assert "why it was new: never run" in shown
    assert "toypages.count" in shown.split("lineage")[1]
    shown = cli("show", "toycorpus", "recipe=toy", "toycorpus.filters.toy_short.most=4").out
    assert "command line" in shown


def test_show_tells_allowed_values_and_help_texts(cli):
    rows = cli("show", "rl", "recipe=smoke").out.splitlines()
    learning_rate = next(row for row in rows if row.startswith("  learning_rate "))
    assert " > 0 " in learning_rate
    assert "learning rate" in learning_rate


def test_list_names_variants_presets_and_packages(cli):
    assert "broken, distilled, plain" in cli("list").out
    shown = cli("list", "toymodel").out
    assert "toys 0.1" in shown
    assert "BROKEN" in shown
    assert "A larger step." in shown
    assert "Keep small numbers." in cli("list", "filters").out


def test_list_of_a_group_tells_its_options(cli):
    rows = cli("list", "launch").out.splitlines()
    processes = next(row for row in rows if row.startswith("  processes "))
    assert processes.split()[1:4] == ["1", ">=", "1"]
    assert any("inline|single|torchrun|slurm" in row for row in rows)
    assert "toymodel=plain" in cli("list", "toymodel").out


def test_rm_and_redo_say_what_depends_on_a_step(cli):
    cli("run", "recipe=toy")
    redone = cli("redo", "toycorpus", "recipe=toy").out
    assert "toycorpus done" in redone
    assert "same as before, byte for byte" in redone
    removed = cli("rm", "toycorpus", "recipe=toy").out
    assert "made from it and kept: toymodel, tuned, toyreport" in removed
    assert "nothing to remove" in cli("rm", "toycorpus", "recipe=toy").out


def test_a_sweep_compares_its_runs(cli, toys):
    done = cli("run", "-m", "--json", "recipe=toy", "toymodel.learning_rate=1,2", "toymodel.seed=0")
    varied = ["toymodel.learning_rate=1", "toymodel.learning_rate=2"]
    assert done.code == 0
    assert [run["overrides"] for run in done.json["runs"]] == varied
    assert "toymodel.rate" in done.err
    assert done.json["runs"][1]["steps"]["toypages"]["state"] == "reused"
    folders = sorted(path.name for path in (toys / "runs").iterdir() if path.is_dir())
    assert folders == [f"toy+{overrides}" for overrides in varied]


def test_a_run_ends_with_claims_report_and_the_next_step(cli):
    out = cli("run", "recipe=toy").out
    assert "MISSED  is large" in out
    assert "report  runs/toy/toyreport/index.html" in out
    assert out.endswith("next    llmstages chat\n")
    assert cli("report", "recipe=toy").out == "runs/toy/toyreport/index.html\n"


def test_new_offers_every_kind_of_plugin(tmp_path, monkeypatch, capsys):
    from llmstages.cli.commands.new import KINDS

    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        assert main(["new", "plugin", f"my_{kind}", "--kind", kind]) == 0
        assert (tmp_path / f"llmstages-my-{kind}" / "pyproject.toml").is_file()
    with pytest.raises(SystemExit):
        main(["new", "plugin", "mine", "--kind", "nonsense"])
    error = capsys.readouterr().err
    assert all(repr(kind) in error for kind in KINDS), "a kind that cannot be chosen"


def test_report_is_that_of_the_last_run_also_where_it_reused_everything(cli):
    for rate in (1, 2, 1):
        cli("run", "recipe=toy", f"toymodel.learning_rate={rate}")
    shown = Path(cli("report", "recipe=toy").out.strip()).resolve().parent
    assert shown == Path("runs/toy/toyreport").resolve()
    cli("run", "recipe=toy", "name=other", "toymodel.learning_rate=3")
    assert Path(cli("report", "name=toy").out.strip()).resolve().parent == shown
    assert Path(cli("report").out.strip()).resolve().parent != shown


def test_report_says_that_its_page_is_older_than_a_step(cli):
    cli("run", "recipe=toy")
    cli("run", "recipe=toy", "only=toymodel", "toymodel.learning_rate=2")
    result = cli("report", "recipe=toy")
    assert "about an earlier toymodel" in result.out + result.err
