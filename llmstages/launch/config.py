"""How steps are started, never what they make: nothing in here enters a fingerprint.

What the launch group asks for travels with the frozen step. The training process compares it with
what the launcher gave it (train/distributed.py).
"""

from __future__ import annotations

import dataclasses as dc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmstages.core.config import build_config, to_plain
from llmstages.core.stage import option
from llmstages.launch.hardware import cores

DISTRIBUTED_BACKENDS = ("torchrun", "slurm")
# Where launchers say how many processes they have started
WORLD_SIZE_VARIABLES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
MAX_THREADS = 16  # more threads make small models slower
QUIET_LIBRARIES = {
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
DEVICE_FILES = ("nvidia[0-9]*", "kfd", "accel*")  # of GPUs, in /dev


@dc.dataclass(frozen=True)
class Slurm:
    """The job of a training step, with backend=slurm."""

    partition: str = option("", "partition; empty: the cluster's default")
    account: str = option("", "account that is charged; empty: yours")
    nodes: int = option(1, "nodes; each runs launch.processes of the training", ge=1)
    gpus: int = option(0, "GPUs per node, one per process; 0: train on the CPU", ge=0)
    cores: int = option(0, "CPU cores per node; 0: the cluster's default", ge=0)
    memory: float = option(0.0, "GB per node; 0: the cluster's default", ge=0)
    minutes: int = option(
        60, "time limit; training that needs longer saves, is requeued and continues", ge=1
    )
    save_seconds: int = option(
        120, "seconds before the time limit at which training must start to save", ge=0
    )
    requeues: int = option(20, "how often a job may ask to be started again", ge=0)
    everything: bool = option(
        False,
        "run every step as a job; otherwise training alone, the others on the runner's machine",
    )
    extra: dict[str, Any] = option(
        factory=dict, help="further parameters of sbatch: +launch.slurm.extra.qos=high"
    )


@dc.dataclass(frozen=True)
class Launch:
    """The ``launch`` group of a run."""

    backend: str = option(
        "inline",
        "inline: the runner's process; single: one process per step; torchrun: several for "
        "training; slurm: training as a job",
        choices=("inline", "single", *DISTRIBUTED_BACKENDS),
        renamed_from="how",
    )
    processes: int = option(
        1, "processes of a training step per node; only with backend=torchrun and slurm", ge=1
    )
    cpu: bool | None = option(None, "train on the CPU; unset: where the machine has no GPU")
    threads: int | None = option(
        None,
        f"CPU threads per process; unset: cores divided by processes, at most {MAX_THREADS}",
        ge=1,
    )
    deepspeed: dict[str, Any] = option(factory=dict, help="DeepSpeed configuration; empty for none")
    fsdp: dict[str, Any] = option(
        factory=dict, help="fsdp_config of transformers (FSDP2); empty for none"
    )
    slurm: Slurm = option(factory=Slurm, help="the job of a training step; only with backend=slurm")

    def __post_init__(self) -> None:
        build_config(Slurm, to_plain(self.slurm), "launch.slurm")  # checks the ranges of its fields
        if self.processes > 1 and self.backend not in DISTRIBUTED_BACKENDS:
            raise ValueError(
                f"processes={self.processes} needs backend=torchrun or slurm: "
                "choose launch=ddp, zero2, zero3, fsdp or slurm"
            )
        job = self.slurm
        if job.minutes * 60 <= job.save_seconds:
            raise ValueError(
                f"slurm.minutes={job.minutes} with slurm.save_seconds={job.save_seconds}: "
                "give a time limit that is longer than what saving may take"
            )
        if job.gpus and job.gpus != self.processes:
            raise ValueError(
                f"slurm.gpus={job.gpus} with processes={self.processes}: "
                f"one process drives one GPU, so set launch.processes={job.gpus}"
            )

    @property
    def strategy(self) -> str:
        """How a training step is distributed, in one word: none, ddp, zero1 to zero3, or fsdp."""
        if self.backend not in DISTRIBUTED_BACKENDS:
            return "none"
        if self.fsdp:
            return "fsdp"
        if self.deepspeed:
            stage = self.deepspeed.get("zero_optimization", {}).get("stage", 0)
            return f"zero{stage}"
        return "ddp" if self.process_count(trains=True) > 1 else "none"

    def process_count(self, trains: bool) -> int:
        """Processes of a step over all nodes. Only training stages have more than one."""
        if not trains or self.backend not in DISTRIBUTED_BACKENDS:
            return 1
        nodes = self.slurm.nodes if self.backend == "slurm" else 1
        return self.processes * nodes

    def as_job(self, trains: bool) -> bool:
        """Whether a step is sent to Slurm."""
        return self.backend == "slurm" and (trains or self.slurm.everything)

    def command(
        self, folder: Path, trains: bool, rendezvous: Sequence[str] = ("--standalone",)
    ) -> list[str]:
        """The command line that runs the worker on a frozen step.

        Args:
            folder: of the frozen step.
            trains: whether the stage may be distributed.
            rendezvous: options by which torchrun finds the other nodes.
        """
        worker = ["-m", "llmstages.pipeline.worker", str(folder)]
        if not self._is_distributed(trains):
            return [sys.executable, *worker]
        # `accelerate launch --cpu` starts one process, however many are asked for.
        torchrun = ["-m", "torch.distributed.run", *rendezvous]
        return [sys.executable, *torchrun, f"--nproc_per_node={self.processes}", *worker]

    def request_variables(self) -> dict[str, str]:
        """Variables by which training knows what the launch group asks for.

        The worker sets them from its frozen step, whatever started it.
        """
        return {
            "LLMSTAGES_LAUNCH": self.strategy,
            "LLMSTAGES_DEEPSPEED": json.dumps(self.deepspeed),
            "LLMSTAGES_FSDP": json.dumps(self.fsdp),
        }

    def environment(self, trains: bool = False) -> dict[str, str]:
        """Variables to set before anything heavy is imported.

        What the user has set already stays, except that one process sees one GPU.
        """
        processes = self.processes if trains else 1
        threads = self.threads or max(1, min(cores() // processes, MAX_THREADS))
        wanted = {"OMP_NUM_THREADS": str(threads), **QUIET_LIBRARIES, **self._device(trains)}
        if "LLMSTAGES_DEBUG" not in os.environ:
            wanted["PYTHONWARNINGS"] = "ignore"
        variables = {name: value for name, value in wanted.items() if name not in os.environ}
        if not self._is_distributed(trains) and not self.cpu:
            # With several GPUs in sight, the Trainer would silently multiply the batch by them.
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
            variables["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
        return variables

    def _device(self, trains: bool) -> dict[str, str]:
        """Variables that make the libraries train on the CPU, if they are to."""
        if self.cpu is None:
            on_cpu = not self._finds_gpu(trains)
        else:
            on_cpu = self.cpu
        variables = {}
        if on_cpu and self.deepspeed:
            # With ACCELERATE_USE_CPU, accelerate would silently leave DeepSpeed out.
            variables["DS_ACCELERATOR"] = "cpu"
        elif on_cpu:
            variables["ACCELERATE_USE_CPU"] = "true"
        if self.cpu:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        return variables

    def _finds_gpu(self, trains: bool) -> bool:
        """Whether the step will find a GPU where it runs."""
        if self.as_job(trains):
            return self.slurm.gpus > 0
        return has_gpu()

    def _is_distributed(self, trains: bool) -> bool:
        return trains and self.strategy != "none"


def foreign_launcher() -> str:
    """The variable by which another launcher shows that it started this process as one of several.

    It is empty if there is no such launcher. ``accelerate launch --cpu --num_processes 2`` starts
    one process and leaves no trace of the two, so any ``accelerate launch`` counts.
    """
    for name in WORLD_SIZE_VARIABLES:
        size = os.environ.get(name, "1")
        if size not in ("", "1"):
            return f"{name}={size}"
    if "ACCELERATE_DYNAMO_BACKEND" in os.environ:
        return "accelerate launch"
    return ""


def has_gpu() -> bool:
    """Whether the machine has an accelerator, by its device files; asking torch takes seconds."""
    if sys.platform != "linux":
        return True
    return any(any(Path("/dev").glob(pattern)) for pattern in DEVICE_FILES)
