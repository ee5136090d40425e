"""What must end: selection on keys in a bad order or equal, searches that lack memory, and Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from hashlgn._kernel import compiled
from hashlgn.errors import ArgumentError
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems
from hashlgn.search import SEARCHERS, Hits, Kernel, build_searcher

raw = compiled()
SETS = Kernel.instruction_sets()
pytestmark = pytest.mark.skipif(raw is None, reason="the search kernel was not compiled when HashLGN was installed")


def numbered(values: np.ndarray) -> CodedItems:
    """Items whose score, for the query 1, is the value."""
    packed = np.stack([values & 255, values >> 8 & 255, values >> 16], axis=1).astype(np.uint8)
    codewords = np.zeros((6, 16, 1), np.float32)
    codewords[:, :, 0] = np.arange(16) * 16.0 ** np.arange(6)[:, None]
    return CodedItems(packed, CodebookDecoder(codewords))


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("order", ["rising", "falling", "rise and fall", "fall and rise", "waves", "equal"])
def test_answers_whose_scores_stand_in_a_bad_order(isa: str, order: str) -> None:
    v = np.arange(100_000)
    values = {
        "rising": v,
        "falling": v[::-1],
        "rise and fall": np.concatenate((v[::2], v[1::2][::-1])),
        "fall and rise": np.concatenate((v[::2][::-1], v[1::2])),
        "waves": (v % 100) * 1000 + np.where(v // 100 % 2, v // 100, 999 - v // 100),
        "equal": np.zeros_like(v),
    }[order]
    kernel, query = Kernel(numbered(values), 1, isa=isa), np.ones((1, 1), np.float32)
    want = np.lexsort((v, -values))

    def check(hits: Hits, count: int) -> None:
        np.testing.assert_array_equal(hits.items, want[:count])
        np.testing.assert_array_equal(hits.scores, values[want[:count]].astype(np.float32))

    check(kernel.search_above(query, -1.0), 100_000)
    for k in (1, 1000, 50_000, 100_000):
        check(kernel.search(query, k), k)


@pytest.mark.parametrize("isa", SETS)
def test_an_order_that_names_one_item_everywhere_ends(isa: str) -> None:
    segment = raw.Segment(
        rows=np.zeros((800, 2, 64), np.uint8),
        starts=np.zeros(1, np.uint32),
        counts=np.full(1, 100_000, np.uint32),
        first=0,
        order=np.full(102_400, 7, np.uint32),
    )
    for k, count in ((0, 100_000), (5, 5), (20_000, 20_000)):
        tables = np.ones((1, 2, 16), np.float32)
        _, found, _, _ = raw.search(segments=[segment], tables=tables, items=100_000, k=k, threshold=-1.0, isa=isa)
        assert (found == 7).all() and len(found) <= count


# A process with little memory: too many answers for it, in one thread and in several.
STARVED = """
import resource, sys
import numpy as np
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.items import CodedItems
from hashlgn.search import Kernel
packed, codewords = np.zeros((200_000, 1), np.uint8), np.ones((2, 16, 1), np.float32)
kernel = Kernel(CodedItems(packed, CodebookDecoder(codewords)), int(sys.argv[1]))
queries = np.ones((2_000, 1), np.float32)
kernel.search(queries[:2], 3)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000, used + 200_000_000))
try:
    kernel.search_above(queries, -1.0)
except MemoryError:
    print("MemoryError")
print(len(kernel.search(queries[:2], 3).items))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
@pytest.mark.parametrize("threads", [1, 3])
def test_too_little_memory_is_a_memory_error(threads: int) -> None:
    done = subprocess.run([sys.executable, "-c", STARVED, str(threads)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["MemoryError", "6"]), done.stderr


# A search of hours, a part of the catalogue a million times, that gets Ctrl-C soon after its start.
ENDLESS = """
import os, signal, sys, threading
import numpy as np
from hashlgn._kernel import compiled
raw, n = compiled(), 128_000
rows, counts = np.zeros((1000, 16, 64), np.uint8), np.full(1, n, np.uint32)
segment = raw.Segment(rows=rows, starts=np.zeros(1, np.uint32), counts=counts, first=0)
tables = np.random.default_rng(0).standard_normal((int(sys.argv[1]), 16, 16)).astype(np.float32)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts these tests with & has it ignored
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    raw.search([segment] * 1_000_000, tables, items=n, k=3, threshold=0.0, threads=int(sys.argv[2]))
except KeyboardInterrupt:
    print("KeyboardInterrupt")
print(len(raw.search([segment], tables[:1], items=n, k=3, threshold=0.0)[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
@pytest.mark.parametrize(("queries", "threads"), [(1, 1), (200, 1), (200, 3)])
def test_ctrl_c_ends_a_search(queries: int, threads: int) -> None:
    command = [sys.executable, "-c", ENDLESS, str(queries), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, ["KeyboardInterrupt", "3"]), done.stderr


@pytest.mark.parametrize("name", [name for name in SEARCHERS if name != "flat"])
def test_arguments_of_strange_types_are_refused_in_one_line(name: str) -> None:
    items = numbered(np.arange(40))
    searcher, query = build_searcher(items, name, 1), np.ones((1, 1), np.float32)
    for k in (np.array([3]), np.True_, "3", 3.0, None, [3]):
        with pytest.raises(ArgumentError, match="k must be a positive integer"):
            searcher.search(query, k)
    for threshold in ("0.5", np.array([0.5]), None, True, 1j):
        with pytest.raises(ArgumentError, match="threshold must be a number"):
            searcher.search_above(query, threshold)
    assert len(searcher.search(query, np.int8(3)).items) == 3
    for threads in (2**31, 2**70, 0, -1, 1.5, "2"):
        with pytest.raises(ArgumentError, match="threads must be"):
            build_searcher(items, name, threads)
    with pytest.raises(ArgumentError, match="queries must not be masked"):
        searcher.search(np.ma.masked_array(query, mask=True), 3)
    with pytest.raises(ArgumentError, match="queries must have shape"):
        searcher.search([[1.0], [2.0, 3.0]], 3)
    with pytest.raises(ArgumentError, match="seen must hold item numbers"):
        searcher.search(query, 3, Exclusion(40, np.array([0, 1]), np.array([-1])))


@pytest.mark.parametrize("engine", [[], {}, None, 3, np.array(["kernel"])])
def test_engines_of_strange_types_are_refused_in_one_line(engine: object) -> None:
    with pytest.raises(ArgumentError, match="engine must be one of"):
        build_searcher(numbered(np.arange(40)), engine)
