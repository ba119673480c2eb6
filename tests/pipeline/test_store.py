"""The store: whole or absent whatever happens, one writer a step, damage found, secrets kept out."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from llmstages import run, step
from llmstages.core.errors import StageError
from llmstages.pipeline.store import Store

CHILD = """
import sys, time
from llmstages.pipeline.store import Store
store, rounds, size = Store(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for number in range(rounds):
    with store.making(f"step-{number}") as folder:
        if store.damage(f"step-{number}") is None:
            continue
        for name in "abc":
            (folder / "out" / name).write_bytes(bytes([number % 256]) * size)
        (folder / "out" / "sub").mkdir()
        (folder / "out" / "sub" / "d").write_text(str(number))
        store.commit(f"step-{number}", {"identity": {"stage": "x", "config": {}, "inputs": {}}, "metrics": {}, "pid": __import__("os").getpid()})
"""


def child(store, rounds=200, size=200_000):
    return subprocess.Popen([sys.executable, "-c", CHILD, str(store), str(rounds), str(size)])


def test_killed_at_any_moment_a_step_is_whole_or_absent(tmp_path):
    seen = 0
    for pause in (0.12, 0.17, 0.23, 0.31, 0.4, 0.55):
        process = child(tmp_path / "store")
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        store = Store(tmp_path / "store")
        for key in store.keys():
            assert store.verify(key) == [], f"{key} is half a step"
        seen = max(seen, len(store.keys()))
    assert seen > 1
    process = child(tmp_path / "store", rounds=seen + 3)  # and the next run goes on from there
    assert process.wait() == 0
    store = Store(tmp_path / "store")
    assert len(store.keys()) >= seen + 3
    for key in store.keys():
        store.tidy(key)
    assert not list((tmp_path / "store" / ".tmp").iterdir())


def test_two_processes_make_each_step_once(tmp_path):
    processes = [child(tmp_path / "store", rounds=20, size=1000) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    store = Store(tmp_path / "store")
    assert len(store.keys()) == 20 and all(store.verify(key) == [] for key in store.keys())


def test_waiting_for_another_writer_is_said(tmp_path):
    code = (
        "import sys,time\nfrom llmstages.pipeline.store import Store\nwith Store(sys.argv[1]).making('step-1'):\n"
        "    print('held', flush=True)\n    time.sleep(0.5)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    said = []
    with Store(tmp_path / "store").making("step-1", said.append):
        assert process.poll() is not None or process.wait() == 0
    assert said == ["another run is making step-1; waiting for it"]


def finished(**more):
    run(
        [step("pages", "toypages.count"), step("more", "toypages.count", {"count": 9}, **more)],
        quiet=True,
    )
    store = Store("store")
    return store, store.keys()


def test_every_flipped_bit_is_found(toys):
    store, keys = finished()
    for key in keys:
        for name in store.record(key)["files"]:
            path = store.folder(key) / name
            whole = path.read_bytes()
            path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
            assert "SHA-256 differs" in store.verify(key)[0]
            path.write_bytes(whole)
        assert store.verify(key) == []


def test_a_damaged_step_is_made_again_and_says_why(toys, cli):
    cli("run", "recipe=toy")
    data = toys / "runs/toy/toypages/data/rows.json"
    digest = json.loads((toys / "runs/toy/toypages/record.json").read_text())["digest"]
    data.write_text("torn")
    plan = cli("plan", "recipe=toy", "--json").json["steps"]
    assert (
        plan["toypages"]["state"] == "new"
        and "rows.json has 4 bytes, recorded 9; made again" in plan["toypages"]["why"]
    )
    assert plan["toycorpus"]["state"] == "reused"
    assert cli("run", "recipe=toy").code == 0
    assert json.loads((toys / "runs/toy/toypages/record.json").read_text())["digest"] == digest
    data.write_text("[0, 1, 3]")  # same size: only reading it tells
    checked = cli("verify", "recipe=toy")
    assert checked.code == 1 and "SHA-256 differs" in checked.out and "1 damaged" in checked.out


def test_a_full_disk_is_one_message_and_leaves_nothing(toys, cli):
    done = cli("run", "--json", "recipe=toy", TOY="full")
    assert (
        done.code == 1
        and "is full" in done.json["error"]
        and "finished steps are kept" in done.json["error"]
    )
    assert done.json["steps"]["toymodel"]["state"] == "failed" and not list(
        (toys / "store/.tmp").iterdir()
    )
    assert cli("run", "recipe=toy").code == 0


def test_a_full_disk_while_committing(toys, monkeypatch):
    import llmstages.pipeline.store as module

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_flush", full)
    with pytest.raises(StageError, match="the disk of the store 'store' is full"):
        finished()
    assert Store("store").keys() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written_is_said(toys):
    (toys / "store").mkdir(mode=0o555)
    with pytest.raises(StageError, match="cannot write to the store"):
        finished()


def test_a_store_in_place_of_a_file_is_said(toys):
    (toys / "store").write_text("")
    with pytest.raises(StageError, match="cannot write to the store"):
        finished()


def test_secrets_reach_no_record(toys, cli):
    done = cli("run", "--name", "hf_abcdefgh123", "recipe=toy", HF_TOKEN="hf_abcdefgh123")
    assert done.code == 0 and "hf_abcdefgh123" not in done.out + done.err
    assert all(
        "hf_abcdefgh123" not in record.read_text()
        for record in (toys / "store").glob("*/record.json")
    )


def test_runs_link_to_the_store_by_relative_path(toys, cli):
    cli("run", "recipe=toy", "only=toypages", "--name", "mine")
    link = toys / "runs/mine/toypages"
    assert os.readlink(link).startswith("../../store/toypages-")
    cli("run", "recipe=toy", "only=toypages", "--name", "mine", "toypages.count=5")
    assert json.loads((link / "data/rows.json").read_text()) == [0, 1, 2, 3, 4]
