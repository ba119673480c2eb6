"""Derived data: made once whoever asks, used whole or made again, apart from the store."""

import subprocess
import sys

import pytest

from llmstages import run, step
from llmstages.core.atomic import MANIFEST, damage
from llmstages.core.cache import cached
from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.pipeline.store import Store


def maker(text="data"):
    calls = []

    def make(folder):
        calls.append(folder)
        (folder / "inner").mkdir()
        (folder / "inner" / "x.bin").write_text(text)
        (folder / "y.bin").write_text("more")

    return make, calls


def test_it_is_made_once_and_found_again(tmp_path):
    make, calls = maker()
    first, again = cached(tmp_path / "c", "k", make), cached(tmp_path / "c", "k", make)
    assert first == again == tmp_path / "c" / "k" and len(calls) == 1 and damage(first) is None
    assert cached(tmp_path / "c", "other", make) != first and len(calls) == 2
    assert not list((tmp_path / "c").glob("*.part"))


@pytest.mark.parametrize(
    "harm, said",
    [
        (
            lambda home: (home / "inner/x.bin").write_text("dat"),
            "k/inner/x.bin has 3 bytes, recorded 4",
        ),
        (
            lambda home: (home / "inner/x.bin").write_text("dbta"),
            "k/inner/x.bin is not what was written (its SHA-256 differs)",
        ),
        (lambda home: (home / "y.bin").unlink(), "k/y.bin is gone"),
        (lambda home: (home / MANIFEST).unlink(), f"k/{MANIFEST} is gone"),
        (lambda home: (home / MANIFEST).write_text('{"files"'), f"k/{MANIFEST} cannot be read"),
    ],
)
def test_damage_is_named_and_mended(tmp_path, harm, said):
    make, calls = maker()
    home, told = cached(tmp_path, "k", make), []
    harm(home)
    assert cached(tmp_path, "k", make, told.append) == home
    assert told == [f"cache: {said}; made again"] and len(calls) == 2 and damage(home) is None


def test_what_a_killed_process_began_is_cleared_and_never_used(tmp_path):
    left = tmp_path / ".k.1.part"
    left.mkdir()
    (left / "x.bin").write_text("half")
    make, calls = maker()
    cached(tmp_path, "k", make)
    assert len(calls) == 1 and not left.exists()


def test_a_maker_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "x").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        cached(tmp_path, "k", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".k.lock"]
    make, calls = maker()
    assert damage(cached(tmp_path, "k", make)) is None and calls


def test_a_cache_deleted_underneath_is_said(tmp_path):
    import shutil

    def make(folder):
        shutil.rmtree(tmp_path / "c")
        (folder / "x").write_text("")

    with pytest.raises(StageError, match="was removed while k was written"):
        cached(tmp_path / "c", "k", make)


def test_of_processes_that_come_at_once_one_makes_and_the_others_wait(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom llmstages.core.cache import cached\ndef"
        " make(folder):\n    print('made')\n    time.sleep(1)\n    (folder /"
        f" 'x').write_text('whole')\nprint((cached(Path({str(tmp_path)!r}), 'k', make, print) /"
        " 'x').read_text())"
    )
    several = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [one.communicate(timeout=60)[0].splitlines() for one in several]
    assert (
        all(lines[-1] == "whole" for lines in said) and sum("made" in lines for lines in said) == 1
    )
    assert any(
        "another process is making k" in line and "; waiting for it" in line
        for lines in said
        for line in lines
    )


def test_a_cache_deleted_while_waiting_is_made_by_the_one_who_waits(tmp_path):
    import fcntl
    import shutil
    import threading

    home = tmp_path / "c"
    home.mkdir()
    lock, told = open(home / ".k.lock", "w"), []
    fcntl.flock(lock, fcntl.LOCK_EX)
    make, calls = maker()
    waiting, errors = threading.Event(), []

    def work():
        try:
            cached(home, "k", make, lambda line: (told.append(line), waiting.set()))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert waiting.wait(10)
    shutil.rmtree(home)
    home.mkdir()
    lock.close()
    thread.join(10)
    assert not errors and len(calls) == 1 and damage(home / "k") is None


def test_without_a_store_it_lies_in_the_scratch_folder(tmp_path):
    make, _ = maker()
    assert (
        Context("s", tmp_path / "out", tmp_path / "work", {}).cached("k", make)
        == tmp_path / "work" / "cache" / "k"
    )


STAGE = '''
from dataclasses import dataclass
from llmstages.core.stage import option

class Keeps:
    """Writes what it has derived, and whether it had to."""

    @dataclass(frozen=True)
    class Config:
        """Nothing much."""

        text: str = option("a", "anything")

    inputs = {}
    output = "documents"
    version = "1"

    def run(self, config, ctx):
        made = []
        def make(folder):
            made.append((folder / "x").write_text("derived"))

        folder = ctx.cached("shared", make)
        (ctx.out / "data").mkdir()
        (ctx.out / "data" / "x").write_text((folder / "x").read_text() + config.text)
        return {"made": len(made)}
'''


@pytest.mark.parametrize("how", ["inline", "single"])
def test_steps_of_a_store_share_it_and_the_store_does_not_count_it(
    tmp_path, monkeypatch, install, how
):
    import os

    from llmstages.launch.config import Launch

    install("keeping", "[llmstages.stages]\npages.keeps = keeping:Keeps\n", STAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site-keeping"))
    monkeypatch.chdir(tmp_path)
    store = Store("store")
    for text in "ab":
        run(
            [step("pages", "pages.keeps", {"text": text})],
            "store",
            launch=Launch(backend=how),
            quiet=True,
        )
    assert sorted(store.record(key)["metrics"]["made"] for key in store.keys()) == [0, 1]
    assert all(not store.verify(key) for key in store.keys()) and os.listdir("store/.cache/shared")
    assert not any("cache" in name for key in store.keys() for name in store.record(key)["files"])
