"""Memory that a training gives back and asks for again at every step."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

__all__ = ["kept_memory"]

# Parameters of glibc's mallopt(3), and what is left behind: where its own adjustment of the last two ends.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_AFTER = {_MMAP_MAX: 65_536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Have the process keep what is freed within this block; at its end, it goes back to the system.

    glibc returns every block of more than 32 MB as soon as it is freed, and has it mapped anew, page by page and
    zeroed, when the next one is asked for. A step on embeddings of millions of nodes spends up to half of its time on
    that. It costs memory: free blocks lie between used ones. Elsewhere than on glibc nothing is done.

    The settings are those of the whole process, other threads included. At the end they are what glibc's own adjustment
    arrives at, whatever they were before: it does not tell, so ``MALLOC_`` variables of the environment are overruled.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    mallopt, trim = (getattr(libc, name, None) for name in ("mallopt", "malloc_trim"))
    if mallopt is None or trim is None:
        yield
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        for parameter, value in _AFTER.items():
            mallopt(parameter, value)
        trim(0)
