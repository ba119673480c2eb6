"""Memory of the whole corpus stage, all its processes together, does not grow with the input."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time

import psutil
import pytest

STAGE = """
import sys
from pathlib import Path
from llmstages.plugins.corpus.web import DEFAULT, Web
from llmstages.plugins.pages.files import Files
from llmstages.core.stage import Artifact, Context

def context(name, **inputs):
    for folder in (out / name, out / f"{name}.work"):
        folder.mkdir(parents=True)
    return Context(name, out / name, out / f"{name}.work", inputs)

source, out = map(Path, sys.argv[1:3])
Files().run(Files.Config(path=str(source)), context("pages"))
config = Web.Config(filters={name: {"use": name} for name in DEFAULT}, workers=int(sys.argv[3]))
pages = Artifact("pages", "documents", out / "pages", "pages")
metrics = Web().run(config, context("corpus", documents=pages))
print(int(metrics["kept"]), int(metrics["dropped"]))
"""
WORDS = (
    "the of and to in is was for that on with as by at from it an be are this which or had not "
    "but have they one you were all her she there would"
).split()
STEMS = "ba con der fal gor in lam mer nor pa qui ras sol ter u ver".split()
ENDINGS = (
    "ble cent dom est ful gate hood ing jor ket line ment ness ory port ric sion tude ward y"
).split()
WORDS += [stem + ending for stem in STEMS for ending in ENDINGS]


def write(path, size):
    """Pages of other words and lengths each; every tenth repeats one before it with a change."""
    draw, done, number, before = random.Random(0), 0, 0, ""
    with open(path, "wb") as stream:
        while done < size:
            if number % 10 == 9:
                text = before + f" This page was changed {number} times."
            else:
                lines = (
                    " ".join(draw.choices(WORDS, k=draw.randint(6, 14))).capitalize() + "."
                    for _ in range(draw.randint(20, 300))
                )
                text = before = "\n".join(lines)
            done += stream.write(
                json.dumps({"text": text, "url": f"http://a.example/{number}"}).encode() + b"\n"
            )
            number += 1
    return number


def anonymous(process):
    """Bytes of a process and its children that belong to no file, so they cannot be given back.

    Shared copies count twice.
    """
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            memory = member.memory_info()
        except psutil.NoSuchProcess:
            continue
        total += memory.rss - memory.shared
    return total


def peak(command):
    running, most = psutil.Popen(command, stdout=subprocess.PIPE, text=True), 0
    while running.poll() is None:
        try:
            most = max(most, anonymous(running))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.05)
    assert running.wait() == 0
    return most / 1e6, running.stdout.read()


@pytest.mark.slow
def test_a_gigabyte_takes_the_memory_of_a_hundred_megabytes(tmp_path):
    peaks = []
    for size in (100_000_000, 1_000_000_000):
        source, out = tmp_path / f"{size}.jsonl", tmp_path / str(size)
        documents = write(source, size)
        most, output = peak([sys.executable, "-c", STAGE, source, out, "2"])
        kept, dropped = map(int, output.split())
        assert kept + dropped == documents and kept > 0.2 * documents, (kept, dropped, documents)
        assert dropped > 0.08 * documents, "the repeated ones"
        peaks.append(round(most))
        print(f"{size / 1e6:.0f} MB, {documents:,} documents: {peaks[-1]} MB")
    assert peaks[1] < 2000 and peaks[1] <= 1.5 * peaks[0] + 200, peaks
