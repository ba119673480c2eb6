"""How much memory of the machine is free for this process."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = (  # control groups of a container, version 2 and 1: (limit, in use, statistics)
    ("memory.max", "memory.current", "memory.stat"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
    ),
)


def free() -> int:
    """Bytes that this process may still take on the machine and in its control group."""
    return min(free_of_machine(), free_of_group())


def free_of_machine() -> int:
    """Bytes that are free, cached files included; very many where the system does not say."""
    file = Path("/proc/meminfo")
    if file.is_file():
        for line in file.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 1 << 62


def free_of_group(root: Path = Path("/sys/fs/cgroup")) -> int:
    """What the control group of the process leaves; cached files count as free."""
    for limit_name, used_name, statistics_name in CGROUPS:
        limit_file, used_file = root / limit_name, root / used_name
        if not (limit_file.is_file() and used_file.is_file()):
            continue
        limit, used = limit_file.read_text().strip(), used_file.read_text().strip()
        if not (limit.isdigit() and used.isdigit()):  # "max": no limit
            continue
        return max(0, int(limit) - int(used) + _cached_files(root / statistics_name))
    return 1 << 62


def _cached_files(statistics: Path) -> int:
    if not statistics.is_file():
        return 0
    for line in statistics.read_text().splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0
