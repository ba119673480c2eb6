"""Keep freed memory in the process while tensors come and go on a CPU.

The malloc of glibc maps every block above 32 MB anew and gives it back when it is freed, so the
kernel zeroes the pages of each large tensor (the logits of a batch, say) in each update. Kept
blocks made LoRA of a 135 M model on two cores a quarter faster (rows of 512 tokens,
benchmarks/finetune.py), with the same bits.

Left out on purpose: other allocators and systems, and processes whose user has tuned malloc.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Parameters of mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
NEVER = -1  # as TRIM_THRESHOLD
DEFAULT_TRIM = 128 * 1024
DEFAULT_MMAP_MAX = 65536
LARGEST_MMAP_THRESHOLD = 32 << 20  # where glibc's own threshold ends when it adapts
# Who sets one of these has decided how memory is kept.
OWN_SETTINGS = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")

_depth = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """Freed blocks stay in the process inside of this, and go back to the system after it."""
    global _depth
    libc = _glibc()
    if libc is None or _depth:
        yield
        return
    _depth += 1
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        _depth -= 1
        libc.mallopt(MMAP_MAX, DEFAULT_MMAP_MAX)
        libc.mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        libc.mallopt(TRIM_THRESHOLD, DEFAULT_TRIM)
        libc.malloc_trim(0)


def _glibc() -> Any:
    """The C library, if it is glibc with its own malloc; None otherwise."""
    if not sys.platform.startswith("linux") or any(map(os.environ.get, OWN_SETTINGS)):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "gnu_get_libc_version") else None
    except OSError:
        return None
