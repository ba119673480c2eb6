"""show, redo and rm speak of the last run; ``name=`` chooses another, ``recipe=`` composes."""

import pytest

from llmstages.pipeline import history


@pytest.fixture
def two_runs(cli):
    """A run called `quick`, then one called `slow` with another learning rate."""
    cli("run", "recipe=toy", "toymodel.learning_rate=1", "name=quick")
    cli("run", "recipe=toy", "toymodel.learning_rate=2", "only=tuned", "--name", "slow")
    return cli


def row(shown, key):
    return next(line for line in shown.out.splitlines() if line.startswith(f"  {key} "))


def test_show_tells_what_the_last_run_composed(two_runs):
    shown = two_runs("show", "toymodel")
    assert shown.out.startswith("of the last run, 'slow': llmstages run recipe=toy ")
    assert row(shown, "learning_rate").split()[1:4] == ["2", "command", "line"]
    assert "made " in shown.out
    shown = two_runs("show", "toymodel", "name=quick")
    assert shown.out.startswith("of the run 'quick': ")
    assert row(shown, "learning_rate").split()[1] == "1"


def test_overrides_come_on_top_and_a_recipe_composes_afresh(two_runs):
    shown = two_runs("show", "toymodel", "toymodel.learning_rate=3", "toymodel@tuned=distilled")
    assert row(shown, "learning_rate").split()[1] == "3"
    assert "learning_rate 2 -> 3" in shown.out
    shown = two_runs("show", "toymodel", "recipe=toy")
    assert "of the last run" not in shown.out
    assert row(shown, "learning_rate").split()[1] == "1e-6"


def test_rm_and_redo_name_what_they_remove_of_the_last_run(two_runs, toys):
    before = {folder.name for folder in (toys / "store").glob("toymodel-*")}
    redone = two_runs("redo", "toymodel")
    assert "removing store/toymodel-" in redone.out
    assert "same as before, byte for byte" in redone.out
    # Redoing a step is not a run: the last one stays the same.
    removed = two_runs("rm", "toymodel")
    assert "of the last run, 'slow'" in removed.out
    assert "made from it and kept: tuned" in removed.out
    left = {folder.name for folder in (toys / "store").glob("toymodel-*")}
    assert len(before) == 2
    assert len(left) == 1
    assert (toys / "runs/quick/toymodel").resolve().name in left


def test_a_run_that_is_not_there_is_refused_with_those_that_are(two_runs):
    shown = two_runs("show", "toymodel", "name=quik")
    assert shown.code == 2
    assert "Did you mean 'quick'? Runs: slow, quick" in shown.err


def test_a_sweep_can_be_asked_for_each_of_its_runs(cli):
    cli("run", "-m", "recipe=toy", "toymodel.seed=1,2")
    assert row(cli("show", "toymodel"), "seed").split()[1] == "2"
    shown = cli("show", "toymodel", "name=toy+toymodel.seed=1")
    assert row(shown, "seed").split()[1] == "1"


def test_plan_says_that_the_last_run_had_another_recipe(cli):
    assert "last run" not in cli("plan", "recipe=toy").out
    cli("run", "recipe=toy", "toymodel.seed=1")
    assert "llmstages plan recipe=toy toymodel.seed=1 seed=3" in cli("plan", "seed=3").out
    assert "last run" not in cli("plan", "recipe=toy").out


def test_a_damaged_note_of_a_run_is_passed_over(two_runs, toys):
    (toys / "runs/slow/run.json").write_text('{"overrides": [')
    assert "'quick'" in two_runs("show", "toymodel").out


def test_a_folder_that_cannot_be_written_to_is_named(cli, toys):
    (toys / "file").write_text("")
    done = cli("run", "recipe=toy", "runs=file")
    assert done.code == 2
    assert "cannot write to the folder of the run, file/toy" in done.err


def test_a_result_that_the_last_run_did_not_make_says_so(cli):
    cli("run", "recipe=toy", "name=mine")
    assert not any(step.outdated for step in history.last_run(["name=mine"]).steps.values())
    failed = cli("run", "recipe=toy", "name=mine", "toymodel.learning_rate=2", TOY="stage")
    assert failed.code
    steps = history.last_run(["name=mine"]).steps
    assert "toymodel is an earlier result, of " in steps["toymodel"].outdated
    assert "the last run 'mine' asked for another one" in steps["tuned"].outdated
    assert not steps["toycorpus"].outdated
    exported = cli("export", "toymodel", "--to", "out", "name=mine")
    assert "toymodel is an earlier result" in exported.out
