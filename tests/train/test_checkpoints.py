"""A damaged checkpoint does not count: 300 cases of damage, interrupted saves, full disks."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from llmstages.core import atomic
from llmstages.train import checkpoints

NAMES = {
    "model.safetensors": 4000,
    "optimizer.pt": 8000,
    "scheduler.pt": 300,
    "trainer_state.json": 900,
    "rng_state.pth": 700,
    "rest-0.json": 60,
    "inner/shard_0.bin": 500,
}


def draft(work, update, seed=0):
    """What a Trainer would have written."""
    folder, rng = work / f"checkpoint-{update}", random.Random(f"{seed}-{update}")
    for name, size in NAMES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(rng.randbytes(size))
    return folder


def saved(work, *updates, last=5):
    """Checkpoints of these updates; returns their folder."""
    folder = work / "checkpoints"
    for update in updates:
        checkpoints.keep(draft(work, update), folder, {"update": update, "processes": 1}, last)
    return folder


def contents(home):
    return {path.name: path.read_bytes() for path in home.rglob("*") if path.is_file()}


def truncate(home, rng):
    file = rng.choice([home / name for name in (*NAMES, atomic.MANIFEST)])
    file.write_bytes(file.read_bytes()[: rng.randrange(file.stat().st_size)])


def flip(home, rng):
    file = rng.choice([home / name for name in (*NAMES, atomic.MANIFEST)])
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def missing(home, rng):
    (home / rng.choice([*NAMES, atomic.MANIFEST])).unlink()


def swapped(home, rng):
    first, second = (home / name for name in rng.sample(list(NAMES), 2))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def half(home, rng):
    """Renamed before it was finished."""
    for name in rng.sample([*NAMES, atomic.MANIFEST], rng.randrange(1, len(NAMES))):
        (home / name).unlink()


def other(home, rng):
    """The content of another update under this name."""
    shutil.rmtree(home)
    shutil.copytree(home.parent / "update-00000010", home)


def zeroed(home, rng):
    file = home / rng.choice([*NAMES, atomic.MANIFEST])
    file.write_bytes(bytes(file.stat().st_size))


DAMAGES = (truncate, flip, missing, swapped, half, other, zeroed)


def test_three_hundred_damaged_checkpoints_are_found_and_the_one_before_is_used(tmp_path):
    kinds: dict[str, int] = {}
    for number in range(301):
        rng, work = random.Random(number), tmp_path / str(number)
        folder = saved(work, 10, 20)
        home = folder / "update-00000020"
        damage = DAMAGES[number % len(DAMAGES)]
        before = contents(home)
        damage(home, rng)
        manifest_changed = before[atomic.MANIFEST] != contents(home).get(atomic.MANIFEST)
        if damage is flip and manifest_changed and atomic.damage(home) is None:
            continue  # a blank between two entries, for example: it means the same
        said: list[str] = []
        found = checkpoints.newest(folder, said.append)
        assert found, (number, damage.__name__)
        assert found.update == 10, (number, damage.__name__)
        assert len(said) == 1
        assert "damaged" in said[0]
        assert home.name in said[0]
        assert (folder / "damaged-update-00000020.0").is_dir()
        assert not home.exists()
        kinds[damage.__name__] = kinds.get(damage.__name__, 0) + 1
        shutil.rmtree(work)
    assert sum(kinds.values()) >= 295, kinds
    assert min(kinds.values()) >= 35, kinds


def test_with_only_damaged_checkpoints_there_is_none(tmp_path):
    folder = saved(tmp_path, 1, 2, 3)
    for home in folder.iterdir():
        missing(home, random.Random(1))
    said: list[str] = []
    assert checkpoints.newest(folder, said.append) is None
    assert len(said) == 3
    assert checkpoints.newest(tmp_path / "nothing", said.append) is None


def test_the_newest_stay_and_the_old_go(tmp_path):
    folder = saved(tmp_path, 1, 2, 10, 9, 11, last=2)
    assert sorted(path.name for path in folder.iterdir()) == ["update-00000010", "update-00000011"]
    assert not checkpoints.drafts(tmp_path)


def test_a_draft_never_counts_and_is_cleared(tmp_path):
    saved(tmp_path, 1)
    draft(tmp_path, 2)
    assert checkpoints.newest(tmp_path / "checkpoints", print).update == 1
    checkpoints.clear(tmp_path)
    assert not checkpoints.drafts(tmp_path)


def test_what_was_noted_comes_back(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints.keep(
        draft(tmp_path, 7), folder, {"update": 7, "processes": 2, "versions": {"torch": "1"}}
    )
    found = checkpoints.newest(folder, print)
    assert found.about == {"update": 7, "processes": 2, "versions": {"torch": "1"}}
    assert json.loads((found.path / atomic.MANIFEST).read_text())["files"].keys() == NAMES.keys()


@pytest.mark.parametrize("fails_at", range(1, 40))
def test_a_disk_that_fails_at_any_write_leaves_the_one_before(tmp_path, monkeypatch, fails_at):
    folder = saved(tmp_path, 1)
    calls = 0

    def counted(real):
        def call(*rest, **more):
            nonlocal calls
            calls += 1
            if calls == fails_at:
                raise OSError(28, "No space left on device")
            return real(*rest, **more)

        return call

    fresh = draft(tmp_path, 2)
    for name in ("fsync", "rename", "open"):
        monkeypatch.setattr(atomic.os, name, counted(getattr(atomic.os, name)))
    try:
        checkpoints.keep(fresh, folder, {"update": 2, "processes": 1}, 1)
    except OSError:
        assert calls == fails_at
    monkeypatch.undo()
    found = checkpoints.newest(folder, print)
    assert found
    assert found.update in (1, 2)
    assert atomic.damage(found.path) is None
