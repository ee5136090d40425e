"""The journal of a service by size: how fast it starts, what histories cost, how fast events are written and read.

    python benchmarks/journal.py --events 1000000

Users and items of the events are drawn uniformly. Half of the users are the model's, without stored histories; all
items are.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from hashlgn.data import Ids
from hashlgn.experiments.common.measure import timed
from hashlgn.serve.journal import Event, Journal, LiveHistories, Stored
from hashlgn.serve.journal.pairs import snapshot_file

T = TypeVar("T")
_BLOCK = 100_000
_COLUMNS = ("event_id", "user", "item", "type", "weight", "time")
_NOW = 1_767_225_600_000_000


def main() -> None:
    """Fill a journal, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument(
        "--folder", type=Path, help="on the disk to measure; the system's for temporary files by default"
    )
    chosen = parser.parse_args()
    events, users, items = chosen.events, chosen.users, chosen.items
    found: dict[str, float] = {}

    def step(name: str, work: Callable[[], T]) -> T:
        used = time.process_time()
        answer, seconds = timed(work)
        print(f"{name}: {seconds:.2f} s, {time.process_time() - used:.2f} s of CPU", flush=True)
        return answer

    known = users // 2 + 1
    stored = Stored(np.zeros(known + 1, np.int64), np.empty(0, np.int32))

    def bind(journal: Journal) -> LiveHistories:
        return journal.bind_parts(Ids.range(items), Ids.range(known), stored)

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        path = Path(place) / "events.db"
        with Journal.open(path) as journal:
            step("fill", lambda: _fill(journal, events, users, items, rng))
            found["bytes_per_event_on_disk"] = path.stat().st_size / events
            step("snapshot", journal.snapshot)
        pairs = snapshot_file(path)
        if pairs.exists():
            found["snapshot_bytes_per_event"] = pairs.stat().st_size / events
        journal = step("open, every page checked", lambda: Journal.open(path))
        with journal:
            view = step("histories of all users", lambda: bind(journal))
            found["bytes_per_event_in_memory"] = view.nbytes() / events
            rates = _rates(journal, view, users, items, rng)
        pairs.unlink(missing_ok=True)
        journal = step("open again", lambda: Journal.open(path))
        with journal:
            step("histories from the events alone", lambda: bind(journal))
    for name, value in (found | rates).items():
        print(f"{name}: {value:.4g}")


def _fill(journal: Journal, events: int, users: int, items: int, rng: np.random.Generator) -> None:
    """Rows as they would have been written, without the cost of checking each."""
    for start in range(0, events, _BLOCK):
        count = min(_BLOCK, events - start)
        user, item = rng.integers(0, users, count).tolist(), rng.integers(0, items, count).tolist()
        numbers = range(start, start + count)
        rows = [(f"{n:016x}", u, i, "view", 1.0, _NOW + n) for n, u, i in zip(numbers, user, item, strict=True)]
        journal.restore("events", _COLUMNS, rows)


def _rates(journal: Journal, view: LiveHistories, users: int, items: int, rng: np.random.Generator) -> dict[str, float]:
    """Events per second in requests of 1,000, and requests of one event that come at once; milliseconds until one event
    is acknowledged, and microseconds to read one history, medians.
    """
    user, item = rng.integers(0, users, 20_000).tolist(), rng.integers(0, items, 20_000).tolist()
    sent = [Event(u, i, type="view") for u, i in zip(user, item, strict=True)]

    def submit(parts: list[list[Event]]) -> None:
        for done in [journal.submit(part) for part in parts]:
            done.result()

    thousands = [sent[start : start + 1000] for start in range(0, len(sent), 1000)]
    waits = [timed(partial(journal.append, [Event(u, i)]))[1] for u, i in zip(user[:200], item[:200], strict=True)]
    reads = [timed(partial(view.row, u))[1] for u in rng.integers(0, users, 5000).tolist()]
    return {
        "events_per_second": len(sent) / timed(partial(submit, thousands))[1],
        "requests_per_second": 5000 / timed(partial(submit, [[event] for event in sent[:5000]]))[1],
        "acknowledged_ms": float(np.median(waits)) * 1e3,
        "row_us": float(np.median(reads)) * 1e6,
    }


if __name__ == "__main__":
    main()
