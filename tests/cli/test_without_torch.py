"""Planning and listing need none of the large libraries: they may be absent."""

from __future__ import annotations

import subprocess
import sys

import pytest

ABSENT = ("torch", "transformers", "trl", "datasets", "accelerate", "peft", "trafilatura", "numpy")
CODE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from llmstages.cli.main import main
sys.exit(main({words!r}))
"""


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--help"], "usage: llmstages"),
        (["export", "--help"], "--dtype"),
        (["push", "--help"], "--public"),
        (["list"], "corpus"),
        (["list", "rl"], "grpo"),
        (["plan"], "steps to run"),
        (["plan", "recipe=gpt2", "hardware=h100x8"], "steps to run"),
        (["show", "rl"], "learning_rate"),
    ],
)
def test_torch_may_be_absent(words, expected, tmp_path):
    code = CODE.format(absent=ABSENT, words=words)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
