"""Keep freed memory in the process while tensors come and go on a CPU.

The malloc of glibc maps every block above 32 MB anew and gives it back when it is freed, so the
kernel zeroes the pages of each large tensor (the logits of a batch, say) in each update. Kept
blocks made LoRA of a 135 M model on two cores a quarter faster (rows of 512 tokens,
benchmarks/finetune.py), with the same bits.

Kept blocks do not always fit the next ones: with batches of many lengths they grew to twice what an
update needs. So training keeps them only where there is room for that, and gives them back where
they are too large a part of what is free (``check_kept``).

Left out on purpose: other allocators and systems, and processes whose user has tuned malloc.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from llmstages.core import memory

# Parameters of mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
NEVER = -1  # as TRIM_THRESHOLD
DEFAULT_TRIM = 128 * 1024
DEFAULT_MMAP_MAX = 65536
LARGEST_MMAP_THRESHOLD = 32 << 20  # where glibc's own threshold ends when it adapts
# Who sets one of these has decided how memory is kept.
OWN_SETTINGS = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")

# Kept blocks may take this share of the memory that would be free without them.
LARGEST_SHARE = 0.15

# Blocks are kept where this many times the peak of the process would fit.
ROOM = 2.5
KILOBYTE = 1024

_depth = 0
_is_kept = False


class _Usage(ctypes.Structure):
    """What mallinfo2(3) returns: bytes, of which ``fordblks`` are free blocks that are kept."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


@contextmanager
def kept_memory(measured: bool = False) -> Iterator[None]:
    """Freed blocks stay in the process inside of this, and go back to the system after it.

    Args:
        measured: begin at the first ``check_kept``, and only if memory has room for blocks that do
            not fit: training calls it after each update.
    """
    global _depth
    libc = _glibc()
    if libc is None or _depth:
        yield
        return
    _depth += 1
    if not measured:
        _keep(libc)
    try:
        yield
    finally:
        _depth -= 1
        _stop(libc)


def check_kept() -> None:
    """Begin to keep blocks, or return those that are too many; inside of kept_memory()."""
    libc = _glibc() if _depth else None
    if libc is None or not hasattr(libc, "mallinfo2"):  # glibc 2.33
        return
    free = memory.free()
    if not _is_kept:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE
        if ROOM * peak < free + peak:
            _keep(libc)
        return
    libc.mallinfo2.restype = _Usage
    kept = libc.mallinfo2().fordblks
    if kept > LARGEST_SHARE * (free + kept):
        libc.malloc_trim(0)


def _keep(libc: Any) -> None:
    global _is_kept
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, NEVER)
    _is_kept = True


def _stop(libc: Any) -> None:
    global _is_kept
    libc.mallopt(MMAP_MAX, DEFAULT_MMAP_MAX)
    libc.mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
    libc.mallopt(TRIM_THRESHOLD, DEFAULT_TRIM)
    libc.malloc_trim(0)
    _is_kept = False


def _glibc() -> Any:
    """The C library, if it is glibc with its own malloc; None otherwise."""
    if not sys.platform.startswith("linux") or any(map(os.environ.get, OWN_SETTINGS)):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "gnu_get_libc_version") else None
    except OSError:
        return None
