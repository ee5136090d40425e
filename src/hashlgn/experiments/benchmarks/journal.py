"""The journal of a service by size: how fast it starts, what histories cost, how fast events are written and read."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hashlgn.data import Ids
from hashlgn.errors import positive_int
from hashlgn.experiments.common.measure import timed
from hashlgn.serve.journal import Event, Journal, LiveHistories, Stored
from hashlgn.serve.journal.pairs import snapshot_file
from hashlgn.utils.provenance import provenance

__all__ = ["bench_journal"]

T = TypeVar("T")
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

    def step(name: str, work: Callable[[], T]) -> T:
        used = time.process_time()
        answer, seconds = timed(work)
        found[name] = {"seconds": seconds, "cpu_seconds": time.process_time() - used}
        say(f"{name}: {seconds:.2f} s, {found[name]['cpu_seconds']:.2f} s of CPU")
        return answer

    known = users // 2 + 1
    stored = Stored(np.zeros(known + 1, np.int64), np.empty(0, np.int32))

    def bind(journal: Journal) -> LiveHistories:
        return journal.bind_parts(Ids.range(items), Ids.range(known), stored)

    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(dir=folder) as place:
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
    sizes = {name: value for name, value in found.items() if name.startswith("bytes_per_event")}
    for name, value in (sizes | rates).items():
        say(f"{name}: {value:.4g}")
    return found | rates | provenance()


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
