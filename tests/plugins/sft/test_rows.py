"""Rows without packing: the same loss, and batches of similar length."""

from __future__ import annotations

from llmstages.data.packing import pack
from llmstages.plugins.sft.chat import ChatConfig
from llmstages.plugins.sft.rows import length_grouped_order, unpacked_rows
from llmstages.text.render import render
from llmstages.train.batches import collate
from llmstages.train.trainer import load_model, load_tokenizer
from tests.plugins.sft.helpers import fine_tune, numbered_dialogues
from tests.tiny import saved


def length_spreads(rows, order, batch_size):
    """For each batch, its longest row less its shortest."""
    spreads = []
    for start in range(0, len(order), batch_size):
        lengths = [len(rows[index]["input_ids"]) for index in order[start : start + batch_size]]
        spreads.append(max(lengths) - min(lengths))
    return spreads


def test_one_dialogue_per_row_gives_the_same_loss_as_packing(model):
    import torch

    tokenizer, net = load_tokenizer(model.path), load_model(model, None).eval()
    rendered = render(tokenizer, [row["messages"] for row in numbered_dialogues(20)])
    unpacked, cut = unpacked_rows(rendered, 64)
    assert not cut
    assert [len(row["input_ids"]) for row in unpacked] == [len(row.ids) for row in rendered]
    packed, _ = pack(rendered, 64, tokenizer.pad_token_id, 0)

    def total_loss(rows):
        batch = collate(rows, pad=tokenizer.pad_token_id)
        return net(**batch).loss * (batch["labels"][:, 1:] != -100).sum()

    with torch.no_grad():
        assert torch.allclose(total_loss(unpacked), total_loss(packed), rtol=1e-5)


def test_every_pass_has_all_rows_in_batches_of_similar_length(model):
    rendered = render(
        load_tokenizer(model.path), [row["messages"] for row in numbered_dialogues(20)]
    )
    rows, _ = unpacked_rows(rendered, 64)
    order = length_grouped_order(rows, 4, 25, seed=0)
    assert len(order) == 100
    for start in range(0, 100, 20):
        assert sorted(order[start : start + 20]) == list(range(20))
    assert order[:20] != order[20:40]
    lengths = [len(row.ids) for row in rendered]
    assert max(length_spreads(rows, order, 4)) <= 5 < max(lengths) - min(lengths)


def test_rows_that_do_not_fill_the_last_block_occur_equally_often():
    rows = [{"input_ids": [1] * (1 + number % 37)} for number in range(803)]
    order = length_grouped_order(rows, 16, 250, seed=0)
    spreads = length_spreads(rows, order, 16)
    assert sum(spreads) / len(spreads) < 2
    assert {order.count(index) for index in range(803)} <= {4, 5}


def test_a_model_learns_without_packing(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", numbered_dialogues(20))
    config = ChatConfig(max_length=64, packing=False, epochs=3.0)
    _, metrics = fine_tune(tmp_path / "sft", config, model, chats)
    assert metrics["updates"] == 15
    assert metrics["loss_last"] < metrics["loss_first"]
