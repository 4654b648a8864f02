"""Settings of the process's memory, for all that serve: what malloc keeps, what the garbage
collector looks at. docs/architecture.md, "Garbage collection and memory", says why.
"""

import ctypes
import gc
from typing import Final

__all__ = ["keep_freed_memory", "settle_garbage_collection"]

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_MMAP_THRESHOLD_BYTES: Final = 32 << 20  # the most that glibc takes
_TRIM_THRESHOLD_BYTES: Final = 64 << 20


def keep_freed_memory() -> None:
    """Keep up to 64 MiB of freed memory, instead of giving it back to the kernel at once.

    A body of some 100 KB passes through several buffers of its size. By default, glibc asks the
    kernel for each, and the kernel clears each page of it at its first use, which takes several
    times as long as all the copying. Does nothing where the C library is another one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)


def settle_garbage_collection() -> None:
    """Have the garbage collector look no more at what is there by now: it stays."""
    gc.collect()
    gc.freeze()
