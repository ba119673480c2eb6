"""Freed memory stays in the process inside of kept_memory(), and goes back after it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llmstages.core import malloc

FAULTS = """
import resource
from contextlib import nullcontext
import torch
from llmstages.core.malloc import kept_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def work():
    start = faults()
    for _ in range(20):
        torch.ones(25_000_000)
    return faults() - start

before = resident()
plain = work()
with kept_memory():
    work()
    with kept_memory():
        kept = work()
print(plain, kept, resident() - before)
"""


def run(**environment: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=True,
    )
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(malloc._glibc() is None, reason="not the malloc of glibc")
def test_pages_of_large_tensors_are_kept_and_given_back():
    plain, kept, left = run()
    assert kept < plain / 10
    assert left < 60_000_000  # one tensor has 100 MB


@pytest.mark.skipif(malloc._glibc() is None, reason="not the malloc of glibc")
def test_own_settings_of_malloc_stay_as_they_are():
    plain, kept, _ = run(MALLOC_MMAP_MAX_="65536")
    assert kept > plain / 2


@pytest.mark.parametrize("name", malloc.OWN_SETTINGS)
def test_who_has_tuned_malloc_is_left_alone(name, monkeypatch):
    monkeypatch.setenv(name, "1")
    assert malloc._glibc() is None


SURPLUS = """
import resource, sys
import torch
from llmstages.core import malloc

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

malloc.LARGEST_SHARE = float(sys.argv[1])
before = resident()
with malloc.kept_memory():
    for _ in range(2):
        tensors = [torch.ones(1_000_000 + 10_000 * number) for number in range(40)]
        del tensors
    malloc.check_kept()
    print(resident() - before)
malloc.check_kept()  # outside of it there is nothing to do
"""


@pytest.mark.skipif(malloc._glibc() is None, reason="not the malloc of glibc")
@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 60e6), (0.9, 120e6, 1e9)])
def test_a_surplus_of_kept_blocks_goes_back(share, least, most):
    done = subprocess.run(
        [sys.executable, "-c", SURPLUS, str(share)], capture_output=True, text=True, check=True
    )
    assert least <= int(done.stdout) <= most


MEASURED = """
import sys
import torch
from llmstages.core import malloc

malloc.ROOM = float(sys.argv[1])
with malloc.kept_memory(measured=True):
    states = [malloc._is_kept]
    for _ in range(2):
        malloc.check_kept()
        states.append(malloc._is_kept)
print(*states, malloc._is_kept)
"""


@pytest.mark.skipif(malloc._glibc() is None, reason="not the malloc of glibc")
@pytest.mark.parametrize(
    ("room", "states"), [(2.5, "False True True False"), (1e9, "False False False False")]
)
def test_training_keeps_blocks_only_where_there_is_room(room, states):
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(room)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == states.split()
