"""Engines in other processes: after ``fork``, pickled, and sharing one mapped file."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.search import SEARCHERS, InvertedFile, Kernel

ENGINES = {name: make for name, make in SEARCHERS.items() if Kernel.instruction_sets() or name not in ("kernel", "ivf")}
if "ivf" in ENGINES:
    ENGINES["ivf"] = partial(InvertedFile, lists=50, probes=5)


def catalogue(engine: str, n: int = 5000) -> tuple[CodedItems | FloatItems, np.ndarray]:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((64, 16)).astype(np.float32)
    if engine == "flat":
        return FloatItems(rng.standard_normal((n, 16)).astype(np.float32)), queries
    decoder = CodebookDecoder(rng.standard_normal((16, 16, 16)).astype(np.float32))
    return CodedItems(rng.integers(0, 256, (n, 8), np.uint8), decoder), queries


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("engine", ENGINES)
def test_the_child_of_a_fork_answers_after_its_parent_has(engine: str) -> None:
    """With several threads in the parent; the child is killed where it does not answer in time."""
    items, queries = catalogue(engine)
    searcher = ENGINES[engine](items, 4)
    want = searcher.search(queries, 10)
    above = searcher.search_above(queries, float(np.median(want.scores)))
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        found = searcher.search(queries, 10)
        again = searcher.search_above(queries, float(np.median(want.scores)))
        built = ENGINES[engine](items, 4).search(queries, 10)
        equal = [
            np.array_equal(found.items, want.items) and np.array_equal(found.scores, want.scores),
            np.array_equal(again.items, above.items),
            np.array_equal(built.items, want.items),
        ]
        os._exit(0 if all(equal) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_searcher_that_has_answered_can_be_pickled_and_copied(engine: str) -> None:
    items, queries = catalogue(engine)
    searcher = ENGINES[engine](items, 1)
    want = searcher.search(queries, 10)
    for again in (pickle.loads(pickle.dumps(searcher)), copy.deepcopy(searcher)):
        found = again.search(queries, 10)
        np.testing.assert_array_equal(found.items, want.items)
        np.testing.assert_array_equal(found.scores, want.scores)


PRIVATE = """
import sys, numpy as np
from hashlgn.search import Kernel
from hashlgn.utils.tensors import read_tensors

def private():
    total, ours = 0, 0
    for line in open("/proc/self/smaps"):
        head = line.split()
        if "-" in head[0] and not head[0].endswith(":"):
            mapped = sys.argv[1] in line
        elif head[0] in ("Private_Dirty:", "Private_Clean:"):
            total += int(head[1]) if head[0] == "Private_Dirty:" else 0
            ours += int(head[1]) if mapped and head[0] == "Private_Dirty:" else 0
    return total, ours

query = np.ones((1, 16), np.float32)
small = Kernel.open(sys.argv[2], 1)
small.search(query, 10)  # whatever a first search loads is there
before = private()[0]
index = Kernel.open(sys.argv[1], 1)
index.search(query, 10)
after, ours = private()
print(after - before, ours)
"""


@pytest.mark.skipif(not Kernel.instruction_sets() or sys.platform != "linux", reason="needs the kernel and smaps")
def test_a_process_that_opens_a_catalogue_has_few_pages_of_its_own(tmp_path: Path) -> None:
    items, _ = catalogue("kernel", 1_000_000)
    file = Kernel(items, 1).save(tmp_path / "large")
    small = Kernel(items.take(np.arange(1000)), 1).save(tmp_path / "small")
    assert file.stat().st_size > 8_000_000
    done = subprocess.run([sys.executable, "-c", PRIVATE, file, small], check=True, capture_output=True, text=True)
    grown, dirty = map(int, done.stdout.split())
    assert dirty == 0 and grown < 2000  # kB, of 8 MB that were searched
