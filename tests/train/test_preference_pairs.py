"""Pairs of answers: the split, checks of both sides, prompts that are the beginning of both."""

from __future__ import annotations

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.text.messages import message
from llmstages.text.templates import install
from llmstages.train import preference_pairs
from llmstages.train.trainer import load_tokenizer
from tests.tiny import saved, saved_model


def pair(i, good="The fox lives near the river.", bad="no"):
    return {
        "prompt": [message("user", f"Where does the fox live? {i}")],
        "chosen": [message("assistant", good)],
        "rejected": [message("assistant", bad)],
    }


def prepare(tmp_path, rows, **more):
    ctx = Context("reward", tmp_path, tmp_path, {}, say=lambda line: None)
    model = saved_model(tmp_path / "model")
    if "template" in more:
        tokenizer = load_tokenizer(model.path)
        install(tokenizer, more["template"], "")
        tokenizer.save_pretrained(model.path)
    return preference_pairs.prepare(
        model,
        saved(tmp_path / "pairs", "preferences", rows),
        more.get("max_length", 200),
        0.1,
        ctx,
    )


def test_split_follows_the_column_or_the_share():
    marked = [{**pair(1), "split": "train"}, {**pair(2), "split": "test"}]
    assert preference_pairs.split(marked, 0.5) == ([marked[0]], [marked[1]])
    rows = [pair(number) for number in range(100)]
    assert [len(part) for part in preference_pairs.split(rows, 0.1)] == [90, 10]
    backwards = [part[::-1] for part in preference_pairs.split(rows[::-1], 0.1)]
    assert tuple(backwards) == preference_pairs.split(rows, 0.1)


def prompts_of(rows):
    return {row["prompt"][0]["content"].casefold().strip() for row in rows}


@pytest.mark.parametrize("per_prompt", [2, 5, 17])
def test_no_prompt_is_on_both_sides_of_the_split(per_prompt):
    rows = [pair(number // per_prompt, f"Answer {number}.") for number in range(60)]
    train, test = preference_pairs.split(rows, 0.1)
    assert test
    assert len(train) + len(test) == 60
    assert not prompts_of(train) & prompts_of(test)


def test_pairs_with_the_prompt_of_a_marked_test_pair_are_not_trained_on(tmp_path):
    shouted = pair(1)
    shouted["prompt"] = [message("user", "WHERE DOES THE FOX LIVE? 1 ")]
    rows = [{**pair(1), "split": "test"}, *({**pair(i), "split": "train"} for i in (1, 2, 3))]
    train, test = preference_pairs.split([*rows, {**shouted, "split": "train"}], 0.1)
    assert (len(train), len(test)) == (2, 1)


def test_one_prompt_alone_leaves_nothing_to_measure_with():
    train, test = preference_pairs.split([pair(1, f"Answer {n}.") for n in range(9)], 0.3)
    assert (len(train), len(test)) == (9, 0)


def test_pairs_that_are_equal_as_tokens_are_dropped_and_counted(tmp_path):
    blanks = [pair(100 + number, "no ", " no") for number in range(4)]
    # This template trims what is said.
    rows = [*(pair(number) for number in range(20)), *blanks]
    made = prepare(tmp_path, rows, template="llama3")
    assert made.facts["dropped, equal"] == 4
    assert len(made.train) + len(made.test) == 20


def test_a_prompt_is_the_beginning_of_both_sides(tmp_path):
    made = prepare(tmp_path, [pair(i) for i in range(20)])
    for row in (*made.train, *made.test):
        for side in preference_pairs.SIDES:
            prompt, supervised = row["prompt_ids"], row[f"{side}_rendered"].supervised
            assert row[f"{side}_ids"][: len(prompt)] == prompt
            assert all(supervised[len(prompt) :])
            assert not any(supervised[: len(prompt)])
    assert all(check.passed for check in made.checks)
    assert made.names[0] == f"{made.train[0]['name']} chosen"


@pytest.mark.parametrize("side", preference_pairs.SIDES)
def test_both_sides_are_checked(tmp_path, side):
    bad = pair(1) | {side: [message("assistant", "a"), message("assistant", "b")]}
    pairs = [*(pair(i) for i in range(10)), bad]
    checks = {check.id: check for check in prepare(tmp_path, pairs).checks}
    assert checks["roles_out_of_order"].rows == (f"pairs:10 {side}",)


def test_unknown_roles_stop_at_once(tmp_path):
    with pytest.raises(StageError, match="unknown_roles .*: 1, .*pairs:0 chosen"):
        prepare(tmp_path, [pair(0) | {"chosen": [message("critic", "a")]}])
