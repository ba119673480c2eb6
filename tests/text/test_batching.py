"""The batch that memory holds: its arithmetic, and where free memory is read."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llmstages.core import memory
from llmstages.text import batching

GB = 10**9


def model_of(device="cpu", dtype_size=4, **sizes):
    """What is asked of a model: its config, device and dtype."""
    config = SimpleNamespace(**sizes)
    config.get_text_config = lambda: config
    return SimpleNamespace(
        config=config,
        device=SimpleNamespace(type=device),
        dtype=SimpleNamespace(itemsize=dtype_size),
    )


SMALL = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
}


@pytest.mark.parametrize(
    ("size", "available", "most", "expected"),
    [
        (10, 1000, 64, 64),
        (10, 640, 64, 64),
        (10, 639, 64, 32),
        (10, 170, 64, 16),
        (10, 9, 64, 1),
        (10, 0, 64, 1),
        (10, 1000, 50, 50),
        (10, 499, 50, 32),
        (0, 0, 7, 7),
    ],
)
def test_a_batch_is_the_most_or_a_power_of_two(size, available, most, expected):
    assert batching.fitting(size, available, most) == expected


def test_bytes_are_cache_activations_and_scores():
    cache = 2 * 30 * 3 * 64 * (100 + 28) * 4
    activations = 8 * 100 * 1536 * 4
    scores = 5 * 4 * 49_152
    assert batching.bytes_per_sequence(model_of(**SMALL), 100, 28) == cache + activations + scores


def test_a_large_vocabulary_and_a_small_type_count():
    model = model_of(**SMALL)
    large = model_of(**{**SMALL, "vocab_size": 262_144})
    half = model_of(dtype_size=2, **SMALL)
    size = batching.bytes_per_sequence(model, 100, 28)
    assert batching.bytes_per_sequence(large, 100, 28) - size == 20 * (262_144 - 49_152)
    assert batching.bytes_per_sequence(half, 100, 28) < size


def test_sizes_that_a_config_does_not_name_are_taken_from_others():
    named = {"vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 2}
    model = model_of(num_attention_heads=4, **named)
    assert batching.bytes_per_sequence(model, 10, 0) == 2 * 2 * 64 * 10 * 4 + 8 * 10 * 256 * 4 + (
        20 * 1000
    )


def test_the_batch_follows_free_memory(monkeypatch):
    model = model_of(**SMALL)
    for free, expected in ((64 * GB, 64), (GB, 32), (10_000, 1)):
        monkeypatch.setattr(batching, "free_memory", lambda device, free=free: free)
        available = batching.available_memory(model.device)
        assert batching.batch_for(model, 100, 28, 64, available) == expected


def group(folder, limit, used, cached=None):
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    if cached is not None:
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")
    return folder


def test_the_limit_of_a_container_counts(tmp_path):
    assert memory.free_of_group(group(tmp_path, 1000, 300)) == 700
    assert memory.free_of_group(group(tmp_path, 1000, 300, cached=200)) == 900
    assert memory.free_of_group(group(tmp_path, 1000, 1200)) == 0
    assert memory.free_of_group(group(tmp_path, "max", 300)) > GB
    assert memory.free_of_group(tmp_path / "nothing") > GB


def test_this_machine_has_memory():
    import torch

    assert 10_000_000 < batching.free_memory(torch.device("cpu")) < 1 << 62
