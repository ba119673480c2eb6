"""The store: whole or absent whatever happens, one writer per step, damage found, no secrets."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from llmstages import run, step
from llmstages.core import locks
from llmstages.core.errors import StageError
from llmstages.pipeline import store as store_module
from llmstages.pipeline.store import Store

WRITER = """
import os, sys
from llmstages.pipeline.store import Store
store, rounds, size = Store(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for number in range(rounds):
    key = f"step-{number}"
    with store.making(key) as folder:
        if store.damage(key) is None:
            continue
        for name in "abc":
            (folder / "out" / name).write_bytes(bytes([number % 256]) * size)
        (folder / "out" / "sub").mkdir()
        (folder / "out" / "sub" / "d").write_text(str(number))
        identity = {"stage": "x", "config": {}, "inputs": {}}
        store.commit(key, {"identity": identity, "metrics": {}, "pid": os.getpid()})
"""
HOLDER = """
import sys, time
from llmstages.pipeline.store import Store
with Store(sys.argv[1]).making("step-1"):
    print("held", flush=True)
    time.sleep(0.5)
"""


def start_writer(store, rounds=200, size=200_000):
    """A process that makes steps in the store."""
    return subprocess.Popen([sys.executable, "-c", WRITER, str(store), str(rounds), str(size)])


def test_killed_at_any_moment_a_step_is_whole_or_absent(tmp_path):
    most = 0
    for pause in (0.12, 0.17, 0.23, 0.31, 0.4, 0.55):
        process = start_writer(tmp_path / "store")
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        store = Store(tmp_path / "store")
        keys = store.keys()
        for key in keys:
            assert store.verify(key) == [], f"{key} is half a step"
        most = max(most, len(keys))
    assert most > 1
    # The next run continues from there.
    process = start_writer(tmp_path / "store", rounds=most + 3)
    assert process.wait() == 0
    store = Store(tmp_path / "store")
    keys = store.keys()
    assert len(keys) >= most + 3
    for key in keys:
        store.tidy(key)
    assert not list((tmp_path / "store" / ".tmp").iterdir())


def test_several_processes_make_each_step_once(tmp_path):
    processes = [start_writer(tmp_path / "store", rounds=20, size=1000) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    store = Store(tmp_path / "store")
    keys = store.keys()
    assert len(keys) == 20
    assert all(store.verify(key) == [] for key in keys)


def test_waiting_for_another_writer_is_said(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "store")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    lines = []
    with Store(tmp_path / "store").making("step-1", lines.append):
        # The lock is free once the other process has left its block; it may still be exiting.
        assert process.wait() == 0
    [line] = lines
    holder = rf"\(process {process.pid} on \S+, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\)"
    assert re.fullmatch(f"another run is making step-1 {holder}; waiting for it", line)


def test_who_waits_long_is_told_again_and_for_how_long(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "EVERY", 0.1)
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "store")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    lines = []
    with Store(tmp_path / "store").making("step-1", lines.append):
        assert process.wait() == 0
    assert len(lines) > 2
    assert all(f"(process {process.pid} on " in line for line in lines)
    assert lines[-1].endswith(" s now")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_of_an_artifact_have_the_permissions_of_the_umask(tmp_path, umask):
    """Also those that a library wrote through a temporary file of its owner."""
    store = Store(tmp_path / "store")
    before = os.umask(umask)
    try:
        with store.making("step-1") as folder:
            handle, name = tempfile.mkstemp(dir=folder / "out")
            os.write(handle, b"weights")
            os.close(handle)
            Path(name).rename(folder / "out" / "model.safetensors")
            Path(tempfile.mkdtemp(dir=folder / "out")).rename(folder / "out" / "sub")
            (folder / "out" / "sub" / "rows").write_text("1")
            (folder / "out" / "script").write_text("#!/bin/sh")
            (folder / "out" / "script").chmod(0o700)
            store.commit("step-1", {"identity": {}, "metrics": {}})
    finally:
        os.umask(before)
    home = store.folder("step-1")
    modes = {
        path.relative_to(home).as_posix(): path.stat().st_mode & 0o777 for path in home.rglob("*")
    }
    plain = 0o666 & ~umask
    assert modes == {
        "model.safetensors": plain,
        "record.json": plain,
        "script": plain | 0o100,
        "sub": 0o777 & ~umask,
        "sub/rows": plain,
    }


def finish_two_steps():
    """The store and its keys after a run."""
    first = step("pages", "toypages.count")
    second = step("more", "toypages.count", {"count": 9})
    run([first, second], quiet=True)
    store = Store("store")
    return store, store.keys()


def test_every_flipped_bit_is_found(toys):
    store, keys = finish_two_steps()
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
    record = toys / "runs/toy/toypages/record.json"
    digest = json.loads(record.read_text())["digest"]
    data.write_text("torn")
    plan = cli("plan", "recipe=toy", "--json").json["steps"]
    assert plan["toypages"]["state"] == "new"
    assert "rows.json has 4 bytes, recorded 9; made again" in plan["toypages"]["why"]
    assert plan["toycorpus"]["state"] == "reused"
    assert cli("run", "recipe=toy").code == 0
    assert json.loads(record.read_text())["digest"] == digest
    data.write_text("[0, 1, 3]")  # of the same size: only reading it shows the damage
    checked = cli("verify", "recipe=toy")
    assert checked.code == 1
    assert "SHA-256 differs" in checked.out
    assert "1 damaged" in checked.out


def test_a_full_disk_is_one_message_and_leaves_nothing(toys, cli):
    done = cli("run", "--json", "recipe=toy", TOY="full")
    assert done.code == 1
    assert "is full" in done.json["error"]
    assert "finished steps are kept" in done.json["error"]
    assert done.json["steps"]["toymodel"]["state"] == "failed"
    assert not list((toys / "store/.tmp").iterdir())
    assert cli("run", "recipe=toy").code == 0


def test_a_full_disk_while_committing(toys, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "flush", full)
    with pytest.raises(StageError, match="the disk of the store 'store' is full"):
        finish_two_steps()
    assert Store("store").keys() == []


def test_a_full_disk_keeps_the_checkpoints(tmp_path):
    store = Store(tmp_path)
    key = "step-1"
    work = store.temporary(key) / "work"
    with pytest.raises(StageError, match="is full"), store.making(key) as folder:
        (work / "checkpoints" / "update-00000001").mkdir(parents=True)
        (work / "draft").mkdir()
        (work / "note").write_text("")
        (folder / "out" / "model").write_text("half")
        raise OSError(28, "No space left on device")
    assert store.has_work(key)
    assert [path.name for path in work.iterdir()] == ["checkpoints"]
    assert not (store.temporary(key) / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written_is_said(toys):
    (toys / "store").mkdir(mode=0o555)
    with pytest.raises(StageError, match="cannot write to the store"):
        finish_two_steps()


def test_a_file_in_place_of_a_store_is_said(toys):
    (toys / "store").write_text("")
    with pytest.raises(StageError, match="cannot write to the store"):
        finish_two_steps()


def test_secrets_reach_no_record(toys, cli):
    secret = "hf_abcdefgh123"
    done = cli("run", "--name", secret, "recipe=toy", HF_TOKEN=secret)
    assert done.code == 0
    assert secret not in done.out + done.err
    for record in (toys / "store").glob("*/record.json"):
        assert secret not in record.read_text()


def test_runs_link_to_the_store_by_relative_path(toys, cli):
    cli("run", "recipe=toy", "only=toypages", "--name", "mine")
    link = toys / "runs/mine/toypages"
    assert str(link.readlink()).startswith("../../store/toypages-")
    cli("run", "recipe=toy", "only=toypages", "--name", "mine", "toypages.count=5")
    assert json.loads((link / "data/rows.json").read_text()) == [0, 1, 2, 3, 4]
