"""How a process of ours keeps memory: what is freed stays at hand for the next batch."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 512 << 20


def keep_freed_memory() -> None:
    """Tell glibc not to hand memory back to the system after every batch, only to ask for it again, page by page.

    A fit allocates and frees the same tensors for each batch; having the pages zeroed anew took a sixth of its time.
    This is a setting of the whole process: for processes that are ours (a command, the worker), not for a library that
    somebody imports.
    Elsewhere than on glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
