"""Time and memory of processes, this one and others."""

from __future__ import annotations

import multiprocessing
import os
import re
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from hashlgn.utils.progress import peak_memory

T = TypeVar("T")


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call returns, and its seconds."""
    began = time.perf_counter()
    answer = call()
    return answer, time.perf_counter() - began


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call, after one that does not count."""
    call()
    return statistics.median(timed(call)[1] for _ in range(repeats))


def memory(name: str, process: int | str = "self") -> int | None:
    """Bytes that a process holds (``VmRSS``) or held at most (``VmHWM``); beside Linux the latter, and of this alone.

    The peak is the process's own. That of ``getrusage``, which other systems have, starts from its parent's.
    """
    status = Path(f"/proc/{process}/status")
    if status.exists():
        found = re.search(rf"{name}:\s+(\d+)", status.read_text("utf-8"))
        return 1024 * int(found[1]) if found else 0
    return peak_memory() if process == "self" else None


def alone(function: Callable[..., T], *arguments: Any) -> T:
    """What a function of a module returns in a new process, whose peak of memory is its own.

    Raises:
        BrokenProcessPool: the process died.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_follow_parent) as pool:
        return pool.submit(function, *arguments).result()


def _follow_parent() -> None:
    """End this process as soon as the one that started it is gone, which may have been killed."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
