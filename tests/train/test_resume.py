"""Training that is stopped anywhere ends with the bits of training that was not."""

from __future__ import annotations

import contextlib
import dataclasses as dc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmstages.core import atomic
from llmstages.core.errors import StageError
from llmstages.core.exit_codes import STOPPED
from llmstages.core.stage import Artifact, Context
from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig
from llmstages.plugins.reward.pairwise import Pairwise, PairwiseConfig
from llmstages.plugins.rl.dpo import DPO, DPOConfig
from llmstages.plugins.rl.grpo import GRPO, GRPOConfig
from llmstages.plugins.sft.chat import Chat, ChatConfig
from llmstages.text.messages import message
from tests.tiny import TALK, TEXTS, tiny_tokenizer

ROOT = Path(__file__).parents[2]
QUIET = {"save_minutes": 0.0}
PRETRAIN = CausalLMConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    context=128,
    row=64,
    epochs=6.0,
    validation_stride=10,
    warmup_steps=2,
    batch_size=4,
    micro_batch_size=2,
    log_every=3,
    **QUIET,
)


def inputs_of(kind, folder, write=True) -> dict[str, Any]:
    """Inputs of a stage, written into a folder (or found there)."""
    if not write:
        saved, saved_model = (
            (lambda where, what, rows: Artifact(where.name, what, where, where.name)),
            (lambda where: Artifact(where.name, "model", where, where.name)),
        )
    else:
        from tests.tiny import saved, saved_model
    if kind == "pretrain":
        tiny_tokenizer().save_pretrained(folder / "tokenizer")
        corpus = saved(
            folder / "corpus",
            "corpus",
            [{"id": str(i), "url": "u", "text": f"{t} {i}"} for i, t in enumerate(TEXTS)],
        )
        return {
            "corpus": (corpus,),
            "dialogues": (),
            "tokenizer": Artifact("tokenizer", "tokenizer", folder / "tokenizer", "t"),
            "model": None,
        }
    model = saved_model(folder / "model")
    if kind.startswith("sft"):
        return {
            "model": model,
            "dialogues": (
                saved(
                    folder / "chats",
                    "dialogues",
                    [{"messages": [message("user", f"{i}?"), *TALK[1:]]} for i in range(30)],
                ),
            ),
            "corpus": None,
        }
    if kind in ("reward", "dpo"):
        pairs = [
            {
                "prompt": [message("user", f"Where? {i}")],
                "chosen": [message("assistant", "near the river")],
                "rejected": [message("assistant", "no")],
            }
            for i in range(30)
        ]
        return {
            "policy" if kind == "dpo" else "model": model,
            "preferences": saved(folder / "pairs", "preferences", pairs),
        }
    problems = [
        {"prompt": [message("user", f"{i}+1=?")], "answer": str(i + 1), "meta": "{}"}
        for i in range(12)
    ]
    return {
        "policy": model,
        "problems": saved(folder / "problems", "problems", problems),
        "reward": None,
    }


STAGES = {
    "pretrain": (CausalLM, PRETRAIN),
    "sft": (Chat, ChatConfig(max_length=64, epochs=3.0, batch_size=2, log_every=2, **QUIET)),
    "sft-lora": (
        Chat,
        ChatConfig(max_length=64, epochs=3.0, batch_size=2, log_every=2, lora_r=4, **QUIET),
    ),
    "sft-new-tokens": (
        Chat,
        ChatConfig(
            row=64,
            epochs=3.0,
            batch_size=2,
            log_every=2,
            lora_r=4,
            template="llama3",
            packing=False,
            validation_stride=4,
            format_eval_steps=3,
            **QUIET,
        ),
    ),
    "dpo": (DPO, DPOConfig(epochs=2.0, batch_size=4, log_every=2, **QUIET)),
    "reward": (Pairwise, PairwiseConfig(epochs=2.0, batch_size=4, log_every=2, **QUIET)),
    "grpo": (
        GRPO,
        GRPOConfig(
            updates=9,
            batch_size=8,
            samples=4,
            max_completion_length=6,
            micro_batch_size=4,
            rewards={"exact_answer": {"use": "exact_answer"}},
            **QUIET,
        ),
    ),
}


def perform(kind, folder, inputs, stop_at=0, say=None, sent=signal.SIGTERM, processes=1, **changes):
    """Run a stage in a folder that keeps its work, as the store does; at an update, send the process a signal."""
    stage, config = STAGES[kind]
    out, work = folder / "out", folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*") if out.exists() and processes == 1 else ():
        old.unlink()
    out.mkdir(exist_ok=True)

    @contextlib.contextmanager
    def progress(name: str, total: float | None) -> Iterator[Any]:
        done = 0

        def advance(count: float = 1, note: str = "") -> None:
            nonlocal done
            done += count
            if name == kind and stop_at and done == stop_at:
                os.kill(os.getpid(), sent)

        yield advance

    said: list[str] = [] if say is None else say
    metrics = stage().run(
        dc.replace(config, **changes),
        Context(
            kind,
            out,
            work,
            inputs,
            say=said.append,
            progress=progress,
            cache=folder / "cache",
            processes=processes,
        ),
    )
    return {
        path.name: path.read_bytes()
        for path in sorted(out.iterdir())
        if path.suffix in (".safetensors", ".jsonl")
    }, metrics


def stopped(kind, folder, inputs, update, **more):
    with pytest.raises(SystemExit) as left:
        perform(kind, folder, inputs, update, **more)
    assert left.value.code == 75
    assert json.loads((folder / STOPPED).read_text())["update"] == update


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """For a stage: its inputs, and what it gives undisturbed."""
    known: dict[str, Any] = {}

    def make(kind):
        if kind not in known:
            folder = tmp_path_factory.mktemp(kind)
            inputs = inputs_of(kind, folder)
            known[kind] = inputs, *perform(kind, folder / "straight", inputs)
        return known[kind]

    return make


@pytest.mark.parametrize(
    "updates",
    [(1, 7, 8, 20, 40), pytest.param(range(1, 41), marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_every_update_of_a_run_can_be_the_last(tmp_path, made, updates):
    inputs, straight, metrics = made("pretrain")
    assert metrics["updates"] >= 40, metrics
    for update in updates:
        folder = tmp_path / str(update)
        stopped("pretrain", folder, inputs, update)
        assert perform("pretrain", folder, inputs)[0] == straight, f"stopped after update {update}"


def test_stopped_again_and_again(tmp_path, made):
    inputs, straight, _ = made("pretrain")
    said: list[str] = []
    for update in (3, 4, 11, 30):
        stopped("pretrain", tmp_path, inputs, update, say=said)
    assert perform("pretrain", tmp_path, inputs, say=said)[0] == straight
    assert [line.split()[-1] for line in said if "goes on after update" in line] == [
        "3",
        "4",
        "11",
        "30",
    ]


@pytest.mark.parametrize("kind", ["sft", "sft-lora", "sft-new-tokens", "reward", "dpo", "grpo"])
def test_other_stages_go_on_with_the_same_bits(tmp_path, made, kind):
    inputs, straight, metrics = made(kind)
    last = int(metrics["updates"]) - 1
    assert last >= 5
    for update in sorted({1, 2, 6, last - 1, last}):
        stopped(kind, tmp_path / str(update), inputs, update)
        assert perform(kind, tmp_path / str(update), inputs)[0] == straight, (
            f"stopped after update {update}"
        )


def test_checkpoints_by_count_change_nothing_and_the_last_ones_stay(tmp_path, made):
    inputs, straight, _ = made("pretrain")
    assert perform("pretrain", tmp_path, inputs, save_every=4, save_last=3)[0] == straight
    kept = sorted(path.name for path in (tmp_path / "work" / "checkpoints").iterdir())
    assert len(kept) == 3 and all(
        atomic.damage(tmp_path / "work" / "checkpoints" / name) is None for name in kept
    )


def test_ctrl_c_saves_too(tmp_path, made):
    inputs, straight, _ = made("pretrain")
    with pytest.raises(KeyboardInterrupt):
        perform("pretrain", tmp_path, inputs, 5, sent=signal.SIGINT)
    said: list[str] = []
    assert perform("pretrain", tmp_path, inputs, say=said)[0] == straight
    assert any("goes on after update 5" in line for line in said)


def test_another_number_of_processes_or_rows_is_refused(tmp_path, made):
    inputs, _, _ = made("pretrain")
    stopped("pretrain", tmp_path, inputs, 3)
    with pytest.raises(StageError, match="micro_batch_size=2; with 4"):
        perform("pretrain", tmp_path, inputs, micro_batch_size=4)
    home = next((tmp_path / "work" / "checkpoints").iterdir())
    about = atomic.read_manifest(home)
    (home / atomic.MANIFEST).unlink()
    atomic.seal(home, home.with_name("as of two"), {**about, "processes": 2})
    (home.with_name("as of two")).rename(home)
    with pytest.raises(StageError, match="with 2 processes and would now go on with 1"):
        perform("pretrain", tmp_path, inputs)


def start(processes, *words):
    """The helper in one process, or under torchrun in several; a group of its own, so that all of it can be killed."""
    torchrun = (
        [
            "torch.distributed.run",
            "--rdzv-backend=c10d",
            "--rdzv-endpoint=localhost:0",
            f"--nproc_per_node={processes}",
            "-m",
        ]
        if processes > 1
        else []
    )
    return subprocess.Popen(
        [sys.executable, "-m", *torchrun, "tests.launch.spread", *map(str, words)],
        cwd=ROOT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process):
    """What it printed."""
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.strip().splitlines()[-1])


@pytest.mark.parametrize(
    ("kind", "updates"),
    [
        ("pretrain", (1, 20, 41)),
        pytest.param("pretrain", range(1, 41), marks=pytest.mark.slow),
        pytest.param("sft", (1, 2, 5, 9), marks=pytest.mark.slow),
    ],
)
def test_two_processes_go_on_with_the_same_bits_when_one_is_stopped(tmp_path, kind, updates):
    told = ended(start(2, "stop", kind, tmp_path, *updates))
    straight = told.pop("straight")
    assert len(told) == len(updates) and {left for left, _ in told.values()} == {"left 75"}
    assert [update for update, (_, then) in told.items() if then != straight] == []


def test_a_bad_number_in_one_process_stops_all_and_is_told_of_it(tmp_path):
    (one, kept), (other, too) = ended(start(2, "bad", "pretrain", tmp_path))["told"]
    assert (
        one == other
        and "the loss is not finite at update 3; stopped before the weights changed. Rows of it: process 1: "
        in one
    )
    assert kept and too


@pytest.mark.parametrize(
    ("processes", "kills"),
    [
        (1, 2),
        pytest.param(1, 20, marks=pytest.mark.slow),
        pytest.param(2, 20, marks=pytest.mark.slow),
    ],
)
def test_killed_while_it_saves(tmp_path, processes, kills):
    straight, draw = (
        ended(start(processes, "stop", "pretrain", tmp_path))["straight"],
        random.Random(processes),
    )
    work, done = tmp_path / "killed" / "work", 0
    while done < kills:
        process = start(processes, "save", "pretrain", tmp_path)
        wanted = draw.randrange(1, 8)  # of the saves after it went on
        seen: set[str] = set()
        while process.poll() is None and len(seen) < wanted:
            seen |= {path.name for path in work.glob("checkpoint-*")}
            time.sleep(0.0005)
        time.sleep(draw.choice((0, 0.001, 0.004, 0.01, 0.03)))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            done += 1
        else:
            assert ended(process)["made"] == straight, f"after {done} kills"
            shutil.rmtree(tmp_path / "killed")
        process.communicate()
    assert ended(start(processes, "save", "pretrain", tmp_path))["made"] == straight


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data.pkl: file write failed"),
    ],
)
def test_a_full_disk_while_saving_leaves_the_one_before(tmp_path, made, monkeypatch, error):
    import torch

    inputs, straight, _ = made("pretrain")
    real, calls = torch.save, []

    def save(value, path, *rest, **more):
        calls.append(str(path))
        if sum("optimizer" in call for call in calls) == 3:
            raise error
        return real(value, path, *rest, **more)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(
        OSError,
        match="No space left on device for a checkpoint of pretrain; the one before it is kept",
    ):
        perform("pretrain", tmp_path, inputs, save_every=4)
    monkeypatch.undo()
    assert [path.name for path in sorted((tmp_path / "work" / "checkpoints").iterdir())] == [
        "update-00000004",
        "update-00000008",
    ]
    assert not list((tmp_path / "work").glob("checkpoint-*"))
    said: list[str] = []
    assert perform("pretrain", tmp_path, inputs, say=said)[0] == straight
    assert any("goes on after update 8" in line for line in said)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, made):
    inputs, straight, _ = made("pretrain")
    with pytest.raises(SystemExit):
        perform("pretrain", tmp_path, inputs, 9, save_every=4)
    newest = sorted((tmp_path / "work" / "checkpoints").iterdir())[-1]
    (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-1])
    said: list[str] = []
    assert perform("pretrain", tmp_path, inputs, say=said)[0] == straight
    assert any("damaged" in line and newest.name in line for line in said) and any(
        "goes on after update 8" in line for line in said
    )
