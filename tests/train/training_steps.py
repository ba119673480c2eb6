"""Small training steps of every kind, run in a folder that keeps its work as the store does."""

from __future__ import annotations

import contextlib
import dataclasses as dc
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmstages.core.stage import Artifact, Context
from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig
from llmstages.plugins.reward.pairwise import Pairwise, PairwiseConfig
from llmstages.plugins.rl.distill import Distill, DistillConfig
from llmstages.plugins.rl.dpo import DPO, DPOConfig
from llmstages.plugins.rl.grpo import GRPO, GRPOConfig
from llmstages.plugins.rl.ppo import PPO, PPOConfig
from llmstages.plugins.rl.rejection import Rejection, RejectionConfig
from llmstages.plugins.rl.rloo import RLOO, RLOOConfig
from llmstages.plugins.sft.chat import Chat, ChatConfig
from llmstages.text.messages import message
from tests.tiny import TALK, TEXTS, saved, saved_model, tiny_tokenizer

NO_TIMED_SAVES = {"save_minutes": 0.0}
PRETRAIN = CausalLMConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=128,
    max_length=64,
    epochs=6.0,
    validation_stride=10,
    warmup_steps=2,
    batch_size=4,
    micro_batch_size=2,
    log_every=3,
    **NO_TIMED_SAVES,
)
SFT = ChatConfig(max_length=64, epochs=3.0, batch_size=2, log_every=2, **NO_TIMED_SAVES)

ONLINE: dict[str, Any] = {
    "max_steps": 9,
    "batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 6,
    "micro_batch_size": 4,
    "rewards": {"exact_answer": {"use": "exact_answer"}},
    **NO_TIMED_SAVES,
}
TWICE = {"max_steps": 12, "num_generations": 1, "num_iterations": 2}


class FixedPPO(PPO):
    """PPO that samples the end of the prompt, so that processes sample what one process does."""

    def trainer_class(self) -> type:
        class Trainer(super().trainer_class()):
            def _generate_single_turn(self, prompt_ids: Any, *_: Any) -> Any:
                return [[*ids[-5:-2], self.eos_token_ids[0]] for ids in prompt_ids], None

        return Trainer


class CallingRLOO(RLOO):
    """RLOO whose policy always calls the calculator, and then says what it likes."""

    def trainer_class(self) -> type:
        class Trainer(super().trainer_class()):
            def sample(self, prompt_ids: Any) -> Any:
                call, result = (
                    self.processing_class(text, add_special_tokens=False)["input_ids"]
                    for text in ("<CALC_START>1+2<CALC_END>", "<RESULT_START>")
                )
                if result[0] in prompt_ids[0]:
                    return super().sample(prompt_ids)
                return [call] * len(prompt_ids)

        return Trainer


class EndedRejection(Rejection):
    """Rejection sampling in small parts that takes every answer for a whole one.

    A random model ends none.
    """

    part_size = 8

    def keep(self, config: Any, problems: Any, attempts: Any, *args: Any) -> Any:
        ended = [dc.replace(attempt, ended=True) for attempt in attempts]
        return super().keep(config, problems, ended, *args)


STAGES = {
    "pretrain": (CausalLM, PRETRAIN),
    "sft": (Chat, SFT),
    "sft-lora": (Chat, dc.replace(SFT, lora_r=4)),
    "sft-new-tokens": (
        Chat,
        dc.replace(
            SFT, lora_r=4, template="llama3", packing=False, num_test=4, format_eval_steps=3
        ),
    ),
    "dpo": (DPO, DPOConfig(epochs=2.0, batch_size=4, log_every=2, **NO_TIMED_SAVES)),
    "reward": (Pairwise, PairwiseConfig(epochs=2.0, batch_size=4, log_every=2, **NO_TIMED_SAVES)),
    "grpo": (GRPO, GRPOConfig(**ONLINE)),
    "rloo": (RLOO, RLOOConfig(**ONLINE)),
    "rloo-tools": (CallingRLOO, RLOOConfig(**{**ONLINE, "max_completion_length": 40})),
    "distill": (
        Distill,
        DistillConfig(
            max_steps=9,
            batch_size=8,
            micro_batch_size=4,
            max_completion_length=20,
            lmbda=0.5,
            **NO_TIMED_SAVES,
        ),
    ),
    "ppo": (PPO, PPOConfig(**{**ONLINE, **TWICE})),
    "ppo-lora": (PPO, PPOConfig(**{**ONLINE, **TWICE}, lora_r=4)),
    "ppo-head": (PPO, PPOConfig(**{**ONLINE, **TWICE}, critic="head")),
    "rejection": (
        EndedRejection,
        RejectionConfig(
            rounds=3,
            questions=8,
            num_generations=4,
            max_completion_length=6,
            threshold=-1.0,  # every answer is right
            keep=2,
            batch_size=2,
            micro_batch_size=1,
            max_length=32,
            log_every=2,
            lora_r=2,
            rewards={"exact_answer": {"use": "exact_answer"}},
            **NO_TIMED_SAVES,
        ),
    ),
    "ppo-fixed": (FixedPPO, PPOConfig(**{**ONLINE, **TWICE})),
    "ppo-fixed-head": (FixedPPO, PPOConfig(**{**ONLINE, **TWICE}, critic="head")),
}


def inputs_of(kind: str, folder: Path, write: bool = True) -> dict[str, Any]:
    """Inputs of a stage, written into a folder, or with write=False found there."""

    def artifact(name: str, artifact_kind: str, rows: list[dict[str, Any]]) -> Artifact:
        if write:
            return saved(folder / name, artifact_kind, rows)
        return Artifact(name, artifact_kind, folder / name, name)

    if kind == "pretrain":
        if write:
            tiny_tokenizer().save_pretrained(folder / "tokenizer")
        pages = [{"id": str(i), "url": "u", "text": f"{text} {i}"} for i, text in enumerate(TEXTS)]
        return {
            "corpus": (artifact("corpus", "corpus", pages),),
            "dialogues": (),
            "tokenizer": Artifact("tokenizer", "tokenizer", folder / "tokenizer", "t"),
            "model": None,
        }
    model = Artifact("model", "model", folder / "model", "model")
    if write:
        model = saved_model(folder / "model")
    if kind.startswith("sft"):
        dialogues = [{"messages": [message("user", f"{i}?"), *TALK[1:]]} for i in range(30)]
        chats = artifact("chats", "dialogues", dialogues)
        return {"model": model, "dialogues": (chats,), "corpus": None}
    if kind in ("reward", "dpo"):
        pairs = [
            {
                "prompt": [message("user", f"Where? {i}")],
                "chosen": [message("assistant", "near the river")],
                "rejected": [message("assistant", "no")],
            }
            for i in range(30)
        ]
        name = "policy" if kind == "dpo" else "model"
        return {name: model, "preferences": artifact("pairs", "preferences", pairs)}
    problems = [
        {"prompt": [message("user", f"{i}+1=?")], "answer": str(i + 1), "meta": "{}"}
        for i in range(12)
    ]
    if kind == "distill":
        teacher = Artifact("teacher", "model", folder / "teacher", "teacher")
        if write:
            teacher = saved_model(folder / "teacher", hidden=64)
        return {
            "policy": model,
            "teacher": teacher,
            "problems": artifact("problems", "problems", problems),
        }
    tools = artifact("tools", "dialogues", [{"messages": TALK}]) if kind.endswith("tools") else None
    if tools and write:
        (tools.path / "tools.json").write_text(json.dumps({"calculator": {"use": "calculator"}}))
    return {
        "policy": model,
        "problems": artifact("problems", "problems", problems),
        "reward": None,
        "tools": tools,
    }


def perform(
    kind: str,
    folder: Path,
    inputs: dict[str, Any],
    stop_at: int = 0,
    say: list[str] | None = None,
    sent: int = signal.SIGTERM,
    processes: int = 1,
    **changes: Any,
) -> tuple[dict[str, bytes], Any]:
    """Run a stage; returns its weights and logs by file name, and its metrics.

    stop_at: the update at which the process gets the signal ``sent``; 0: none.
    """
    stage, config = STAGES[kind]
    out, work = folder / "out", folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    if out.exists() and processes == 1:
        for old in out.glob("*"):
            old.unlink()
    out.mkdir(exist_ok=True)

    @contextlib.contextmanager
    def progress(name: str, total: float | None) -> Iterator[Any]:
        done = 0.0

        def advance(count: float = 1, note: str = "") -> None:
            nonlocal done
            done += count
            if name == kind and stop_at and done == stop_at:
                os.kill(os.getpid(), sent)

        yield advance

    said: list[str] = [] if say is None else say
    context = Context(
        kind,
        out,
        work,
        inputs,
        say=said.append,
        progress=progress,
        cache=folder / "cache",
        processes=processes,
    )
    metrics = stage().run(dc.replace(config, **changes), context)
    files = [path for path in sorted(out.iterdir()) if path.suffix in (".safetensors", ".jsonl")]
    return {path.name: path.read_bytes() for path in files}, metrics
