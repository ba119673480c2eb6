"""How steps are started, never what they make: nothing in here enters a fingerprint.

What was asked travels in the environment, and training holds what it got against it (processes.py).
"""

from __future__ import annotations

import dataclasses as dc
import glob
import json
import os
import sys
from pathlib import Path
from typing import Any

from llmstages.stage import option


@dc.dataclass(frozen=True)
class Launch:
    """The ``launch`` group of a run."""

    how: str = option("inline", "inline: the runner's process; single: one process a step; torchrun: several for training",
                      choices=("inline", "single", "torchrun"))
    processes: int = option(1, "processes a training step is spread over; only with how=torchrun")
    cpu: bool | None = option(None, "train on the CPU; unset: where the machine has no GPU")
    threads: int | None = option(None, "CPU threads a process; unset: the cores divided by the processes, at most 16")
    deepspeed: dict[str, Any] = option(factory=dict, help="DeepSpeed configuration; empty for none")
    fsdp: dict[str, Any] = option(factory=dict, help="fsdp_config of transformers (FSDP2); empty for none")

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(f"processes is {self.processes}; give at least 1")
        if self.processes > 1 and self.how != "torchrun":
            raise ValueError(f"processes={self.processes} needs how=torchrun: choose launch=ddp, zero2 or zero3")

    @property
    def kind(self) -> str:
        """How a training step is spread, in one word: none, ddp, zero1 to zero3, or fsdp."""
        if self.how != "torchrun" or self.processes == 1 and not self.deepspeed and not self.fsdp:
            return "none"
        return "fsdp" if self.fsdp else f"zero{self.deepspeed.get('zero_optimization', {}).get('stage', 0)}" if self.deepspeed else "ddp"

    def spread(self, trains: bool) -> int:
        """Processes for a step: only training stages are spread."""
        return self.processes if self.how == "torchrun" and trains else 1

    def command(self, folder: Path, trains: bool) -> list[str]:
        """The command line that runs the worker on a frozen step."""
        worker = ["-m", "llmstages.worker", str(folder)]
        if self.how == "torchrun" and trains:
            # not `accelerate launch --cpu`: that starts one process whatever it is asked for
            return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={self.processes}", *worker]
        return [sys.executable, *worker]

    def environment(self, trains: bool = False) -> dict[str, str]:
        """Variables set before anything heavy is imported; what the user has set already stays."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = self.threads or max(1, min(cores // self.spread(trains), 16))
        wanted = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1",
                  "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
                  "TRANSFORMERS_VERBOSITY": "error", "TRL_EXPERIMENTAL_SILENCE": "1"}
        if "LLMSTAGES_DEBUG" not in os.environ:
            wanted["PYTHONWARNINGS"] = "ignore"
        if trains:
            wanted |= {"LLMSTAGES_LAUNCH": self.kind, "LLMSTAGES_DEEPSPEED": json.dumps(self.deepspeed), "LLMSTAGES_FSDP": json.dumps(self.fsdp)}
        if self.cpu or (self.cpu is None and not has_gpu()):
            wanted |= {"DS_ACCELERATOR": "cpu"} if self.deepspeed else {"ACCELERATE_USE_CPU": "true"}  # with which DeepSpeed would be left out in silence
            if self.cpu:
                wanted["CUDA_VISIBLE_DEVICES"] = ""
        wanted = {key: value for key, value in wanted.items() if key not in os.environ}
        if self.how != "torchrun" and not self.cpu:  # the Trainer would silently multiply the batch by the GPUs it sees
            wanted["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        return wanted


def has_gpu() -> bool:
    """Whether the machine has an accelerator, told from its device files: asking torch would cost seconds."""
    return sys.platform != "linux" or any(glob.glob(pattern) for pattern in ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel*"))
