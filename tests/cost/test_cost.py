"""Estimates of a plan.

Parameters are exact; FLOPs and kept tensors are those that torch counts.
"""

from __future__ import annotations

import dataclasses as dc
import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmstages.core.errors import StageError
from llmstages.cost import model as cost_model
from llmstages.cost import plan as cost_plan
from llmstages.cost.model import Model, Training, training_memory
from llmstages.launch.config import Launch
from llmstages.launch.hardware import Hardware
from llmstages.pipeline.compose import compose
from llmstages.pipeline.plan import make_plan
from llmstages.pipeline.store import Store
from llmstages.pipeline.wiring import make_steps
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
    estimate = cost_model.activation_bytes_per_layer(
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


def test_public_figures_come_out():
    """llm.c (docs/scaling.md): GPT-2 124M on 10 B tokens took about 90 minutes and $20.

    That was on eight A100 at about 60 % of peak.
    """
    a100 = compose(["hardware=a100x8", "hardware.mfu=0.6"]).hardware
    work = Training(GPT2, 1024, 512, rows=10e9 / 1024, bf16=True)
    estimate = cost_plan.estimate_training(work, a100)
    assert estimate["hours"] * 60 == pytest.approx(90, rel=0.1)
    assert estimate["cost"] == pytest.approx(20, rel=0.15)


def test_a_machine_is_described_or_found():
    here = Hardware()
    assert here.memory() > 1e8
    assert here.speed(bf16=False) > 0
    assert "this machine" in here.name
    eight = compose(["hardware=h100x8"]).hardware
    assert (eight.count, eight.accelerator, eight.memory()) == (8, "h100", 80e9)
    with pytest.raises(StageError, match="hardware.count is 0, but it must be >= 1"):
        compose(["hardware.count=0"])
    with pytest.raises(StageError, match="hardware.mfu is 1.5, but it must be > 0, <= 1"):
        compose(["hardware.mfu=1.5"])
    with pytest.raises(StageError, match="Did you mean 'h100'"):
        compose(["hardware=h10"])


def session(*overrides):
    composed = compose(list(overrides))
    store = Store(composed.store)
    planned = make_plan(make_steps(composed.slots, composed.steps, composed.only), store)
    return planned, cost_plan.estimate_steps(planned, store, composed.hardware, composed.launch)


def test_hardware_is_no_part_of_any_fingerprint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here, _ = session("recipe=gpt2", "hardware=cpu")
    there, _ = session("recipe=gpt2", "hardware=h100x8")
    assert [plan.fingerprint for plan in here] == [plan.fingerprint for plan in there]


def test_the_gpt2_recipe_is_told_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, estimates = session("recipe=gpt2", "hardware=h100x8", "hardware.mfu=0.5")
    pretrain, sft = estimates["pretrain"], estimates["sft"]
    assert pretrain["tokens"] == pytest.approx(1e9, rel=0.05)
    assert "at most 1,000,000 documents" in pretrain["because"]
    flops_per_token = 6 * 123.66e6 + 12 * 12 * 768 * 1024
    assert pretrain["flops"] == pytest.approx(pretrain["tokens"] * flops_per_token, rel=0.001)
    assert pretrain["hours"] == pytest.approx(pretrain["flops"] / (8 * 989e12 * 0.5) / 3600)
    assert pretrain["cost"] == pytest.approx(24 * pretrain["hours"])
    assert sft["parameters"] == pretrain["parameters"]
    assert "at most" in sft["because"]
    _, estimates = session("recipe=gpt2", "pretrain.max_tokens=1000000")
    assert estimates["pretrain"]["tokens"] == pytest.approx(1e6, rel=0.6)


def test_what_is_not_known_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, estimates = session("recipe=smoke", "pretrain.max_tokens=0")
    pretrain = estimates["pretrain"]
    assert pretrain["hours"] is None
    assert "known once corpus is made" in pretrain["because"]
    lines = list(cost_plan.describe(pretrain))
    assert any("duration: known once corpus is made" in line for line in lines)
    _, estimates = session("recipe=gpt2", "tokenizer.name=someone/else")
    assert "once tokenizer is made" in estimates["pretrain"]["no_estimate"]
    assert "once pretrain is made" in estimates["sft"]["no_estimate"]


def test_notes_tell_what_will_not_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, estimates = session("recipe=smoke", "hardware=h100x8", "pretrain.batch_size=4")
    notes = estimates["pretrain"]["notes"]
    assert any("batch_size=4 cannot be shared by 8 processes" in note for note in notes)
    _, estimates = session("recipe=gpt2", "hardware=rtx4090", "hardware.memory_gb=8")
    assert any("does not fit" in note for note in estimates["pretrain"]["notes"])


def test_a_failing_estimate_is_one_line_and_no_failure(toys, monkeypatch):
    from llmstages import load_stage, step

    def estimate(self, config, known):
        raise KeyError("corpse")

    monkeypatch.setattr(load_stage("toymodel.plain"), "estimate", estimate, raising=False)
    planned = make_plan([step("model", "toymodel.plain")], Store("store"))
    estimates = cost_plan.estimate_steps(planned, Store("store"), Hardware(), Launch())
    assert list(cost_plan.describe(estimates["model"])) == [
        "no estimate: toymodel.plain.estimate(): KeyError: 'corpse'"
    ]


def test_finished_steps_tell_what_they_measured(toys, monkeypatch):
    from llmstages import load_stage, run, step

    seen = {}

    def estimate(self, config, known):
        seen.update(known)
        return {}

    steps = [step("pages", "toypages.count")]
    steps.append(step("corpus", "toycorpus.clean", documents=steps[0]))
    run(steps, quiet=True)
    monkeypatch.setattr(load_stage("toymodel.plain"), "estimate", estimate, raising=False)
    store = Store("store")
    planned = make_plan([*steps, step("model", "toymodel.plain", corpus=steps[1])], store)
    assert cost_plan.estimate_steps(planned, store, Hardware(), Launch()) == {}
    table_size = len("[0, 1, 2]")
    assert seen["corpus"] == [{"name": "corpus", "kept": 3, "shape": 3, "bytes": table_size}]
    assert seen["base"] == []


def test_the_command_prints_it_and_imports_no_torch(cli):
    plan = cli("plan", "recipe=gpt2", "hardware=h100x8", "--json")
    for text in ("124 M parameters", "FLOPs: ", ", about $", "launch.processes=8"):
        assert text in plan.err
    assert plan.json["steps"]["pretrain"]["estimate"]["memory"]["peak"] > 1e9
    assert plan.json["steps"]["pages"]["estimate"] is None
    script = (
        "import sys\n"
        "from llmstages.cli.main import main\n"
        "main(['plan', 'recipe=gpt2', 'hardware=h100x8'])\n"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n")


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


@pytest.mark.parametrize(
    "write, value, text",
    [
        (cost_plan.format_count, 7, "7"),
        (cost_plan.format_count, 37_280, "37.3 k"),
        (cost_plan.format_count, 999_700_000, "1 B"),
        (cost_plan.format_count, 1.02e9, "1.02 B"),
        (cost_plan.format_bytes, 3.9e6, "3.9 MB"),
        (cost_plan.format_bytes, 999.9e6, "1 GB"),
        (cost_plan.format_bytes, 26.1e9, "26.1 GB"),
        (cost_plan.format_hours, 0.03, "108 s"),
        (cost_plan.format_hours, 0.5, "30 min"),
        (cost_plan.format_hours, 3.25, "3.25 h"),
        (cost_plan.format_hours, 100, "4 days"),
        (cost_plan.format_cost, 0, ""),
        (cost_plan.format_cost, 1234.5, ", about $1,234.50"),
    ],
)
def test_amounts_are_readable(write, value, text):
    assert write(value) == text


def test_rates_of_time_are_plain_arithmetic():
    slow = dc.replace(
        Hardware(), accelerator="x", count=2, memory_gb=1, fp32_tflops=1, mfu=0.5, price=3.0
    )
    estimate = cost_plan.estimate_training(Training(GPT2, 1024, 8, rows=8), slow)
    assert estimate["updates"] == 1
    assert estimate["tokens"] == 8192
    assert estimate["hours"] == pytest.approx(8192 * GPT2.flops(1024) / 1e12 / 3600)
    assert estimate["cost"] == pytest.approx(6 * estimate["hours"])
    assert any("does not fit" in note for note in estimate["notes"])
