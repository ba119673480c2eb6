"""Muon, schedules and the z-loss do what they say, and what a machine lacks is named.

Training resumes from a checkpoint of Muon bit for bit.
"""

from __future__ import annotations

import dataclasses as dc

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.plugins.pretrain import model as models
from llmstages.plugins.pretrain import optimizers
from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig
from tests.tiny import perform, tiny_model, tiny_tokenizer

TINY = CausalLMConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=128,
    max_length=64,
    epochs=3.0,
    validation_stride=10,
    warmup_steps=2,
    sample_every=0.0,
)


def optimizer_of(net):
    decayed = [name for name, p in net.named_parameters() if p.ndim > 1]
    return optimizers.muon(net, dc.replace(TINY, learning_rate=1e-2), decayed)


def batch():
    import torch

    ids = torch.arange(3, 35).reshape(2, 16)
    return {"input_ids": ids, "labels": ids}


def train(net, optimizer, times):
    for _ in range(times):
        net(**batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_muon_updates_the_hidden_matrices_and_adamw_all_else():
    net = tiny_model(tiny_tokenizer())
    optimizer = optimizer_of(net)
    names = {id(p): name for name, p in net.named_parameters()}
    by = {"Muon": set(), "AdamW": set()}
    for group in optimizer.param_groups:
        by[group["by"]].update(names[id(parameter)] for parameter in group["params"])
    assert len(by["Muon"]) == 2 * 7
    assert all(name.endswith("proj.weight") for name in by["Muon"])
    assert "model.embed_tokens.weight" in by["AdamW"]
    assert any("norm" in name for name in by["AdamW"])
    assert any("bias" in name for name in by["AdamW"])
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    assert count == len(names), "every weight once"
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays == [TINY.weight_decay, TINY.weight_decay, 0.0]


def test_an_update_of_muon_is_orthogonal():
    import torch

    net = tiny_model(tiny_tokenizer())
    weight = net.model.layers[0].mlp.up_proj.weight
    before = weight.detach().clone()
    optimizer = optimizer_of(net)
    optimizer.param_groups[0]["weight_decay"] = 0.0
    train(net, optimizer, 1)
    update = before - weight.detach()
    singular = torch.linalg.svdvals(update)
    assert singular.max() / singular.quantile(0.1) < 3, "nearly all directions move about equally"
    size = float(update.square().mean().sqrt())
    assert size == pytest.approx(0.2 * 1e-2, rel=0.35), "about as far as AdamW would move"


def test_a_saved_muon_continues_bit_for_bit(tmp_path):
    import torch

    whole, parted = tiny_model(tiny_tokenizer()), tiny_model(tiny_tokenizer())
    train(whole, optimizer_of(whole), 6)
    first = optimizer_of(parted)
    train(parted, first, 3)
    torch.save(first.state_dict(), tmp_path / "optimizer.pt")
    resumed = optimizer_of(parted)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    train(parted, resumed, 3)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), parted.parameters(), strict=True)
    )


def test_the_trainer_continues_from_its_checkpoint_of_muon_bit_for_bit(tmp_path):
    import torch
    from transformers import TrainingArguments

    from llmstages.train.batches import collate

    rows = [
        {
            "input_ids": [3 + i, *range(4, 19)],
            "labels": [-100, *range(4, 19)],
            "position_ids": list(range(16)),
        }
        for i in range(24)
    ]
    config = dc.replace(TINY, optimizer="muon", learning_rate=1e-2, z_loss=1e-4)
    trainer_class = optimizers.trainer_class(config, Context("pretrain", tmp_path, tmp_path, {}))

    def weights(resume):
        net = tiny_model(tiny_tokenizer())
        args = TrainingArguments(
            str(tmp_path / "checkpoints"),
            max_steps=6,
            per_device_train_batch_size=4,
            save_strategy="steps",
            save_steps=3,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
            **optimizers.schedule(config, 6, warmup_steps=0),
        )
        trainer = trainer_class(model=net, args=args, train_dataset=rows, data_collator=collate)
        trainer.train(resume_from_checkpoint=resume)
        return list(net.parameters())

    whole = weights(None)
    resumed = weights(str(tmp_path / "checkpoints" / "checkpoint-3"))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_a_schedule_reaches_both_workers():
    import torch

    optimizer = optimizer_of(tiny_model(tiny_tokenizer()))
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert {group["lr"] for worker in optimizer.workers for group in worker.param_groups} == {5e-3}


@pytest.mark.parametrize(
    "own",
    [
        {"optimizer": "muon", "learning_rate": 2e-2},
        {"schedule": "cosine"},
        {"schedule": "constant"},
        {"z_loss": 1e-3},
        {"optimizer": "muon", "learning_rate": 2e-2, "z_loss": 1e-3, "micro_batch_size": 2},
    ],
)
def test_every_choice_learns_and_differs_from_the_default(tmp_path, inputs, own):
    config = dc.replace(TINY, **own)
    made, metrics = perform(CausalLM, tmp_path / "one", config, **inputs)
    assert metrics["validation_loss"] < metrics["unigram_loss"] - 0.5
    plain, _ = perform(CausalLM, tmp_path / "plain", TINY, **inputs)
    assert (made.path / "model.safetensors").read_bytes() != (
        plain.path / "model.safetensors"
    ).read_bytes()


def test_schedules_end_where_they_say(tmp_path, inputs):
    ends = {}
    for schedule in ("wsd", "cosine", "constant"):
        made, _ = perform(
            CausalLM,
            tmp_path / schedule,
            dc.replace(TINY, schedule=schedule, log_every=1, epochs=2.0),
            **inputs,
        )
        rates = [
            row["learning_rate"]
            for row in tables.read_lines(made.path / "log.jsonl")
            if "learning_rate" in row
        ]
        ends[schedule] = rates[-1] / max(rates)
    assert ends["constant"] == 1
    assert ends["wsd"] < 0.3
    assert ends["cosine"] < 0.3


def test_the_z_loss_is_the_mean_square_of_the_log_normalizer():
    import torch

    logits = torch.randn(2, 5, 7)
    labels = torch.tensor([[0, 1, -100, 2, 3], [0, -100, -100, -100, 4]])
    # The logits at a position predict the label after it.
    predicting = [(0, 0), (0, 2), (0, 3), (1, 3)]
    total = sum(float(torch.logsumexp(logits[row, at], 0)) ** 2 for row, at in predicting)
    assert float(optimizers.z_term(logits, labels)) == pytest.approx(total / 4)
    assert float(optimizers.z_term(logits, labels, 8)) == pytest.approx(total / 8)


def test_the_z_loss_stays_out_of_validation(tmp_path, inputs):
    config = dc.replace(TINY, epochs=0.2, learning_rate=1e-9, z_loss=0.1)
    _, with_z = perform(CausalLM, tmp_path / "z", config, **inputs)
    _, without = perform(CausalLM, tmp_path / "plain", dc.replace(config, z_loss=0.0), **inputs)
    assert with_z["validation_loss"] == pytest.approx(without["validation_loss"], abs=1e-4)


def test_the_z_loss_is_the_same_where_gradients_accumulate(tmp_path, inputs):
    config = dc.replace(TINY, epochs=0.5, z_loss=0.1)
    _, whole = perform(CausalLM, tmp_path / "whole", config, **inputs)
    _, parts = perform(
        CausalLM, tmp_path / "parts", dc.replace(config, micro_batch_size=1), **inputs
    )
    _, without = perform(CausalLM, tmp_path / "without", dc.replace(config, z_loss=0.0), **inputs)
    assert parts["validation_loss"] == pytest.approx(whole["validation_loss"], abs=2e-4)
    assert abs(without["validation_loss"] - whole["validation_loss"]) > 1e-3


def test_recomputing_activations_changes_nothing(tmp_path, inputs):
    config = dc.replace(TINY, epochs=0.5)
    made, _ = perform(
        CausalLM, tmp_path / "less", dc.replace(config, gradient_checkpointing=True), **inputs
    )
    plain, _ = perform(CausalLM, tmp_path / "plain", config, **inputs)
    assert (made.path / "model.safetensors").read_bytes() == (
        plain.path / "model.safetensors"
    ).read_bytes()


def test_eager_attention_keeps_documents_apart_as_well(tmp_path, inputs):
    config = dc.replace(TINY, epochs=0.5)
    _, eager = perform(
        CausalLM, tmp_path / "eager", dc.replace(config, attention="eager"), **inputs
    )
    _, plain = perform(CausalLM, tmp_path / "plain", config, **inputs)
    assert eager["validation_loss"] == pytest.approx(plain["validation_loss"], abs=1e-3)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"attention": "flash_attention_2"}, ["flash-attn", "no GPU", "attention=sdpa"]),
        ({"liger": True}, ["liger-kernel", "liger=false"]),
        ({"compile": True}, ["C++ compiler", "compile=false"]),
        ({"optimizer": "muon"}, ["torch 2.9", "optimizer=adamw"]),
    ],
)
def test_what_the_machine_lacks_is_named_before_anything_is_read(tmp_path, monkeypatch, own, words):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(models.shutil, "which", lambda name: None)
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(StageError) as refusal:
        perform(CausalLM, tmp_path / "none", dc.replace(TINY, **own))
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_muon_is_refused_under_deepspeed(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMSTAGES_LAUNCH", "zero2")
    with pytest.raises(StageError, match="launch=ddp"):
        optimizers.trainer_class(
            dc.replace(TINY, optimizer="muon"), Context("pretrain", tmp_path, tmp_path, {})
        )
