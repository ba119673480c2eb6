"""What is measured while a base model is trained: samples, bits per byte, and speed."""

from __future__ import annotations

import dataclasses as dc
import math
from types import SimpleNamespace

import pytest

from llmstages.data import tables
from llmstages.plugins.pretrain import throughput, validation
from llmstages.plugins.pretrain.causal_lm import CausalLM
from tests.plugins.pretrain.test_optimizers import TINY
from tests.tiny import perform, tiny_model, tiny_tokenizer


def test_samples_are_written_on_the_way_and_change_no_weight(tmp_path, inputs):
    sampled, metrics = perform(
        CausalLM,
        tmp_path / "sampled",
        dc.replace(TINY, sample_every=0.25, prompts=["the cat"]),
        **inputs,
    )
    quiet, _ = perform(CausalLM, tmp_path / "quiet", TINY, **inputs)
    rows = tables.read_lines(sampled.path / "samples.jsonl")
    steps = int(metrics["updates"])
    expected_steps = [round(steps * share) for share in (0.25, 0.5, 0.75, 1.0)]
    assert [row["step"] for row in rows] == expected_steps
    assert {row["prompt"] for row in rows} == {"the cat"}
    assert "sat on the mat" in rows[-1]["text"]
    assert rows[0]["text"] != rows[-1]["text"]
    assert not (quiet.path / "samples.jsonl").exists()
    for name in ("model.safetensors", "log.jsonl", "config.json", "generation_config.json"):
        assert (sampled.path / name).read_bytes() == (quiet.path / name).read_bytes(), name


def test_without_prompts_held_out_documents_are_continued(tmp_path, inputs):
    made, _ = perform(
        CausalLM, tmp_path / "one", dc.replace(TINY, epochs=0.2, sample_every=1.0), **inputs
    )
    rows = tables.read_lines(made.path / "samples.jsonl")
    assert len(rows) == 2
    assert all(row["prompt"] for row in rows)


def test_bits_per_byte_follow_from_the_bytes_of_the_text(tmp_path, inputs):
    import numpy as np

    from llmstages.text import chat_format

    text = "the cat sat on the mat. Zürich 12"
    ids = chat_format.document_ids(tiny_tokenizer(), [text])[0]
    labels = np.array([-100, *ids[1:], -100, tiny_tokenizer().bos_token_id])
    ratio = validation.tokens_per_byte([{"labels": labels}], tiny_tokenizer(), 1)
    assert ratio == pytest.approx(len(ids) / len(text.encode()))
    _, metrics = perform(CausalLM, tmp_path / "one", dc.replace(TINY, epochs=0.2), **inputs)
    ratio = metrics["validation_bits_per_byte"] / metrics["validation_loss"]
    assert 0.2 / math.log(2) < ratio < 1 / math.log(2)
    assert metrics["mfu"] > 0


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("Something", None),
    ],
)
def test_gpus_are_known_by_name(name, peak):
    assert throughput.data_sheet(name) == peak


def test_flops_count_the_head_once_and_no_look_up():
    model = tiny_model(tiny_tokenizer())
    # The embedding is the head, so all weights multiply.
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert throughput.flops_per_token(model, 64) == 6 * weights + 12 * 2 * 32 * 64


def test_the_stopwatch_leaves_out_the_first_update_and_what_is_not_training(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(throughput, "clock", lambda: now[0])
    watch = throughput.stopwatch()
    for step in range(1, 13):
        state = SimpleNamespace(global_step=step, max_steps=12)
        control = SimpleNamespace(should_evaluate=step % 4 == 0, should_save=False)
        watch.on_step_begin(None, state, control)
        now[0] += 100 if step == 1 else 2
        watch.on_step_end(None, state, control)
        now[0] += 50 if step % 4 == 0 or step == 1 else 0  # time of an evaluation
    assert (watch.updates, watch.seconds) == (11, 22.0)
