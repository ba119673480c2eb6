"""A depth gives all that grows with it and keeps what was set; presets are as large as they say."""

from __future__ import annotations

import dataclasses as dc
import json

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.plugins.pretrain import depth_scaling
from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig, updates
from tests.tiny import perform, saved_model, tiny_tokenizer


def resolved(**values):
    return depth_scaling.resolve(CausalLMConfig(**values), 32768)


def test_without_a_depth_the_small_model_and_nothing_derived():
    config, derived = resolved(learning_rate=1e-4)
    assert (
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
        config.batch_size,
        config.epochs,
    ) == (128, 4, 4, 384, 4, 1.0)
    assert config.learning_rate == 1e-4
    assert derived == {}
    assert depth_scaling.resolve(config, 32768)[0] == config


def test_depth_twelve_is_the_size_of_gpt2():
    config, derived = resolved(depth=12, max_length=1024)
    assert (
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
    ) == (768, 12, 6, 2048)
    assert derived["batch_tokens"] == 1 << 19
    assert config.learning_rate == 6e-4
    assert config.max_tokens == 12 * derived["scaling_weights"]
    assert config.epochs == depth_scaling.MAX_EPOCHS
    assert config.micro_batch_size * 1024 == depth_scaling.MICRO_BATCH_TOKENS


def test_everything_grows_with_the_depth_and_the_rate_falls():
    configs = [resolved(depth=depth, max_length=1024)[0] for depth in (2, 6, 12, 20, 26)]
    for name in (
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "batch_size",
        "max_tokens",
    ):
        values = [getattr(config, name) for config in configs]
        assert values == sorted(values), name
        assert values[0] < values[-1], name
    rates = [config.learning_rate for config in configs]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == 5
    for config in configs:
        assert config.hidden_size % config.num_attention_heads == 0
        assert config.hidden_size // config.num_attention_heads in (64, 128)


def test_the_width_is_whole_heads():
    widths = [resolved(depth=depth)[0].hidden_size for depth in (1, 7, 8, 9)]
    assert widths == [64, 448, 512, 640]


@pytest.mark.parametrize(
    "own",
    [
        {"learning_rate": 3e-3},
        {"batch_size": 4},
        {"hidden_size": 128},
        {"num_attention_heads": 4},
        {"max_tokens": 1000},
        {"epochs": 1.0},
        {"micro_batch_size": 1},
    ],
)
def test_what_is_set_wins_even_where_it_is_the_usual_value(own):
    config, derived = resolved(depth=12, **own)
    [(name, value)] = own.items()
    assert getattr(config, name) == value
    assert derived["set_explicitly"] == [name]
    assert name in depth_scaling.describe(derived).partition("set explicitly: ")[2]


def test_the_rest_follows_from_what_is_set():
    narrow, wide = resolved(depth=12, hidden_size=512)[0], resolved(depth=12)[0]
    assert narrow.num_attention_heads == 4
    assert narrow.intermediate_size == 1408
    assert narrow.max_tokens < wide.max_tokens
    small_batch = resolved(depth=12, batch_size=8, max_length=1024)[0]
    expected_rate = 6e-4 * (8 * 1024 / 2**19) ** 0.5
    assert small_batch.learning_rate == pytest.approx(expected_rate, rel=0.01)
    half_a_pass = resolved(depth=12, epochs=0.5)[0]
    assert half_a_pass.max_tokens == 0, "passes that were set are not cut short"


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_the_count_of_weights_is_that_of_the_model(architecture):
    config = CausalLMConfig(depth=1, architecture=architecture, init="plain", num_key_value_heads=1)
    _, derived = depth_scaling.resolve(config, len(tiny_tokenizer()))
    model = CausalLM().fresh(config, tiny_tokenizer())
    matrices = 0
    for name, parameter in model.named_parameters():
        # The embeddings of tokens count, because they are the head; those of positions do not.
        if parameter.ndim == 2 and "wpe" not in name:
            matrices += parameter.numel()
    assert derived["scaling_weights"] == matrices


def test_micro_batches_divide_the_batch():
    assert depth_scaling.micro_batch_size(512, 1024, processes=8) == 16
    assert depth_scaling.micro_batch_size(4, 256, processes=1) == 4
    assert depth_scaling.micro_batch_size(6, 1024, processes=2) == 1
    assert depth_scaling.micro_batch_size(3, 256, processes=2) == 0


@pytest.mark.parametrize(
    "value",
    [
        {"depth": -1},
        {"ratio": 0.0},
        {"learning_rate": -1.0},
        {"sample_every": 1.5},
        {"hidden_size": -64},
        {"max_length": 1},
        {"validation_stride": 0},
        {"decay": 1.5},
        {"mixture_weights": {"corpus": -1.0}},
    ],
)
def test_values_out_of_range_are_refused(value):
    with pytest.raises(StageError, match=next(iter(value))):
        build_config(CausalLMConfig, value, "pretrain")


def test_what_a_depth_gives_is_said_and_written_and_a_small_corpus_too(tmp_path, inputs):
    made, metrics = perform(
        CausalLM,
        tmp_path / "scaled",
        CausalLMConfig(depth=1, max_length=64, sample_every=0.0, init="plain"),
        **inputs,
    )
    lines = "\n".join(perform.said)
    assert "depth 1 gives hidden_size 64, num_hidden_layers 1" in lines
    assert "a smaller depth would use this corpus better" in lines
    derived = json.loads((made.path / "derived.json").read_text())
    assert derived["hidden_size"] == 64
    assert derived["updates"] == metrics["updates"]
    assert derived["tokens"] == metrics["tokens"]
    with pytest.raises(StageError, match="depth=1 shapes a new model"):
        perform(
            CausalLM,
            tmp_path / "on",
            CausalLMConfig(depth=1),
            **{**inputs, "model": saved_model(tmp_path / "model")},
        )


def test_updates_are_those_of_the_passes_or_of_the_tokens():
    config = CausalLMConfig(epochs=2.0, batch_size=4, max_length=10)
    assert updates(config, 9) == 5  # 18 rows, and two more to fill the last batch
    assert updates(dc.replace(config, max_tokens=100), 9) == 3


# Preset -> (entries of its vocabulary, parameters of the model).
SIZES = {
    "llama_1m": (1024, 0.98e6),
    "llama_15m": (32000, 15.2e6),
    "llama_124m": (50304, 124e6),
    "llama_350m": (50304, 350e6),
    "llama_1600m": (32768, 1.6e9),
    "qwen_500m": (151936, 494e6),
    "gpt2_124m": (50257, 124e6),
    "gpt2_1600m": (50257, 1.558e9),
}


@pytest.mark.parametrize("name", SIZES)
def test_presets_are_as_large_as_their_names_say(name):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from llmstages.pipeline.compose import compose

    values = dict(compose([f"pretrain={name}"]).slots["pretrain"])
    for key in ("stage", "use"):
        values.pop(key, None)
    vocabulary, expected_size = SIZES[name]
    config, _ = depth_scaling.resolve(build_config(CausalLMConfig, values, name), vocabulary)
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads or config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "n_inner": config.intermediate_size,
        "n_positions": config.max_position_embeddings,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": True,
    }
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.architecture, **shape))
    assert model.num_parameters() == pytest.approx(expected_size, rel=0.04)
    assert config.batch_size % (config.micro_batch_size or config.batch_size) == 0
    assert config.max_length <= config.max_position_embeddings
    assert config.hidden_size % config.num_attention_heads == 0
