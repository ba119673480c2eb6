"""Every file in examples/ is run: the scripts on the finished smoke chain, from_python.py alone.

own_files.sh is run by test_real.py, guess_number.py by
plugins/rl/test_environments.py, the plugin package by test_plugin_package.py.
"""

from __future__ import annotations

import re
import sys

from tests.end_to_end.chain import ROOT, assert_nothing_half, command, llmstages

EXAMPLES = ROOT / "examples"


def step_names(keys: set[str]) -> list[str]:
    """The steps of keys such as ``rl-83239d1a65``, sorted."""
    return sorted(key.rpartition("-")[0] for key in keys)


def test_every_example_is_run_by_a_test():
    names = {path.name for path in EXAMPLES.iterdir() if path.name != "__pycache__"}
    scripts = {"story.sh", "swap_a_stage.sh", "from_python.py", "own_files.sh"}
    assert names == {*scripts, "guess_number.py", "plugins"}
    assert [path.name for path in (EXAMPLES / "plugins").iterdir()] == ["llmstages-extras"]


def test_the_story_ends_in_a_conversation(copied):
    done = command([str(EXAMPLES / "story.sh"), "smoke"], copied())
    assert "index.html" in done.out
    assert "Traceback" not in done.err


def test_swapping_a_stage_reruns_three_steps_each_time(copied):
    folder = copied()
    before = assert_nothing_half(folder)
    done = command([str(EXAMPLES / "swap_a_stage.sh")], folder)
    assert "3 of " in done.out
    assert "rl.grpo" in done.out
    new_keys = assert_nothing_half(folder) - before
    assert step_names(new_keys) == ["evaluate", "evaluate", "report", "report", "rl", "rl"]


def test_steps_and_runs_from_python(tmp_path):
    done = command([sys.executable, str(EXAMPLES / "from_python.py")], tmp_path)
    assert re.search("model in .*store/pretrain-", done.out)
    keys = assert_nothing_half(tmp_path)
    assert step_names(keys) == ["corpus", "pages", "pretrain", "tokenizer"]
    assert llmstages("verify", folder=tmp_path).code == 0
