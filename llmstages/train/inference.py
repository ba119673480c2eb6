"""Loading models that are only asked, never trained: evaluation and probing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context, option

CPU_INFO = Path("/proc/cpuinfo")
# Instructions that multiply bfloat16: x86 (AVX-512, AMX) and ARM.
BFLOAT16_FLAGS = frozenset(("avx512_bf16", "amx_bf16", "bf16"))


def dtype_option() -> Any:
    """The option of stages that ask models: what the models compute in."""
    return option(
        "auto",
        "type that a model computes in; auto: the one its weights were saved in",
        choices=("auto", "float32", "bfloat16"),
    )


def load_for_inference(artifact: Artifact, ctx: Context, dtype: str = "auto") -> Any:
    """A model on this process's device.

    With dtype "auto" it computes in the type its weights were saved in, so that a model which was
    trained in float32 answers bit for bit as it did in training, and one that was published in
    bfloat16 takes half the memory. On a CPU with instructions for bfloat16 it is also 1.7 times as
    fast (benchmarks/generation.py); on others it is slower, and a line says so.

    Args:
        artifact: a model folder.
        ctx: where the step runs.
        dtype: "auto", or a torch dtype by name.

    Raises:
        StageError: the folder holds no model.
    """
    import torch

    from llmstages.text.generate import own_settings
    from llmstages.train.distributed import compute_device
    from llmstages.train.trainer import load_model

    model = load_model(artifact, ctx, dtype=dtype).to(compute_device())
    unused = [f"{name}={value}" for name, value in own_settings(model).items()]
    if unused:
        ctx.say(
            f"{ctx.step}: {', '.join(unused)} in generation_config.json of {artifact.name} are not "
            "used: answers follow the probabilities that training changes"
        )
    if model.device.type == "cpu" and model.dtype == torch.bfloat16 and not computes_bfloat16():
        ctx.say(
            f"{ctx.step}: {artifact.name} computes in bfloat16, for which this CPU has no "
            f"instructions; {ctx.step}.dtype=float32 may be faster"
        )
    return model


def computes_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Whether the CPU has instructions for bfloat16; True where the system does not say."""
    if not cpu_info.is_file():
        return True
    for line in cpu_info.read_text(encoding="utf-8").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return not BFLOAT16_FLAGS.isdisjoint(flags.split())
    return True


def require_chat_template(tokenizer: Any, artifact: Artifact, ctx: Context) -> None:
    """Raise StageError if a model that is to answer requests is not a chat model."""
    if not tokenizer.chat_template:
        raise StageError(
            f"{ctx.step}: {artifact.name} is not a chat model: its tokenizer has no chat "
            "template. Wire a step that was trained on dialogues (sft, rl), or an instruct "
            "model of the Hub"
        )
