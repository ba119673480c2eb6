"""The parts of benchmarks/gpu.py: functions of (arguments, folder) that return their results."""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune import SIZES, random_dialogues, random_model
from generation import memory_in_use, memory_peak, reset_peak

PRETRAIN_FULL = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 2560,
    "max_position_embeddings": 1024,
    "max_length": 1024,
    "batch_size": 32,
    "vocab_size": 32_768,
    "updates": 60,
}
PRETRAIN_SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 128,
    "max_length": 128,
    "batch_size": 4,
    "vocab_size": 1024,
    "updates": 16,
}
# Distributed training and resuming are about equality, so a small model will do.
EQUALITY = {"hidden_size": 128, "num_hidden_layers": 4, "updates": 20, "batch_size": 4}
SMALL_LLAMA = {
    "vocab_size": 4096,
    "hidden_size": 72,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
}


def prepare(args: argparse.Namespace, folder: Path) -> None:
    """A corpus, a tokenizer, dialogues, problems and a chat model, as folders of artifacts."""
    from texts import texts

    from llmstages.data import tables
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build
    from llmstages.text.messages import message

    documents = texts(400_000 if args.small else 8_000_000)
    rows = [{"id": str(i), "url": "", "text": text} for i, text in enumerate(documents)]
    tables.save(rows, folder / "corpus" / "data")
    # What these artifacts consist of beside texts and tokens.
    (folder / "corpus" / "dropped").mkdir()
    tables.write_json(folder / "corpus" / "funnel.json", {})
    vocabulary = (PRETRAIN_SMALL if args.small else PRETRAIN_FULL)["vocab_size"]
    tokenizer = build((" " + text for text in documents[::4]), BPEConfig(vocab_size=vocabulary))
    tokenizer.save_pretrained(folder / "tokenizer")
    tables.write_json(folder / "tokenizer" / "view.json", {})
    tables.save(random_dialogues(10_000 if args.small else 400_000), folder / "dialogues" / "data")
    problems = [
        {"prompt": [message("user", f"{i}+{i}=?")], "answer": str(2 * i), "meta": "{}"}
        for i in range(64)
    ]
    tables.save(problems, folder / "problems" / "data")
    if not args.model:
        random_model(folder / "model", SIZES | (SMALL_LLAMA if args.small else {}))


def pretrain_config(args: argparse.Namespace, **changes: Any) -> Any:
    """The options of pretraining; ``updates`` and ``vocab_size`` are not of the stage."""
    import torch

    from llmstages.plugins.pretrain.causal_lm import CausalLMConfig

    values: dict[str, Any] = (PRETRAIN_SMALL if args.small else PRETRAIN_FULL) | changes
    updates = values.pop("updates")
    del values["vocab_size"]
    return CausalLMConfig(
        init="plain",
        bf16=torch.cuda.is_available(),
        learning_rate=6e-4,
        epochs=100.0,
        sample_every=0.0,
        save_minutes=0.0,
        max_tokens=updates * values["batch_size"] * values["max_length"],
        **values,
    )


def artifact(folder: Path, name: str, kind: str) -> Any:
    from llmstages.core.stage import Artifact

    return Artifact(name, kind, folder / name, name)


def pretrain_inputs(folder: Path) -> dict[str, Any]:
    return {
        "corpus": (artifact(folder, "corpus", "corpus"),),
        "tokenizer": artifact(folder, "tokenizer", "tokenizer"),
        "dialogues": (),
        "model": None,
    }


def chat_model(args: argparse.Namespace, folder: Path) -> Any:
    from llmstages.core.stage import Artifact

    path = Path(args.model) if args.model else folder / "model"
    return Artifact("model", "model", path, "model")


def perform(
    stage: type, config: Any, inputs: dict[str, Any], folder: Path, **context: Any
) -> dict[str, float]:
    """The metrics of a stage that fills folder/out."""
    from llmstages.core.stage import Context

    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    ctx = Context(
        "step", folder / "out", folder / "work", inputs, cache=folder / "cache", **context
    )
    return dict(stage().run(config, ctx))


def measured(run: Callable[[], dict[str, float]]) -> tuple[dict[str, float], int]:
    """(metrics of a run, the peak of memory above what was in use before)."""
    import torch

    from llmstages.train.distributed import compute_device

    device = torch.device(compute_device())
    before = memory_in_use(device)
    reset_peak(device)
    metrics = run()
    return metrics, memory_peak(device) - before


def pretrain(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Speed, MFU and memory of pretraining."""
    import torch

    from llmstages.cost.memory import training_memory
    from llmstages.plugins.pretrain.causal_lm import CausalLM
    from llmstages.train.trainer import load_tokenizer

    config = pretrain_config(args, compile=torch.cuda.is_available())
    inputs = pretrain_inputs(folder)
    metrics, memory = measured(lambda: perform(CausalLM, config, inputs, folder / "pretrain"))
    vocabulary = len(load_tokenizer(inputs["tokenizer"].path))
    known = {"tokenizer": [{"name": "tokenizer", "vocab_size": vocabulary}]}
    rest: dict[str, list[Any]] = {"corpus": [], "dialogues": [], "model": []}
    training = CausalLM().estimate(config, known | rest)["training"]
    expected = training_memory(training, cpu=not torch.cuda.is_available())
    return {
        "parameters": int(metrics["parameters"]),
        "tokens_per_second": metrics["tokens_per_second"],
        "mfu": metrics["mfu"],
        "loss": metrics["validation_loss"],
        "memory": memory,
        "memory_planned": expected["peak"],
    }


def fine_tune(args: argparse.Namespace, folder: Path, lora_r: int) -> dict[str, Any]:
    """Speed and memory of SFT."""
    import torch

    from llmstages.plugins.sft.chat import Chat, ChatConfig

    config = ChatConfig(
        lora_r=lora_r,
        max_length=128 if args.small else 1024,
        batch_size=4 if args.small else 16,
        bf16=torch.cuda.is_available(),
        learning_rate=1e-5,
        epochs=0.2 if args.small else 0.5,
        warmup_steps=0,
        replay=0,
        save_minutes=0.0,
    )
    inputs = {
        "model": chat_model(args, folder),
        "dialogues": (artifact(folder, "dialogues", "dialogues"),),
        "corpus": None,
    }
    metrics, memory = measured(lambda: perform(Chat, config, inputs, folder / f"sft-{lora_r}"))
    return {
        "updates": int(metrics["updates"]),
        "trained": int(metrics["trained_parameters"]),
        "tokens_per_second": metrics["tokens_per_second"],
        "loss_first": metrics["loss_first"],
        "loss_last": metrics["loss_last"],
        "memory": memory,
    }


def sft_full(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """SFT of all weights."""
    return fine_tune(args, folder, 0)


def sft_lora(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """SFT of adapters."""
    return fine_tune(args, folder, 16)


def grpo(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time and memory of an update with generation."""
    import torch

    from llmstages.plugins.rl.grpo import GRPO, GRPOConfig

    config = GRPOConfig(
        max_steps=2 if args.small else 4,
        batch_size=8 if args.small else 64,
        num_generations=8,
        max_completion_length=16 if args.small else 128,
        bf16=torch.cuda.is_available(),
        log_every=1,
        save_minutes=0.0,
        rewards={"exact_answer": {"use": "exact_answer"}},
    )
    inputs = {
        "policy": chat_model(args, folder),
        "problems": artifact(folder, "problems", "problems"),
        "reward": None,
    }
    start = time.perf_counter()
    metrics, memory = measured(lambda: perform(GRPO, config, inputs, folder / "grpo"))
    return {
        "updates": int(metrics["updates"]),
        "seconds_per_update": (time.perf_counter() - start) / metrics["updates"],
        "mean_length": metrics["length_last"],
        "memory": memory,
    }


def equality_config(args: argparse.Namespace) -> Any:
    changes = {} if args.small else EQUALITY
    return pretrain_config(args, **changes)


def distributed(args: argparse.Namespace, folder: Path, fsdp: dict[str, Any]) -> dict[str, Any]:
    """The loss of pretraining under torchrun with one process, and of the same alone."""
    from llmstages import run, step
    from llmstages.launch.config import Launch

    config = equality_config(args)
    sources = {"corpus": [str(folder / "corpus")], "tokenizer": str(folder / "tokenizer")}
    launches = {
        "loss_alone": Launch(),
        "loss": Launch(backend="torchrun", processes=1, fsdp=fsdp),
    }
    result: dict[str, Any] = {}
    for name, launch in launches.items():
        store = folder / f"{'fsdp' if fsdp else 'ddp'}-{name}"
        made = run(
            [step("pretrain", "pretrain.causal_lm", config, **sources)], store, launch=launch
        )
        record = json.loads((made["pretrain"].path / "record.json").read_text(encoding="utf-8"))
        result[name] = record["metrics"]["validation_loss"]
    return result


def ddp(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """torchrun with DistributedDataParallel."""
    return distributed(args, folder, {})


def fsdp(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """torchrun with FSDP2."""
    import torch

    if not torch.cuda.is_available():
        return {"skipped": "FSDP needs a GPU"}
    settings = {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "reshard_after_forward": True,
    }
    return distributed(args, folder, settings)


def resume(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Whether a training that is stopped and continued gives the same weights."""
    from safetensors.torch import load_file

    from llmstages.plugins.pretrain.causal_lm import CausalLM

    config = equality_config(args)
    inputs = pretrain_inputs(folder)
    perform(CausalLM, config, inputs, folder / "straight")
    stop_at = 7

    @contextmanager
    def stopping(name: str, total: float | None) -> Iterator[Any]:
        done = 0.0

        def advance(count: float = 1, note: str = "") -> None:
            nonlocal done
            done += count
            if done == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

        yield advance

    try:
        perform(CausalLM, config, inputs, folder / "stopped", progress=stopping)
    except SystemExit:
        pass  # it has saved
    else:
        raise RuntimeError(f"the training did not stop at update {stop_at}")
    perform(CausalLM, config, inputs, folder / "stopped")
    weights = [
        load_file(folder / name / "out" / "model.safetensors") for name in ("straight", "stopped")
    ]
    differences = [
        float((weights[0][name].float() - weights[1][name].float()).abs().max())
        for name in weights[0]
    ]
    return {
        "stopped_at": stop_at,
        "same_bits": not any(differences),
        "difference": max(differences),
    }


PARTS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "pretrain": pretrain,
    "sft_full": sft_full,
    "sft_lora": sft_lora,
    "grpo": grpo,
    "ddp": ddp,
    "fsdp": fsdp,
    "resume": resume,
}
