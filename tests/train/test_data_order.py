"""Faults of data order and resuming that other tools had: what is trained on, and how often."""

from __future__ import annotations

import dataclasses as dc
import itertools

import pytest
import torch
from transformers import Trainer

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig
from llmstages.plugins.pretrain.documents import load_documents
from llmstages.train.callbacks import TrainingMonitor
from llmstages.train.isolation import require_isolation
from tests.tiny import saved, tiny_tokenizer
from tests.train.training_steps import PRETRAIN, inputs_of, perform


@pytest.fixture
def seen(monkeypatch):
    """The rows of every update, in order."""
    updates: list[list[int]] = []
    take = TrainingMonitor._take_batches

    def recorded(self, count):
        batches = take(self, count)
        updates.append([row for batch in batches for row in batch])
        return batches

    monkeypatch.setattr(TrainingMonitor, "_take_batches", recorded)
    return updates


def stopped(kind, folder, inputs, update, **changes):
    with pytest.raises(SystemExit):
        perform(kind, folder, inputs, update, **changes)


# accelerate#2016, ms-swift#10050: the order of a later pass.


def test_a_resume_in_a_later_pass_continues_its_order(tmp_path, seen):
    inputs = inputs_of("pretrain", tmp_path / "in")
    _, metrics = perform("pretrain", tmp_path / "a", inputs)
    straight = list(seen)
    rows = int(metrics["rows"])
    per_pass = rows // PRETRAIN.batch_size
    seen.clear()
    stopped("pretrain", tmp_path / "b", inputs, per_pass + 1)
    stopped("pretrain", tmp_path / "b", inputs, 3 * per_pass)
    perform("pretrain", tmp_path / "b", inputs)
    assert seen == straight
    line = list(itertools.chain(*straight))
    passes = [line[start : start + rows] for start in range(0, 6 * rows, rows)]
    assert all(sorted(order) == list(range(rows)) for order in passes)
    assert passes[0] != passes[1]


# transformers#17032: random numbers of dropout.


def test_a_model_with_dropout_resumes_to_the_bit_also_between_passes(tmp_path):
    gpt2 = {"architecture": "gpt2", "init": "plain", "dropout": 0.1}
    inputs = inputs_of("pretrain", tmp_path / "in")
    straight, metrics = perform("pretrain", tmp_path / "a", inputs, **gpt2)
    per_pass = -(-int(metrics["rows"]) // PRETRAIN.batch_size)
    for update in (1, per_pass, 2 * per_pass + 1):
        folder = tmp_path / f"stopped-{update}"
        stopped("pretrain", folder, inputs, update, **gpt2)
        resumed, _ = perform("pretrain", folder, inputs, **gpt2)
        assert resumed["model.safetensors"] == straight["model.safetensors"]


# transformers#25865: the optimizer is not restored.


def test_a_checkpoint_of_deepspeed_is_not_continued_without_it(tmp_path, monkeypatch):
    from pathlib import Path

    def as_deepspeed_does(self, folder):
        state = Path(folder) / f"global_step{self.state.global_step}"
        state.mkdir()
        (state / "mp_rank_00_model_states.pt").write_bytes(b"x")
        torch.save(self.lr_scheduler.state_dict(), Path(folder) / "scheduler.pt")

    inputs = inputs_of("pretrain", tmp_path / "in")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_optimizer_and_scheduler", as_deepspeed_does)
        stopped("pretrain", tmp_path / "t", inputs, 4)
    with pytest.raises(StageError, match="under DeepSpeed.*second warm-up"):
        perform("pretrain", tmp_path / "t", inputs)


# NeMo-RL#2519: other data under a checkpoint.


def test_a_position_in_other_data_is_refused(tmp_path):
    inputs = inputs_of("pretrain", tmp_path / "in")
    stopped("pretrain", tmp_path / "t", inputs, 4)
    pages = [{"id": str(n), "url": "u", "text": f"other words {n} " * 20} for n in range(60)]
    inputs["corpus"] = (saved(tmp_path / "other", "corpus", pages),)
    with pytest.raises(StageError, match="on other rows"):
        perform("pretrain", tmp_path / "t", inputs)


# Soup#680: validation text that another corpus has as well.


def test_a_document_of_another_corpus_is_not_held_out(tmp_path):
    def page(number):
        text = f"page {number} is about fox number {number} near the river"
        return {"id": str(number), "url": "u", "text": text}

    first = saved(tmp_path / "A", "corpus", [page(n) for n in range(20)])
    second = saved(tmp_path / "B", "corpus", [page(n) for n in range(17, 37)])
    said: list[str] = []
    ctx = Context("pretrain", tmp_path, tmp_path, {"corpus": (first, second)}, say=said.append)
    config = dc.replace(PRETRAIN, validation_stride=5)
    loaded = load_documents(config, ctx, tiny_tokenizer())
    train, held_out = loaded.train, loaded.held_out

    def texts(segments):
        return {tuple(segments.read(place)[0]) for place in range(len(segments))}

    assert held_out and not texts(held_out) & texts(train)
    assert any("not held out, since another corpus has them" in line for line in said)


# transformers#36297: fewer passes than asked for.


def test_the_tokens_of_a_training_are_those_that_were_computed(tmp_path, seen):
    inputs = inputs_of("pretrain", tmp_path / "in")
    _, metrics = perform("pretrain", tmp_path / "a", inputs, batch_size=512, epochs=3.0)
    assert sum(map(len, seen)) == 512 * metrics["updates"] >= 3 * metrics["rows"]
    assert metrics["tokens"] == 512 * metrics["updates"] * PRETRAIN.max_length


# torchtitan#4801: documents of a row that see each other.


def fresh(architecture):
    config = CausalLMConfig(
        architecture=architecture,
        init="plain",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        max_length=16,
    )
    return CausalLM().fresh(config, tiny_tokenizer())


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "gpt_neox"])
def test_architectures_that_keep_documents_apart(architecture):
    require_isolation(fresh(architecture), "pretrain", "")


@pytest.mark.parametrize("architecture", ["bloom", "mpt", "mamba"])
def test_architectures_that_do_not_are_refused(architecture):
    with pytest.raises(StageError, match=f"type {architecture} does not keep.*Try llama"):
        require_isolation(fresh(architecture), "pretrain", "Try llama.")


# gpt-neox#1373: one update at a rate of 0.


def test_a_training_of_one_update_trains(tmp_path):
    inputs = inputs_of("sft", tmp_path / "in")
    files, metrics = perform("sft", tmp_path / "a", inputs, batch_size=64, epochs=1.0)
    assert metrics["updates"] == 1
    before = (tmp_path / "in" / "model" / "model.safetensors").read_bytes()
    assert files["model.safetensors"] != before


# LlamaFactory#774, transformers#40560: the end of the log, and the speed after a resume.


def test_the_last_update_is_in_the_log_and_the_speed_is_of_this_training(tmp_path):
    import json

    inputs = inputs_of("sft", tmp_path / "in")
    files, whole = perform("sft", tmp_path / "a", inputs, log_every=4)
    steps = [json.loads(line)["step"] for line in files["log.jsonl"].splitlines()]
    assert steps[-1] == whole["updates"]
    stopped("sft", tmp_path / "b", inputs, int(whole["updates"]) - 1, log_every=4)
    _, resumed = perform("sft", tmp_path / "b", inputs, log_every=4)
    assert resumed["tokens_per_second"] < 3 * whole["tokens_per_second"]
