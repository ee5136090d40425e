"""A lock for objects that are pickled, copied and used after ``fork``."""

from __future__ import annotations

import os
import threading
import weakref

__all__ = ["Lock"]


class Lock:
    """A lock that is copied and pickled as a new, free one, and is free in the child of a ``fork``.

    The child has none of the parent's other threads, so nobody would ever release what they held. It is for data that
    is whole at every moment, such as a state that is replaced in one step.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()


_LOCKS: weakref.WeakSet[Lock] = weakref.WeakSet()


def _free() -> None:
    for lock in list(_LOCKS):
        lock._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free)
