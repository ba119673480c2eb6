"""Pairs of answers: the split, checks of both sides, prompts that are the beginning of both."""

from __future__ import annotations

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.text.messages import message
from llmstages.train import preference_pairs
from tests.tiny import saved, saved_model


def pair(i, good="The fox lives near the river.", bad="no"):
    return {
        "prompt": [message("user", f"Where does the fox live? {i}")],
        "chosen": [message("assistant", good)],
        "rejected": [message("assistant", bad)],
    }


def prepare(tmp_path, rows, **more):
    ctx = Context("reward", tmp_path, tmp_path, {}, say=lambda line: None)
    return preference_pairs.prepare(
        saved_model(tmp_path / "model"),
        saved(tmp_path / "pairs", "preferences", rows),
        more.get("max_length", 200),
        0.1,
        ctx,
    )


def test_split_follows_the_column_or_the_share():
    marked = [{"split": "train"}, {"split": "test"}]
    assert preference_pairs.split(marked, 0.5) == ([marked[0]], [marked[1]])
    assert [len(part) for part in preference_pairs.split([{}] * 100, 0.1)] == [90, 10]


def test_a_prompt_is_the_beginning_of_both_sides(tmp_path):
    made = prepare(tmp_path, [pair(i) for i in range(20)])
    for row in (*made.train, *made.test):
        for side in preference_pairs.SIDES:
            prompt, supervised = row["prompt_ids"], row[f"{side}_rendered"].supervised
            assert row[f"{side}_ids"][: len(prompt)] == prompt
            assert all(supervised[len(prompt) :])
            assert not any(supervised[: len(prompt)])
    assert all(check.passed for check in made.checks)
    assert made.names[0] == "pairs:1 chosen"


@pytest.mark.parametrize("side", preference_pairs.SIDES)
def test_both_sides_are_checked(tmp_path, side):
    bad = pair(1) | {side: [message("assistant", "a"), message("assistant", "b")]}
    pairs = [*(pair(i) for i in range(10)), bad]
    checks = {check.id: check for check in prepare(tmp_path, pairs).checks}
    assert checks["roles_out_of_order"].rows == (f"pairs:10 {side}",)


def test_unknown_roles_stop_at_once(tmp_path):
    with pytest.raises(StageError, match="unknown_roles .*: 1, .*pairs:0 chosen"):
        prepare(tmp_path, [pair(0) | {"chosen": [message("critic", "a")]}])
