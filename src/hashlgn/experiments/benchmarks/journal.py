"""The journal of a service by size: how fast it starts, what histories cost, how fast events are written and read."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hashlgn.data import Ids
from hashlgn.errors import positive_int
from hashlgn.serve.journal import Event, Journal, LiveHistories, Stored
from hashlgn.serve.journal.pairs import snapshot_file
from hashlgn.utils.provenance import provenance

__all__ = ["bench_journal"]

_BLOCK = 100_000
_COLUMNS = ("event_id", "user", "item", "type", "weight", "time")
_NOW = 1_767_225_600_000_000


def bench_journal(
    events: int,
    users: int,
    items: int,
    *,
    folder: Path | None = None,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Fill a journal, then measure.

    Args:
        events: how many it holds, of users and items drawn uniformly.
        users: how many users; half of them are the model's, without stored histories.
        items: how many items, all of them the model's.
        folder: where the file lies; the system's for temporary files where None.
        seed: of the draws.
        say: takes a line for each measurement.

    Returns:
        Seconds of each step, bytes and rates, ready for JSON.
    """
    for name, value in (("events", events), ("users", users), ("items", items)):
        positive_int(name, value)
    found: dict[str, Any] = {"events": events, "users": users, "items": items}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began, used = time.perf_counter(), time.process_time()
        answer = work()
        found[name] = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used}
        say(f"{name}: {found[name]['seconds']:.2f} s, {found[name]['cpu_seconds']:.2f} s of CPU")
        return answer

    known = users // 2 + 1
    stored = Stored(np.zeros(known + 1, np.int64), np.empty(0, np.int32))

    def bind(journal: Journal) -> LiveHistories:
        return journal.bind_parts(Ids.range(items), Ids.range(known), stored)

    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "events.db"
        with Journal.open(path) as journal:
            timed("fill", lambda: _fill(journal, events, users, items, rng))
            found["bytes_per_event_on_disk"] = path.stat().st_size / events
            timed("snapshot", journal.snapshot)
        pairs = snapshot_file(path)
        if pairs.exists():
            found["snapshot_bytes_per_event"] = pairs.stat().st_size / events
        journal = timed("open, every page checked", lambda: Journal.open(path))
        with journal:
            view = timed("histories of all users", lambda: bind(journal))
            found["bytes_per_event_in_memory"] = view.nbytes() / events
            found |= _rates(journal, view, users, items, rng)
        pairs.unlink(missing_ok=True)
        journal = timed("open again", lambda: Journal.open(path))
        with journal:
            timed("histories from the events alone", lambda: bind(journal))
    for name in (
        "bytes_per_event_on_disk",
        "bytes_per_event_in_memory",
        "events_per_second",
        "requests_per_second",
        "acknowledged_ms",
        "row_us",
    ):
        say(f"{name}: {found[name]:.4g}")
    return found | provenance()


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
    began = time.perf_counter()
    for done in [journal.submit(sent[start : start + 1000]) for start in range(0, len(sent), 1000)]:
        done.result()
    rate = len(sent) / (time.perf_counter() - began)
    began = time.perf_counter()
    for done in [journal.submit([event]) for event in sent[:5000]]:
        done.result()
    requests = 5000 / (time.perf_counter() - began)
    waits, reads = [], []
    for u, i in zip(user[:200], item[:200], strict=True):
        began = time.perf_counter()
        journal.append([Event(u, i)])
        waits.append(time.perf_counter() - began)
    for u in rng.integers(0, users, 5000).tolist():
        began = time.perf_counter()
        view.row(u)
        reads.append(time.perf_counter() - began)
    return {
        "events_per_second": rate,
        "requests_per_second": requests,
        "acknowledged_ms": float(np.median(waits)) * 1e3,
        "row_us": float(np.median(reads)) * 1e6,
    }
