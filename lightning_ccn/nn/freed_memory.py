"""How the C library treats the memory that the tensors of a step leave behind."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Lets this process keep the memory of freed tensors on the CPU for the next ones.

    glibc gives large blocks back to the system at once, and the next step gets them back page by page, each page
    cleared. For tensors of a few megabytes that takes as long as the arithmetic. The process then stays as large as its
    largest step made it.

    Returns:
        Whether there is a glibc that can be told.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, -1))
