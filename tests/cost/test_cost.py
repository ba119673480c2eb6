"""Estimates: parameters exact, work and kept tensors as torch counts them, and what the plan says of them."""

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
from llmstages.cost.model import Model, Training, memory
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
    found = cost_model.model_from_config(json.loads((tmp_path / "config.json").read_text()))
    assert found.parameters() == model.num_parameters()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"architecture": "qwen2", "start": "plain"},
        {"architecture": "gpt2", "start": "plain"},
        {"start": "plain"},
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
    made = CausalLM().fresh(config, tiny_tokenizer())
    training = CausalLM().estimate(
        config,
        {
            "corpus": [],
            "dialogues": [],
            "model": [],
            "tokenizer": [{"name": "t", "vocab_size": len(tiny_tokenizer())}],
        },
    )["training"]
    assert training.model.parameters() == made.num_parameters()


def test_a_config_of_other_layers_is_not_counted():
    assert cost_model.model_from_config({"model_type": "mamba"}) is None


@pytest.mark.parametrize("kind, values", [SHAPES[0], SHAPES[1], SHAPES[5]])
def test_work_is_what_torch_counts(kind, values):
    """torch counts the products of eager attention, forward and backward, as the formula does."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **values)
    model, ids = (
        AutoModelForCausalLM.from_config(config, attn_implementation="eager"),
        torch.zeros((2, 48), dtype=torch.long),
    )
    with FlopCounterMode(display=False) as counter:
        model(ids, labels=ids, use_cache=False).loss.backward()
    counted = cost_model.model_from_config(config.to_dict()).flops(48) * ids.numel()
    assert counted == pytest.approx(
        counter.get_total_flops(), rel=0.03
    )  # norms and biases are no products, but are in N


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
    """The tensors saved for the backward pass, by one layer more and one less."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def saved(layers):
        name = "n_layer" if kind == "gpt2" else "num_hidden_layers"
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, **{**values, name: layers})
        ).train()
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        ids = torch.randint(0, values["vocab_size"], (2, 64))
        positions = torch.arange(64).remainder(20).expand(2, 64)  # packed documents
        found = {}

        def note(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights and not (
                tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes
            ):
                found[storage.data_ptr()] = (
                    storage.nbytes(),
                    tensor,
                )  # held, so that no address is used twice
            return tensor

        shapes = {tuple(p.shape) for p in model.parameters()} | {
            tuple(p.T.shape) for p in model.parameters() if p.ndim == 2
        }  # bfloat16 copies of weights
        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda t: t),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16),
        ):
            model(ids, labels=ids, position_ids=positions, use_cache=False)
        return sum(size for size, _ in found.values()) / ids.numel()

    config = AutoConfig.for_model(kind, **values)
    kept = cost_model.activation_bytes_per_layer(
        cost_model.model_from_config(config.to_dict()), 64, bf16, cpu=True
    )
    assert kept == pytest.approx(saved(3) - saved(2), rel=0.03)


def test_sharding_divides_and_ddp_doubles_gradients():
    work = Training(GPT2, 1024, 512, rows=512, micro_batch_size=16, bf16=True)
    alone, ddp, *zero = (
        memory(work, processes, stage)
        for processes, stage in ((1, 0), (8, 0), (8, 1), (8, 2), (8, 3))
    )
    assert ddp["gradients"] == 2 * alone["gradients"] and ddp["activations"] == alone["activations"]
    assert [z["optimizer"] for z in zero] == [alone["optimizer"] // 8] * 3
    assert [z["gradients"] for z in zero] == [
        alone["gradients"],
        alone["gradients"] // 8,
        alone["gradients"] // 8,
    ]
    assert zero[2]["weights"] == alone["weights"] // 8 and zero[1]["weights"] == alone["weights"]
    assert (
        ddp["peak"]
        > alone["peak"]
        > zero[0]["peak"]
        > zero[1]["peak"]
        > zero[2]["peak"]
        > alone["activations"] + alone["logits"]
    )
    assert alone["peak"] == alone["live"] < memory(work, cpu=True)["peak"]


def test_adapters_need_no_gradients_of_the_weights():
    full, lora = Training(GPT2, 1024, 16), Training(GPT2, 1024, 16, adapters=GPT2.adapters(8))
    assert GPT2.adapters(8) == 12 * 8 * (768 * 4 + 768 * 2 + 3840 * 2)
    assert memory(lora)["optimizer"] == 8 * GPT2.adapters(8) < memory(full)["optimizer"] / 50


def test_public_figures_come_out():
    """llm.c: GPT-2 124M, 10 B tokens, about 90 minutes and $20 on eight A100 at about 60 % of peak (docs/scaling.md)."""
    a100 = Hardware(**compose(["hardware=a100x8", "hardware.mfu=0.6"]).hardware.__dict__)
    told = cost_plan.estimate_on(Training(GPT2, 1024, 512, rows=10e9 / 1024, bf16=True), a100)
    assert told["hours"] * 60 == pytest.approx(90, rel=0.1) and told["cost"] == pytest.approx(
        20, rel=0.15
    )


def test_a_machine_is_described_or_found():
    here = Hardware()
    assert here.memory() > 1e8 and here.speed(bf16=False) > 0 and "this machine" in here.name
    eight = compose(["hardware=h100x8"]).hardware
    assert (eight.count, eight.accelerator, eight.memory()) == (8, "h100", 80e9)
    with pytest.raises(StageError, match="hardware: count=0 must be above 0"):
        compose(["hardware.count=0"])
    with pytest.raises(StageError, match="Did you mean 'h100'"):
        compose(["hardware=h10"])


def session(*overrides):
    composed = compose(list(overrides))
    store = Store(composed.store)
    planned = make_plan(make_steps(composed.slots, composed.steps, composed.only), store)
    return planned, cost_plan.estimate_steps(planned, store, composed.hardware, composed.launch)


def test_hardware_is_no_part_of_any_fingerprint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here, there = (session("recipe=gpt2", name)[0] for name in ("hardware=cpu", "hardware=h100x8"))
    assert [plan.fingerprint for plan in here] == [plan.fingerprint for plan in there]


def test_the_gpt2_recipe_is_told_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = session("recipe=gpt2", "hardware=h100x8", "hardware.mfu=0.5")[1]
    pretrain = told["pretrain"]
    assert (
        pretrain["tokens"] == pytest.approx(1e9, rel=0.05)
        and "at most 1,000,000 documents" in pretrain["because"]
    )
    assert pretrain["flops"] == pytest.approx(
        pretrain["tokens"] * (6 * 123.66e6 + 12 * 12 * 768 * 1024), rel=0.001
    )
    assert pretrain["hours"] == pytest.approx(
        pretrain["flops"] / (8 * 989e12 * 0.5) / 3600
    ) and pretrain["cost"] == pytest.approx(24 * pretrain["hours"])
    assert (
        told["sft"]["parameters"] == pretrain["parameters"] and "at most" in told["sft"]["because"]
    )
    assert session("recipe=gpt2", "pretrain.max_tokens=1000000")[1]["pretrain"][
        "tokens"
    ] == pytest.approx(1e6, rel=0.6)


def test_what_is_not_known_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    story = session("recipe=smoke", "pretrain.max_tokens=0")[1]["pretrain"]
    assert story["hours"] is None and "known once corpus is made" in story["because"]
    assert any("how long: known once corpus is made" in line for line in cost_plan.lines(story))
    unknown = session("recipe=gpt2", "tokenizer.name=someone/else")[1]
    assert (
        "once tokenizer is made" in unknown["pretrain"]["no_estimate"]
        and "once pretrain is made" in unknown["sft"]["no_estimate"]
    )


def test_notes_tell_what_will_not_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared = session("recipe=smoke", "hardware=h100x8", "pretrain.batch_size=4")[1]["pretrain"]
    assert any("batch_size=4 cannot be shared by 8 processes" in note for note in shared["notes"])
    small = session("recipe=gpt2", "hardware=rtx4090", "hardware.memory_gb=8")[1]["pretrain"]
    assert any("does not fit" in note for note in small["notes"])


def test_a_failing_estimate_is_one_line_and_no_failure(toys, monkeypatch):
    from llmstages import load_stage, step

    def estimate(self, config, known):
        raise KeyError("corpse")

    monkeypatch.setattr(load_stage("toymodel.plain"), "estimate", cost_model, raising=False)
    planned = make_plan([step("model", "toymodel.plain")], Store("store"))
    from llmstages.launch.config import Launch

    told = cost_plan.estimate_steps(planned, Store("store"), Hardware(), Launch())
    assert list(cost_plan.lines(told["model"])) == [
        "no estimate: toymodel.plain.estimate(): KeyError: 'corpse'"
    ]


def test_finished_steps_tell_what_they_measured(toys, monkeypatch):
    from llmstages import load_stage, run, step
    from llmstages.launch.config import Launch

    seen = {}

    def estimate(self, config, known):
        seen.update(known)
        return {}

    steps = [step("pages", "toypages.count")]
    steps.append(step("corpus", "toycorpus.clean", documents=steps[0]))
    run(steps, quiet=True)
    monkeypatch.setattr(load_stage("toymodel.plain"), "estimate", cost_model, raising=False)
    store = Store("store")
    assert (
        cost_plan.estimate_steps(
            make_plan([*steps, step("model", "toymodel.plain", corpus=steps[1])], store),
            store,
            Hardware(),
            Launch(),
        )
        == {}
    )
    assert (
        seen["corpus"] == [{"name": "corpus", "kept": 3, "shape": 3, "bytes": len("[0, 1, 2]")}]
        and seen["base"] == []
    )


def test_the_command_prints_it_and_imports_no_torch(cli):
    told = cli("plan", "recipe=gpt2", "hardware=h100x8", "--json")
    assert (
        "124 M parameters" in told.err
        and "FLOPs: " in told.err
        and ", about $" in told.err
        and "launch.processes=8" in told.err
    )
    assert (
        told.json["steps"]["pretrain"]["estimate"]["memory"]["peak"] > 1e9
        and told.json["steps"]["pages"]["estimate"] is None
    )
    code = (
        "import sys\nfrom llmstages.cli.main import main\nmain(['plan', 'recipe=gpt2', 'hardware=h100x8'])\n"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    ).stdout.endswith("[]\n")


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux"
)
@pytest.mark.parametrize("how", [[], ["--live"]])
def test_memory_is_what_training_takes(how):
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/memory.py"), "--json", *how],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    sizes = json.loads(done.stdout.splitlines()[-1])["sizes"]
    assert len(sizes) == 4
    for size in sizes:
        assert size["estimate"] / size["measured"] == pytest.approx(1, abs=0.2), done.stdout


def test_amounts_are_readable():
    assert [cost_plan.count(v) for v in (7, 37_280, 999_700_000, 1.02e9)] == [
        "7",
        "37.3 k",
        "1 B",
        "1.02 B",
    ]
    assert [cost_plan.size(v) for v in (3.9e6, 999.9e6, 26.1e9)] == ["3.9 MB", "1 GB", "26.1 GB"]
    assert [cost_plan.duration(h) for h in (0.03, 0.5, 3.25, 100)] == [
        "108 s",
        "30 min",
        "3.25 h",
        "4 days",
    ]
    assert [cost_plan.money(c) for c in (0, 1234.5)] == ["", ", about $1,234.50"]


def test_rates_of_time_are_plain_arithmetic():
    slow = dc.replace(
        Hardware(), accelerator="x", count=2, memory_gb=1, fp32_tflops=1, mfu=0.5, price=3.0
    )
    told = cost_plan.estimate_on(Training(GPT2, 1024, 8, rows=8), slow)
    assert (
        told["updates"] == 1
        and told["tokens"] == 8192
        and told["hours"] == pytest.approx(8192 * GPT2.flops(1024) / 1e12 / 3600)
    )
    assert told["cost"] == pytest.approx(6 * told["hours"]) and any(
        "does not fit" in note for note in told["notes"]
    )
