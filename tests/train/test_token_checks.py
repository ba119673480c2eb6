"""Mistakes in tokens, masks and lengths are found, and the rows are named."""

from __future__ import annotations

import copy

import pytest

from llmstages.text.render import Rendered, render
from llmstages.train.batches import collate
from llmstages.train.token_checks import check_model, check_rows
from tests.tiny import BOS, END, PAD, TALK, control_ids, saved_model, tiny_tokenizer
from tests.train.sft_step import all_passed, by_id


def two_rows(change):
    """Two rendered dialogues, the second one changed in place."""
    tokenizer = tiny_tokenizer()
    rows = render(tokenizer, [TALK, TALK])
    change(rows[1], control_ids(tokenizer))
    return rows


def unmask_all(row, marks):
    row.supervised = [True] * len(row.ids)


def mask_all(row, marks):
    row.supervised = [False] * len(row.ids)


def mask_end(row, marks):
    row.supervised = [
        on and token != marks[END] for token, on in zip(row.ids, row.supervised, strict=True)
    ]


def drop_end(row, marks):
    row.ids, row.supervised = row.ids[:-1], row.supervised[:-1]


def insert(position, mark):
    def change(row, marks):
        row.ids.insert(position, marks[mark])
        row.supervised.insert(position, False)

    return change


def drop_bos(row, marks):
    del row.ids[0], row.supervised[0]


# the mistake -> (change of the second row, id of the check that fails)
MISTAKES = {
    "the loss sees the question": (unmask_all, "headers_supervised"),
    "the loss sees nothing": (mask_all, "rows_without_loss"),
    "the end of turn is masked": (mask_end, "end_of_turn_supervised"),
    "the end of turn is cut off": (drop_end, "end_of_turn_supervised"),
    "no BOS": (drop_bos, "bos_count"),
    "two BOS": (insert(0, BOS), "bos_count"),
    "a BOS in the middle": (insert(5, BOS), "bos_count"),
    "padding in the middle": (insert(5, PAD), "padding_inside"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_tokens_and_masks_are_found(mistake):
    change, id = MISTAKES[mistake]
    tokenizer = tiny_tokenizer()
    unchanged = two_rows(lambda row, marks: None)
    assert all_passed(check_rows(unchanged, tokenizer))
    check = by_id(check_rows(two_rows(change), tokenizer, ["first", "second"]))[id]
    assert not check.passed
    assert check.rows == ("second",)


def test_too_few_supervised_tokens_and_rows_beyond_the_context():
    [row] = render(tiny_tokenizer(), [TALK])
    filler = row.ids[1:2] * 400
    long = Rendered([*row.ids, *filler], [*row.supervised, *[False] * 400])
    checks = by_id(check_rows([long], tiny_tokenizer(), ["a"], min_supervised=0.1, context=128))
    assert not checks["supervised_share"].passed
    assert not checks["row_length"].passed
    assert checks["row_length"].rows == ("a",)


def test_a_padding_token_may_be_the_one_that_ends_turns():
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.pad_token = END
    rows = render(tokenizer, [TALK])
    checks = by_id(check_rows(rows, tokenizer))
    assert checks["padding_inside"].passed
    assert checks["end_of_turn_supervised"].value == 1
    batch = collate([{"input_ids": rows[0].ids, "labels": rows[0].ids, "position_ids": []}])
    assert (batch["labels"][0] == tokenizer.pad_token_id).any()


def test_running_text_needs_no_end_of_turn():
    [row] = render(tiny_tokenizer(), [TALK])
    text = Rendered(row.ids[:1] + [token for token in row.ids[1:] if token > 20], [])
    text.supervised = [True] * len(text.ids)
    ids = {check.id for check in check_rows([text], tiny_tokenizer(), templated=False)}
    assert "end_of_turn_supervised" not in ids
    mixed = by_id(check_rows([row, text], tiny_tokenizer(), templated=[True, False]))
    assert mixed["end_of_turn_supervised"].value == 1
    assert mixed["headers_supervised"].passed


def test_more_tokens_than_embeddings(tmp_path):
    folder = saved_model(tmp_path / "base").path
    assert check_model(folder, tiny_tokenizer())[0].passed
    larger = copy.deepcopy(tiny_tokenizer())
    larger.add_tokens(["<new>"])
    assert not check_model(folder, larger)[0].passed
