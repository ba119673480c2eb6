"""The dial derives what grows together, keeps what was set, and says both; presets are as large as their names."""

from __future__ import annotations

import dataclasses as dc
import json

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact
from llmstages.plugins.pretrain import depth_scaling
from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig, updates
from tests.tiny import TEXTS, perform, saved, saved_model, tiny_tokenizer


def settled(**values):
    return depth_scaling.settle(CausalLMConfig(**values), 32768)


def test_without_a_depth_the_small_model_and_nothing_derived():
    config, derived = settled(learning_rate=1e-4)
    assert (
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
        config.batch_size,
        config.epochs,
    ) == (128, 4, 4, 384, 4, 1.0)
    assert config.learning_rate == 1e-4 and derived == {}
    assert depth_scaling.settle(config, 32768)[0] == config


def test_depth_twelve_is_the_size_of_gpt2():
    config, derived = settled(depth=12, max_length=1024)
    assert (
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
    ) == (768, 12, 6, 2048)
    assert derived["batch_tokens"] == 1 << 19 and config.learning_rate == 6e-4
    assert (
        config.max_tokens == 12 * derived["scaling_weights"]
        and config.epochs == depth_scaling.PASSES
    )
    assert config.micro_batch_size * 1024 == depth_scaling.MICRO


def test_everything_grows_with_the_depth_and_the_rate_falls():
    made = [settled(depth=depth, max_length=1024)[0] for depth in (2, 6, 12, 20, 26)]
    for name in ("hidden", "heads", "intermediate", "batch_size", "max_tokens"):
        values = [getattr(config, name) for config in made]
        assert values == sorted(values) and values[0] < values[-1], name
    rates = [config.learning_rate for config in made]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == 5
    assert all(
        config.hidden_size % config.num_attention_heads == 0
        and config.hidden_size // config.num_attention_heads in (64, 128)
        for config in made
    )


def test_the_width_is_whole_heads():
    assert [settled(depth=depth)[0].hidden for depth in (1, 7, 8, 9)] == [64, 448, 512, 640]


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
    config, derived = settled(depth=12, **own)
    [(name, value)] = own.items()
    assert getattr(config, name) == value and derived["set_explicitly"] == [name]
    assert name in depth_scaling.sentence(derived).partition("set explicitly: ")[2]


def test_the_rest_follows_from_what_is_set():
    narrow, wide = settled(depth=12, hidden_size=512)[0], settled(depth=12)[0]
    assert narrow.heads == 4 and narrow.intermediate == 1408 and narrow.max_tokens < wide.max_tokens
    assert settled(depth=12, batch_size=8, max_length=1024)[0].learning_rate == pytest.approx(
        6e-4 * (8 * 1024 / 2**19) ** 0.5, rel=0.01
    )
    assert settled(depth=12, epochs=0.5)[0].max_tokens == 0, (
        "passes that were set are not cut short"
    )


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_the_count_of_weights_is_that_of_the_model(architecture):
    config = CausalLMConfig(depth=1, architecture=architecture, init="plain", num_key_value_heads=1)
    _, derived = depth_scaling.settle(config, len(tiny_tokenizer()))
    model = CausalLM().fresh(config, tiny_tokenizer())
    matrices = sum(
        p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "wpe" not in name
    )  # embeddings are the head
    assert derived["scaling_weights"] == matrices


def test_micro_batches_divide_the_batch():
    assert (
        depth_scaling.micro(512, 1024, 8) == 16
        and depth_scaling.micro(4, 256, 1) == 4
        and depth_scaling.micro(6, 1024, 2) == 1
        and depth_scaling.micro(3, 256, 2) == 0
    )


@pytest.mark.parametrize(
    "own",
    [
        {"depth": -1},
        {"ratio": 0.0},
        {"learning_rate": -1.0},
        {"sample_every": 1.5},
        {"hidden_size": -64},
    ],
)
def test_values_out_of_range_are_told(own):
    with pytest.raises(ValueError, match=next(iter(own))):
        CausalLMConfig(**own)


def test_the_dial_is_said_and_written_and_a_small_corpus_too(tmp_path):
    corpus = saved(
        tmp_path / "corpus",
        "corpus",
        [{"id": str(i), "url": "u", "text": f"{t} {i}"} for i, t in enumerate(TEXTS)],
    )
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    inputs = {
        "corpus": (corpus,),
        "dialogues": (),
        "tokenizer": Artifact("tokenizer", "tokenizer", tmp_path / "tokenizer", "t"),
        "model": None,
    }
    made, metrics = perform(
        CausalLM,
        tmp_path / "dialled",
        CausalLMConfig(depth=1, max_length=64, sample_every=0.0, init="plain"),
        **inputs,
    )
    said, derived = "\n".join(perform.said), json.loads((made.path / "derived.json").read_text())
    assert (
        "depth 1 gives hidden 64, layers 1" in said
        and "a smaller depth would use this corpus better" in said
    )
    assert (
        derived["hidden_size"] == 64
        and derived["updates"] == metrics["updates"]
        and derived["tokens"] == metrics["tokens"]
    )
    with pytest.raises(StageError, match="depth=1 shapes a new model"):
        perform(
            CausalLM,
            tmp_path / "on",
            CausalLMConfig(depth=1),
            **{**inputs, "model": saved_model(tmp_path / "model")},
        )


def test_updates_are_those_of_the_passes_or_of_the_tokens():
    config = CausalLMConfig(epochs=2.0, batch_size=4, max_length=10)
    assert updates(config, 9) == 5 and updates(dc.replace(config, max_tokens=100), 9) == 3


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

    from llmstages.core.config import build_config
    from llmstages.pipeline.compose import compose

    values = {
        k: v
        for k, v in compose([f"pretrain={name}"]).slots["pretrain"].items()
        if k not in ("stage", "use")
    }
    config = depth_scaling.settle(build_config(CausalLMConfig, values, name), SIZES[name][0])[0]
    vocabulary, wanted = SIZES[name]
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
    assert model.num_parameters() == pytest.approx(wanted, rel=0.04)
    assert (
        config.batch_size % (config.micro_batch_size or config.batch_size) == 0
        and config.max_length <= config.max_position_embeddings
        and config.hidden_size % config.num_attention_heads == 0
    )
