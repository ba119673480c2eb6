"""What scrolled away is in a log: of each step and of each run."""

import re

import pytest


@pytest.mark.parametrize("launch", ["inline", "single"])
def test_a_step_and_a_run_keep_what_they_print(cli, toys, launch):
    cli("run", "recipe=toy", f"launch={launch}")
    log = cli("show", "toymodel", "--log").out
    assert log.startswith("runs/toy/toymodel.log\n")
    assert "train 1/2 in 0.0 s loss 1.0" in log
    assert "toymodel done in" in log
    assert "3 pages" in cli("show", "toypages", "--log").out
    run_log = (toys / "runs/toy/run.log").read_text()
    assert f"llmstages run recipe=toy launch={launch}  (process " in run_log
    assert re.search("toyreport +toyreport.page +new: never run", run_log)
    assert "MISSED  is large" in run_log


def test_a_second_run_adds_to_the_log_and_reuse_writes_none(cli, toys):
    cli("run", "recipe=toy")
    before = (toys / "runs/toy/toymodel.log").read_text()
    cli("run", "recipe=toy")
    assert (toys / "runs/toy/toymodel.log").read_text() == before
    cli("redo", "toymodel")
    assert (toys / "runs/toy/toymodel.log").read_text().count("toymodel done in") == 2


@pytest.mark.parametrize("launch", ["inline", "single"])
def test_a_traceback_is_in_the_log_and_not_on_the_screen(cli, toys, launch):
    done = cli("run", "recipe=toy", f"launch={launch}", TOY="bug")
    assert "log     runs/toy/toymodel.log" in done.out
    log = (toys / "runs/toy/toymodel.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "KeyError: 'toy'" in log
    assert "step 'toymodel' failed: KeyError" in log


def test_warnings_of_libraries_are_in_the_log_alone(cli, toys):
    (toys / "loud.py").write_text(
        "import warnings\n"
        "def keep(number):\n"
        "    warnings.warn('this API is old', FutureWarning)\n"
        "    return True\n"
    )
    done = cli("run", "recipe=toy", "toycorpus.filters.loud=./loud.py:keep")
    assert "this API is old" not in done.out + done.err
    assert "FutureWarning: this API is old" in cli("show", "toycorpus", "--log").out


def test_secrets_reach_no_log(cli, toys):
    secret = "hf_very_secret_value"
    (toys / "say.py").write_text(
        "import os, warnings\n"
        "def keep(number):\n"
        "    warnings.warn(os.environ['HF_TOKEN'])\n"
        "    raise ValueError(os.environ['HF_TOKEN'])\n"
    )
    done = cli("run", "recipe=toy", "toycorpus.filters.a=./say.py:keep", HF_TOKEN=secret)
    assert done.code == 1
    log = (toys / "runs/toy/toycorpus.log").read_text()
    assert "ValueError: ***" in log
    assert secret not in log


def test_a_missing_log_says_where_there_are_some(cli):
    cli("run", "recipe=toy", "name=first")
    cli("run", "recipe=toy", "name=second")
    done = cli("show", "toymodel", "--log")
    assert done.code == 2
    assert "runs/second/ has no log of 'toymodel'" in done.err
    assert "it has one in runs/first/toymodel.log" in done.err
    assert "runs/first/toymodel.log" in cli("show", "toymodel", "name=first", "--log").out


def test_logs_are_no_part_of_a_result(cli, toys):
    cli("run", "recipe=toy")
    assert not list((toys / "store").rglob("*.log"))
