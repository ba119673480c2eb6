"""Sizes of models: parameters are exact, FLOPs and kept tensors are those that torch counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmstages.cost import model as cost_model
from llmstages.cost.memory import activation_bytes_per_layer, training_memory
from llmstages.cost.model import Model, Training
from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig

ROOT = Path(__file__).parents[2]
GPT2 = Model("gpt2", 50257, 768, 12, 12, 3072, positions=1024)
SHAPES = [  # as transformers' config says them
    (
        "llama",
        {
            "vocab_size": 300,
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 172,
        },
    ),
    (
        "llama",
        {
            "vocab_size": 300,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 172,
            "tie_word_embeddings": True,
            "attention_bias": True,
        },
    ),
    (
        "llama",
        {
            "vocab_size": 512,
            "hidden_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "intermediate_size": 100,
        },
    ),
    (
        "qwen2",
        {
            "vocab_size": 512,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 200,
            "tie_word_embeddings": True,
        },
    ),
    (
        "qwen2",
        {
            "vocab_size": 512,
            "hidden_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "intermediate_size": 96,
        },
    ),
    ("gpt2", {"vocab_size": 400, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128}),
    (
        "gpt2",
        {
            "vocab_size": 400,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "n_inner": 100,
            "tie_word_embeddings": False,
        },
    ),
]


@pytest.mark.parametrize(
    "model, published",
    [
        (GPT2, 124_439_808),
        (Model("gpt2", 50257, 1600, 48, 25, 6400, positions=1024), 1_557_611_200),
        (Model("llama", 32000, 4096, 32, 32, 11008, tied=False), 6_738_415_616),  # Llama 2 7B
        (
            Model("llama", 128256, 2048, 16, 32, 8192, num_key_value_heads=8),
            1_235_814_400,
        ),  # Llama 3.2 1B
        (
            Model("qwen2", 151936, 896, 24, 14, 4864, num_key_value_heads=2),
            494_032_768,
        ),  # Qwen2 0.5B
    ],
    ids=["gpt2", "gpt2-xl", "llama-2-7b", "llama-3.2-1b", "qwen2-0.5b"],
)
def test_parameters_are_those_that_were_published(model, published):
    assert model.parameters() == published


@pytest.mark.parametrize("kind, values", SHAPES)
def test_parameters_are_those_that_transformers_counts(kind, values, tmp_path):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **values)
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert cost_model.model_from_config(saved).parameters() == model.num_parameters()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"architecture": "qwen2", "init": "plain"},
        {"architecture": "gpt2", "init": "plain"},
        {"init": "plain"},
    ],
)
def test_the_model_a_stage_expects_is_the_one_it_makes(values):
    from tests.tiny import tiny_tokenizer

    config = CausalLMConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=100,
        max_position_embeddings=96,
        max_length=64,
        **values,
    )
    tokenizer = tiny_tokenizer()
    known = {
        "corpus": [],
        "dialogues": [],
        "model": [],
        "tokenizer": [{"name": "t", "vocab_size": len(tokenizer)}],
    }
    expected = CausalLM().estimate(config, known)["training"].model
    assert expected.parameters() == CausalLM().fresh(config, tokenizer).num_parameters()


def test_a_config_of_other_layers_is_not_counted():
    assert cost_model.model_from_config({"model_type": "mamba"}) is None


@pytest.mark.parametrize("kind, values", [SHAPES[0], SHAPES[1], SHAPES[5]])
def test_work_is_what_torch_counts(kind, values):
    """torch counts the products of eager attention, forward and backward, as the formula does."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **values)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    ids = torch.zeros((2, 48), dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(ids, labels=ids, use_cache=False).loss.backward()
    estimate = cost_model.model_from_config(config.to_dict()).flops(48) * ids.numel()
    # Norms and biases are not matrix products, but N includes them.
    assert estimate == pytest.approx(counter.get_total_flops(), rel=0.03)


@pytest.mark.parametrize(
    "kind, values, bf16",
    [
        (*SHAPES[0], False),
        (*SHAPES[1], False),
        (*SHAPES[3], False),
        (*SHAPES[5], False),
        (*SHAPES[0], True),
    ],
)
def test_a_layer_keeps_the_bytes_that_autograd_saves(kind, values, bf16):
    """The tensors saved for the backward pass by three layers, less those by two."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind, **values)
    estimate = activation_bytes_per_layer(
        cost_model.model_from_config(config.to_dict()), 64, bf16, cpu=True
    )
    layers_key = "n_layer" if kind == "gpt2" else "num_hidden_layers"
    three, two = (
        saved_bytes_per_token(kind, {**values, layers_key: layers}, bf16) for layers in (3, 2)
    )
    assert estimate == pytest.approx(three - two, rel=0.03)


def saved_bytes_per_token(kind, values, bf16):
    """Bytes that autograd keeps in the forward pass, without the weights and copies of them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **values)
    model = AutoModelForCausalLM.from_config(config).train()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    weight_shapes = {tuple(weight.shape) for weight in model.parameters()}
    weight_shapes |= {tuple(weight.T.shape) for weight in model.parameters() if weight.ndim == 2}
    ids = torch.randint(0, values["vocab_size"], (2, 64))
    positions = torch.arange(64).remainder(20).expand(2, 64)  # packed documents
    saved = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        is_weight = storage.data_ptr() in weights
        is_bf16_copy = tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in weight_shapes
        if not is_weight and not is_bf16_copy:
            # The tensor is held, so that no address is used twice.
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16),
    ):
        model(ids, labels=ids, position_ids=positions, use_cache=False)
    return sum(size for size, _ in saved.values()) / ids.numel()


def test_sharding_divides_and_ddp_doubles_gradients():
    work = Training(GPT2, 1024, 512, rows=512, micro_batch_size=16, bf16=True)
    alone = training_memory(work)
    ddp = training_memory(work, processes=8)
    zero = [training_memory(work, processes=8, zero=stage) for stage in (1, 2, 3)]
    assert ddp["gradients"] == 2 * alone["gradients"] and ddp["activations"] == alone["activations"]
    assert [stage["optimizer"] for stage in zero] == [alone["optimizer"] // 8] * 3
    sharded = alone["gradients"] // 8
    assert [stage["gradients"] for stage in zero] == [alone["gradients"], sharded, sharded]
    assert zero[2]["weights"] == alone["weights"] // 8 and zero[1]["weights"] == alone["weights"]
    peaks = [ddp["peak"], alone["peak"], *(stage["peak"] for stage in zero)]
    assert peaks == sorted(set(peaks), reverse=True)
    assert peaks[-1] > alone["activations"] + alone["logits"]
    assert alone["peak"] == alone["live"] < training_memory(work, cpu=True)["peak"]


def test_adapters_need_no_gradients_of_the_weights():
    full, lora = Training(GPT2, 1024, 16), Training(GPT2, 1024, 16, adapters=GPT2.adapters(8))
    assert GPT2.adapters(8) == 12 * 8 * (768 * 4 + 768 * 2 + 3840 * 2)
    assert (
        training_memory(lora)["optimizer"]
        == 8 * GPT2.adapters(8)
        < training_memory(full)["optimizer"] / 50
    )


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux"
)
@pytest.mark.parametrize("options", [[], ["--live"]])
def test_memory_is_what_training_takes(options):
    command = [sys.executable, str(ROOT / "benchmarks/memory.py"), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sizes = json.loads(done.stdout.splitlines()[-1])["sizes"]
    assert len(sizes) == 4
    for size in sizes:
        assert size["estimate"] / size["measured"] == pytest.approx(1, abs=0.2), done.stdout
