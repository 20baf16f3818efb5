"""Gives back the memory of ended runs, of which a process of the tests has dozens."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

GROWN = 256  # MiB since the last time, from which it pays
PAGE = 4096  # bytes
_before = 0


def collect_if_grown() -> None:
    """Gives memory back if this process has grown.

    Trainer and module refer to each other, which Python looks for rarely, and training keeps what it frees, see
    `nn.freed_memory`.
    """
    global _before
    if _mebibytes() <= _before + GROWN:
        return
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    _before = _mebibytes()


def _mebibytes() -> int:
    """Memory of this process; 0 where the system does not say."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * PAGE >> 20 if file.exists() else 0
