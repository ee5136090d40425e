"""Locks that are free again in copies and in the child of a fork."""

from __future__ import annotations

import copy
import os
import pickle
import threading

import pytest

from hashlgn.utils.locks import Lock


def free(lock: Lock) -> bool:
    """Whether another thread gets the lock at once."""
    got = threading.Event()

    def take() -> None:
        with lock:
            got.set()

    threading.Thread(target=take, daemon=True).start()
    return got.wait(0.3)


def test_a_lock_locks_and_its_copies_are_free() -> None:
    lock = Lock()
    with lock:
        assert not free(lock)
        assert free(pickle.loads(pickle.dumps(lock))) and free(copy.deepcopy(lock)) and free(copy.copy(lock))
    assert free(lock)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_lock_that_another_thread_held_is_free_in_the_child_of_a_fork() -> None:
    lock, held, done = Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if free(lock) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    done.set()
    thread.join()
