"""How steps are started, never what they make: nothing in here enters a fingerprint.

What was asked travels with the frozen step, and training holds what it got against it (processes.py).
"""

from __future__ import annotations

import dataclasses as dc
import glob
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmstages.core.stage import option

SPREADS = ("torchrun", "slurm")
WORLDS = (
    "WORLD_SIZE",
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
)  # where launchers say how many processes they have started


@dc.dataclass(frozen=True)
class Slurm:
    """The job of a training step, with how=slurm."""

    partition: str = option("", "partition; empty: the cluster's default")
    account: str = option("", "account that is charged; empty: yours")
    nodes: int = option(1, "nodes; each runs launch.processes of the training")
    gpus: int = option(0, "GPUs a node, one a process; 0: train on the CPU")
    cores: int = option(0, "CPU cores a node; 0: the cluster's default")
    memory: float = option(0.0, "GB a node; 0: the cluster's default")
    minutes: int = option(
        60, "time limit; training that needs longer saves, is requeued and goes on"
    )
    save_seconds: int = option(
        120, "seconds before the time limit at which training is told to save"
    )
    requeues: int = option(20, "how often a job may ask to be started again")
    everything: bool = option(
        False,
        "every step as a job; otherwise training alone, the others on the machine of the runner",
    )
    extra: dict[str, Any] = option(
        factory=dict, help="further parameters of sbatch: +launch.slurm.extra.qos=high"
    )


@dc.dataclass(frozen=True)
class Launch:
    """The ``launch`` group of a run."""

    backend: str = option(
        "inline",
        "inline: the runner's process; single: one process a step; torchrun: several for training; slurm: training as a job",
        choices=("inline", "single", *SPREADS),
        renamed_from="how",
    )
    processes: int = option(
        1, "processes a training step is spread over, a node; only with how=torchrun and slurm"
    )
    cpu: bool | None = option(None, "train on the CPU; unset: where the machine has no GPU")
    threads: int | None = option(
        None, "CPU threads a process; unset: the cores divided by the processes, at most 16"
    )
    deepspeed: dict[str, Any] = option(factory=dict, help="DeepSpeed configuration; empty for none")
    fsdp: dict[str, Any] = option(
        factory=dict, help="fsdp_config of transformers (FSDP2); empty for none"
    )
    slurm: Slurm = option(factory=Slurm, help="the job of a training step; only with how=slurm")

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(f"processes is {self.processes}; give at least 1")
        if self.processes > 1 and self.backend not in SPREADS:
            raise ValueError(
                f"processes={self.processes} needs how=torchrun or slurm: choose launch=ddp, zero2, zero3 or slurm"
            )
        job = self.slurm
        if job.nodes < 1 or job.requeues < 0 or job.minutes * 60 <= job.save_seconds:
            raise ValueError(
                f"slurm.nodes={job.nodes}, slurm.requeues={job.requeues}, slurm.minutes={job.minutes}, slurm.save_seconds={job.save_seconds}: "
                "give at least 1 node, no negative number of requeues, and a time limit that is longer than what saving may take"
            )
        if job.gpus and job.gpus != self.processes:
            raise ValueError(
                f"slurm.gpus={job.gpus} with processes={self.processes}: one process drives one GPU, so set launch.processes={job.gpus}"
            )

    @property
    def kind(self) -> str:
        """How a training step is spread, in one word: none, ddp, zero1 to zero3, or fsdp."""
        if (
            self.backend not in SPREADS
            or self.spread(True) == 1
            and not self.deepspeed
            and not self.fsdp
        ):
            return "none"
        return (
            "fsdp"
            if self.fsdp
            else f"zero{self.deepspeed.get('zero_optimization', {}).get('stage', 0)}"
            if self.deepspeed
            else "ddp"
        )

    def spread(self, trains: bool) -> int:
        """Processes for a step: only training stages are spread."""
        if not trains or self.backend not in SPREADS:
            return 1
        return self.processes * (self.slurm.nodes if self.backend == "slurm" else 1)

    def as_job(self, trains: bool) -> bool:
        """Whether a step is sent to Slurm."""
        return self.backend == "slurm" and (trains or self.slurm.everything)

    def command(
        self, folder: Path, trains: bool, meeting: Sequence[str] = ("--standalone",)
    ) -> list[str]:
        """The command line that runs the worker on a frozen step. meeting: how torchrun finds the other nodes."""
        worker = ["-m", "llmstages.pipeline.worker", str(folder)]
        if trains and self.kind != "none":
            # not `accelerate launch --cpu`: that starts one process whatever it is asked for
            return [
                sys.executable,
                "-m",
                "torch.distributed.run",
                *meeting,
                f"--nproc_per_node={self.processes}",
                *worker,
            ]
        return [sys.executable, *worker]

    def asked(self) -> dict[str, str]:
        """Variables by which training knows what it was asked for. The worker sets them from its frozen step, whoever has started it."""
        return {
            "LLMSTAGES_LAUNCH": self.kind,
            "LLMSTAGES_DEEPSPEED": json.dumps(self.deepspeed),
            "LLMSTAGES_FSDP": json.dumps(self.fsdp),
        }

    def environment(self, trains: bool = False) -> dict[str, str]:
        """Variables set before anything heavy is imported; what the user has set already stays."""
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
        threads = self.threads or max(1, min(cores // (self.processes if trains else 1), 16))
        wanted = {
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "TQDM_DISABLE": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "TRL_EXPERIMENTAL_SILENCE": "1",
        }
        if "LLMSTAGES_DEBUG" not in os.environ:
            wanted["PYTHONWARNINGS"] = "ignore"
        gpu = self.slurm.gpus > 0 if self.as_job(trains) else has_gpu()
        if self.cpu or (self.cpu is None and not gpu):
            wanted |= (
                {"DS_ACCELERATOR": "cpu"} if self.deepspeed else {"ACCELERATE_USE_CPU": "true"}
            )  # with which DeepSpeed would be left out in silence
            if self.cpu:
                wanted["CUDA_VISIBLE_DEVICES"] = ""
        wanted = {key: value for key, value in wanted.items() if key not in os.environ}
        if (
            not (trains and self.kind != "none") and not self.cpu
        ):  # the Trainer would silently multiply the batch by the GPUs it sees
            wanted["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[
                0
            ]
        return wanted


def foreign_launcher() -> str:
    """The variable by which another launcher shows that it has started this process as one of several; empty if none has.

    ``accelerate launch --cpu --num_processes 2`` starts one, and of the two there is no trace: so any ``accelerate launch`` counts.
    """
    many = [
        f"{name}={os.environ[name]}"
        for name in WORLDS
        if os.environ.get(name, "1") not in ("", "1")
    ]
    return (
        many[0]
        if many
        else "accelerate launch"
        if "ACCELERATE_DYNAMO_BACKEND" in os.environ
        else ""
    )


def has_gpu() -> bool:
    """Whether the machine has an accelerator, told from its device files: asking torch would cost seconds."""
    return sys.platform != "linux" or any(
        glob.glob(pattern) for pattern in ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel*")
    )
