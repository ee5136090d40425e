"""The compiled kernel against the limits of the machine, and what an index costs in memory, at the start and to change.

    OMP_NUM_THREADS=1 python benchmarks/kernel.py limits --items 1000000
    OMP_NUM_THREADS=1 python benchmarks/kernel.py index --items 10000000

``limits``: the stages of a search, the look-ups of its scan, the bytes a second of a single query beside what the
machine reads at most, the cost of leaving 100 seen items out, and two threads beside one. ``index``: bytes per item,
build, save, open, append and remove, and the memory that several processes have of their own when they share one
index. Codes are random, times are medians, and everything runs on one thread unless it says otherwise.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hashlgn.experiments.common.measure import median_seconds, timed
from hashlgn.experiments.common.tables import markdown
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems
from hashlgn.search.kernel import Kernel

WIDTH, BATCH, K = 64, 256, 100
PROCESSES = 3

# What one more process that searches the index has of its own, and what it shares.
WORKER = """
import sys, numpy as np
from hashlgn.search.kernel import Kernel
index = Kernel.open(sys.argv[1], threads=1, verify=False)
index.search(np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32), 100)
print("ready", flush=True)
sys.stdin.readline()
found = {}
for line in open("/proc/self/smaps"):
    head = line.split()
    if "-" in head[0] and not head[0].endswith(":"):
        ours = sys.argv[1] in line
    elif ours and head[0] in ("Rss:", "Pss:"):
        found[head[0]] = found.get(head[0], 0) + int(head[1])
print(found["Rss:"] / 1024, found["Pss:"] / 1024)
"""


def made(n: int, bits: int, *, scaled: bool) -> tuple[CodedItems, np.ndarray[Any, Any]]:
    """Random codes and queries."""
    rng = np.random.default_rng(0)
    decoder = CodebookDecoder((rng.standard_normal((bits // 4, 16, WIDTH)) / 8).astype(np.float32))
    scale = rng.uniform(0.9, 1.1, n).astype(np.float16) if scaled else None
    packed = rng.integers(0, 256, (n, bits // 8), np.uint8)
    return CodedItems(packed, decoder, scale), rng.standard_normal((BATCH, WIDTH)).astype(np.float32)


def limits(n: int) -> None:
    """Print stages, look-ups and bytes."""
    whole = np.zeros(1 << 26, np.uint64)  # 512 MiB: beyond every cache
    bandwidth = whole.nbytes / median_seconds(whole.max, 7)
    print(f"{Kernel.instruction_sets()[0]}; one thread reads {bandwidth / 1e9:.1f} GB/s\n")
    rows = []
    for bits in (64, 128, 256):
        for scaled in (False, True):
            items, queries = made(n, bits, scaled=scaled)
            one, two = Kernel(items, 1), Kernel(items, 2)
            rng = np.random.default_rng(1)
            seen = np.sort(rng.integers(0, n, (BATCH, 100)), axis=1)
            exclude = Exclusion.build(n, seen=(np.arange(BATCH + 1) * 100, seen.ravel()))
            times: dict[str, list[float]] = {}
            for _ in range(5):  # in turns, so that a slow minute falls on all
                for name, call in {
                    "plain": partial(one.search, queries, K),
                    "seen": partial(one.search, queries, K, exclude),
                    "two": partial(two.search, queries, K),
                    "single": partial(one.search, queries[:1], K),
                }.items():
                    times.setdefault(name, []).append(median_seconds(call, 3))
            plain, with_seen, both, single = (
                statistics.median(times[name]) for name in ("plain", "seen", "two", "single")
            )
            found = one.profile(queries, K)
            stages = {"bytes of table": "quantize", "scan": "scan", "rescoring and hits": "rescore", "order": "order"}
            rows.append(
                {
                    "codes": f"{bits} bits{' + scale' * scaled}",
                    "µs per query": f"{1e6 * plain / BATCH:.0f}",
                    **{column: f"{1e6 * found[name] / BATCH:.1f}" for column, name in stages.items()},
                    "rescored": f"{found['rescored'] / BATCH:.0f}",
                    "look-ups a ns": f"{n * bits / 4 * BATCH / found['scan'] / 1e9:.0f}",
                    "100 seen": f"{100 * (with_seen / plain - 1):+.1f}%",
                    "two threads": f"{plain / both:.2f}x",
                    "single query, µs": f"{1e6 * single:.0f}",
                    "its GB/s": f"{n * bits / 8 / single / 1e9:.1f}",
                }
            )
    print(markdown(rows))


def index(n: int) -> None:
    """Print what an index of 128-bit codes costs."""
    for scaled in (False, True):
        items, queries = made(n, 128, scaled=scaled)
        codes = 16 + 2 * scaled
        built, took = timed(partial(Kernel, items, 1))
        print(f"\n{n:,} items, 128 bits{' + scale' * scaled}: built in {took:.2f} s", flush=True)
        print(f"bytes per item: {built.nbytes / n:.2f}, {built.nbytes / n / codes:.3f} of code{' and scale' * scaled}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            saved, took = timed(partial(built.save, path))
            print(f"saved in {took:.2f} s, {saved.stat().st_size / n:.2f} bytes per item")
            for verify in (True, False):
                took = median_seconds(partial(Kernel.open, path, 1, verify=verify), 3)
                print(f"opened in {1e3 * took:.1f} ms, checksums {'compared' if verify else 'not compared'}")
            opened = Kernel.open(path, 1, verify=False)
            before, after = built.search(queries, K), opened.search(queries, K)
            print(
                "answers equal:",
                np.array_equal(before.items, after.items) and np.array_equal(before.scores, after.scores),
            )
            more = items.take(np.arange(1000))
            new, took = timed(partial(opened.append, more.packed, more.scale))
            removed = timed(partial(opened.remove, new))[1]
            print(f"1,000 items appended in {1e3 * took:.2f} ms; removed in {1e3 * removed:.2f} ms")
            shared(path)


def shared(path: Path) -> None:
    """Print the memory of several processes that have the same index open."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(PROCESSES)
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    answers = []
    for worker in workers:
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
        answers.append([float(number) for number in worker.stdout.readline().split()])
    held, own = (statistics.mean(column) for column in zip(*answers, strict=True))
    print(f"{PROCESSES} processes beside this one: each sees {held:.0f} MiB of the index, its share is {own:.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("limits", "index"))
    parser.add_argument("--items", type=int, default=1_000_000)
    chosen = parser.parse_args()
    {"limits": limits, "index": index}[chosen.what](chosen.items)
