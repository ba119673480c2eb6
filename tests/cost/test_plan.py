"""Estimates of a plan: what the steps expect, for a named machine."""

from __future__ import annotations

import dataclasses as dc
import subprocess
import sys

import pytest

from llmstages.core.errors import StageError
from llmstages.cost import plan as cost_plan
from llmstages.cost.model import Model, Training
from llmstages.launch.config import Launch
from llmstages.launch.hardware import Hardware
from llmstages.pipeline.compose import compose
from llmstages.pipeline.plan import make_plan
from llmstages.pipeline.store import Store
from llmstages.pipeline.wiring import make_steps

GPT2 = Model("gpt2", 50257, 768, 12, 12, 3072, positions=1024)


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
    (corpus,) = seen["corpus"]
    assert corpus.pop("table") == str(store.folder(planned[1].key) / "data")
    assert corpus == {"name": "corpus", "kept": 3, "shape": 3, "bytes": table_size}
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
