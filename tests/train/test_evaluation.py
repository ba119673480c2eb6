"""The loss of an evaluation is the mean over tokens, however rows fall into batches."""

from __future__ import annotations

import pytest
import torch

from llmstages.core.stage import Context
from llmstages.train.arguments import Optimization
from llmstages.train.trainer import sft_trainer
from tests.tiny import tiny_model, tiny_tokenizer


def rows(lengths):
    generator = torch.Generator().manual_seed(0)
    made = []
    for length in lengths:
        ids = torch.randint(5, 200, (length,), generator=generator).tolist()
        made.append({"input_ids": ids, "labels": ids, "position_ids": list(range(length))})
    return made


def eval_loss(tmp_path, size, held):
    tokenizer = tiny_tokenizer()
    config = Optimization(batch_size=2)
    ctx = Context("sft", tmp_path, tmp_path, {}, say=lambda line: None)
    trainer = sft_trainer(
        config,
        ctx,
        tiny_model(tokenizer),
        tokenizer,
        rows([8, 8]),
        1,
        held=held,
        per_device_eval_batch_size=size,
    )
    return trainer.evaluate()["eval_loss"], trainer.model


def test_a_short_row_weighs_as_much_as_its_tokens(tmp_path):
    held = rows([40, 40, 40, 2])
    losses = [eval_loss(tmp_path, size, held)[0] for size in (1, 3, 4)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    _, model = eval_loss(tmp_path, 1, held)
    nats = tokens = 0
    for row in held:
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        nats += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        tokens += ids.shape[1] - 1
    assert losses[0] == pytest.approx(nats / tokens, rel=1e-4)
