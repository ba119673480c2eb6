"""What ``llmstages plan`` counts time, memory and money with. It names a machine to think about; nothing is run on it.

Nothing in here enters a fingerprint: a result is the same wherever it was made. The default is the machine at hand.
"""

from __future__ import annotations

import dataclasses as dc
import os
from pathlib import Path

from llmstages.core.stage import option


@dc.dataclass(frozen=True)
class Hardware:
    """The ``hardware`` group of a run. The defaults are the CPU of this machine, all of its cores as one accelerator.

    The rates of a core are those of torch.mm on one thread of an AMD EPYC with AVX-512; the share is what training of
    one million parameters reached on two such threads (67 of 140 GFLOP/s in float32).
    """

    accelerator: str = option(
        "cpu", "name; with cpu, rates are those of one core and memory is that of the machine"
    )
    count: int = option(1, "accelerators, each a process of its own")
    memory_gb: float = option(0.0, "memory of each in GB (10^9 bytes); 0: what this machine has")
    bf16_tflops: float = option(0.19, "peak of dense bfloat16 matrix products, TFLOP/s each")
    fp32_tflops: float = option(
        0.073,
        "peak of float32 matrix products as torch computes them by default (no TF32), TFLOP/s each",
    )
    mfu: float = option(
        0.48, "share of the peak that training is assumed to reach (model FLOP utilisation)"
    )
    price: float = option(0.0, "US dollars an hour for each")

    def __post_init__(self) -> None:
        for name in ("count", "bf16_tflops", "fp32_tflops", "mfu"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")

    @property
    def is_cpu(self) -> bool:
        """Whether an accelerator is the machine's processor."""
        return self.accelerator == "cpu"

    @property
    def name(self) -> str:
        """For people: ``8 x h100``, ``this machine's 2 cores``."""
        return (
            f"this machine's {cores()} cores"
            if self.is_cpu and self.count == 1
            else f"{self.count} x {self.accelerator}"
        )

    def memory(self) -> float:
        """Bytes of each accelerator; 0 where the system does not tell."""
        return self.memory_gb * 1e9 or machine_memory()

    def speed(self, bf16: bool) -> float:
        """FLOP/s that training is assumed to reach on all accelerators together."""
        peak = (
            (self.bf16_tflops if bf16 else self.fp32_tflops)
            * 1e12
            * (cores() if self.is_cpu else 1)
        )
        return self.count * peak * self.mfu


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory() -> float:
    """Bytes of memory this process may use: the machine's, or less where its control group says so; 0 if not told."""
    found = []
    if "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(limit).read_text().strip() if Path(limit).is_file() else "max"
        found += [int(text)] if text.isdigit() else []
    return float(min(found, default=0))
