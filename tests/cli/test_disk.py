"""`ls` says what lies in the store; `gc` removes what nothing uses, and only that."""

import subprocess
import sys

import pytest

from llmstages.core.digest import sha256

HOLDER = """
import sys, time
from llmstages.pipeline.store import Store
with Store("store").making(sys.argv[1]) as folder:
    (folder / "work" / "half").write_text("0" * 1000)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def used(cli, toys):
    """Two runs of which the second replaced the links of the first, and a step that failed."""
    cli("run", "recipe=toy", "toymodel.learning_rate=1")
    cli("run", "recipe=toy", "toymodel.learning_rate=2")
    cli("run", "recipe=toy", "toymodel.learning_rate=3", "name=bad", TOY="bug")
    return cli


def keys(toys, pattern="*"):
    return sorted(path.name for path in (toys / "store").glob(pattern))


def test_ls_names_sizes_and_runs(used, toys):
    listed = used("ls", "--json")
    models = [step for step in listed.json["steps"] if step["step"] == "toymodel"]
    assert [(model["runs"], model["needed"]) for model in models] == [([], False), (["toy"], True)]
    pages = next(step for step in listed.json["steps"] if step["step"] == "toypages")
    assert pages["runs"] == ["bad", "toy"]
    assert pages["kind"] == "documents"
    assert pages["size"] > 0
    [failed] = listed.json["leftovers"]
    assert failed["key"].startswith("toymodel-")
    assert not failed["in_use"]
    assert "7 results, " in listed.err or "8 results, " in listed.err
    assert "llmstages gc" in listed.err


def test_gc_shows_first_and_removes_when_told(used, toys):
    before = keys(toys)
    shown = used("gc")
    assert "in no run" in shown.out
    assert "failed" in shown.out
    assert "nothing was removed; `llmstages gc --yes`" in shown.out
    assert keys(toys) == before
    removed = used("gc", "--yes")
    assert "removed " in removed.out
    assert len(keys(toys, "toymodel-*")) == 1
    assert keys(toys, ".tmp/*") == []
    done = used("run", "--json", "recipe=toy", "toymodel.learning_rate=2")
    assert {step["state"] for step in done.json["steps"].values()} == {"reused"}
    assert "nothing to remove" in used("gc").out


def test_what_a_result_in_use_was_made_from_stays(cli, toys):
    cli("run", "recipe=toy", "name=whole")
    # The links of the run now point to other pages, of which its model was not made.
    cli("run", "recipe=toy", "name=whole", "only=toycorpus", "toypages.count=5")
    assert len(keys(toys, "toypages-*")) == 2
    assert "nothing to remove" in cli("gc", "--yes").out
    assert "one that is in a run was made from it" in cli("ls").out


def test_a_step_that_runs_now_is_never_touched(used, toys):
    key = keys(toys, ".tmp/*")[0].split("/")[-1]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, key],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    assert "runs now" in used("ls").out
    assert "runs now" in used("gc", "--yes").out
    assert (toys / "store/.tmp" / key / "work/half").exists()
    process.communicate("")


def test_checkpoints_stay_unless_asked_for(cli, toys):
    cli("run", "recipe=toy", TOY="bug")
    [key] = keys(toys, ".tmp/*")
    (toys / "store/.tmp" / key / "work/checkpoints/update-00000001").mkdir(parents=True)
    kept = cli("gc", "--yes").out
    assert "continues at the next run" in kept
    assert keys(toys, ".tmp/*")
    cli("gc", "--yes", "--checkpoints")
    assert not keys(toys, ".tmp/*")


def test_runs_elsewhere_count_too(cli, toys, tmp_path):
    cli("run", "recipe=toy", f"runs={tmp_path}/elsewhere")
    assert "nothing to remove" in cli("gc").out


def test_verify_reads_inputs_again_where_their_size_and_dates_lie(cli, toys):
    words = toys / "words.txt"
    words.write_text("aaaa")
    cli("run", "recipe=toy", f"toycorpus.files={words}")
    cli("plan", "recipe=toy", f"toycorpus.files={words}")  # the first plan had no store yet
    assert "1 input files read, 0 exchanged" in cli("verify", "--inputs").out
    # As if the file had been exchanged in a way that nothing shows.
    file = toys / "store/.digests.json"
    file.write_text(file.read_text().replace(sha256("aaaa"), sha256("bbbb")))
    shown = cli("verify", "--inputs")
    assert shown.code == 1
    assert "words.txt has another content" in shown.out
    assert "0 input files read" in cli("verify", "--inputs").out
