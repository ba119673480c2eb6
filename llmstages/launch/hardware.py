"""The machine for which ``llmstages plan`` counts time, memory and money. Nothing is run on it.

Nothing in here enters a fingerprint: a result is the same wherever it was made. The default is the
machine at hand.
"""

from __future__ import annotations

import dataclasses as dc
import os
from pathlib import Path

from llmstages.core.stage import option

# Limits of a control group (a container), version 2 and 1
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dc.dataclass(frozen=True)
class Hardware:
    """The ``hardware`` group of a run. The default is this machine's CPU as one accelerator.

    The default rates of a core are those of torch.mm on one thread of an AMD EPYC with AVX-512. The
    default MFU is what training a model of one million parameters reached on two such threads (67
    of 140 GFLOP/s in float32).
    """

    accelerator: str = option(
        "cpu", "name; with cpu, rates are those of one core and memory is that of the machine"
    )
    count: int = option(1, "accelerators, each with a process of its own", ge=1)
    memory_gb: float = option(
        0.0, "memory of each in GB (10^9 bytes); 0: what this machine has", ge=0
    )
    bf16_tflops: float = option(
        0.19, "peak of dense bfloat16 matrix products, TFLOP/s of each", gt=0
    )
    fp32_tflops: float = option(
        0.073,
        "peak of float32 matrix products as torch computes them by default (no TF32), TFLOP/s each",
        gt=0,
    )
    mfu: float = option(
        0.48,
        "share of the peak that training is assumed to reach (model FLOPs utilization)",
        gt=0,
        le=1,
    )
    price: float = option(0.0, "US dollars per hour for each", ge=0)

    @property
    def is_cpu(self) -> bool:
        """Whether an accelerator is the machine's processor."""
        return self.accelerator == "cpu"

    @property
    def name(self) -> str:
        """For people: ``8 x h100``, ``this machine's 2 cores``."""
        if self.is_cpu and self.count == 1:
            return f"this machine's {cores()} cores"
        return f"{self.count} x {self.accelerator}"

    def memory(self) -> float:
        """Bytes of each accelerator; 0 if the system does not say."""
        return self.memory_gb * 1e9 or machine_memory()

    def speed(self, bf16: bool) -> float:
        """FLOP/s that training is assumed to reach on all accelerators together."""
        tflops = self.bf16_tflops if bf16 else self.fp32_tflops
        peak = tflops * 1e12
        if self.is_cpu:
            peak *= cores()
        return self.count * peak * self.mfu


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_memory() -> float:
    """Bytes of memory that this process may use; 0 if the system does not say.

    It is the memory of the machine, or less if the control group of the process allows less.
    """
    limits = []
    if "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in map(Path, MEMORY_LIMITS):
        if not file.is_file():
            continue
        text = file.read_text().strip()
        if text.isdigit():  # otherwise "max"
            limits.append(int(text))
    return float(min(limits, default=0))
