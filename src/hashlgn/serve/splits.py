"""Which arm of a split of traffic did better: answers that were followed by an event, by user, and a bootstrap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Ids
from hashlgn.errors import DataError, positive_int
from hashlgn.evaluation.metrics.bootstrap import bootstrap_interval, resampled_means
from hashlgn.serve.journal.events import SECOND
from hashlgn.serve.journal.store import Store

__all__ = ["report_split"]

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


def report_split(
    journal: Path, *, window: float = 86_400, level: float = 0.95, samples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compare the arms of a split by what users did with what they were shown.

    An answer is a hit where its user had an event on one of its items within ``window`` after it. The value of a user
    is the share of hits among their answers; the hit rate of an arm is the mean over its users. Intervals come from
    resampling users with replacement: those of an arm, and for a difference those of both arms, independently.

    Args:
        journal: the file; a service may go on writing.
        window: seconds.
        level: probability that an interval is meant to cover.
        samples: number of resamples.
        seed: of the generator.

    Returns:
        ``arms``: by name ``users``, ``answers``, ``hit_rate``, ``interval``, and for all but the first
        ``difference`` to the first and its ``difference_interval``; ready for JSON.

    Raises:
        DataError: there are no exposures.
        JournalError: the journal cannot be read.
        ArgumentError: an option breaks its rule.
    """
    positive_int("samples", samples)
    with Store.read(journal) as store:
        shown = store.db.execute("SELECT time, user, arm, items FROM exposures ORDER BY row").fetchall()
        if not shown:
            raise DataError(f"{journal}: no exposures to compare; serve with --split to have some")
        query = "SELECT user, item, time FROM events WHERE user IN (SELECT user FROM exposures)"
        events = store.db.execute(query).fetchall()
    hits = _hits(shown, events, round(window * SECOND))
    users = Ids.from_values([user for _, user, _, _ in shown])[1]
    arms = np.array([arm for _, _, arm, _ in shown], np.object_)
    values = {arm: _shares(users[arms == arm], hits[arms == arm]) for arm in sorted({*arms.tolist()})}
    found: dict[str, Any] = {}
    first: Doubles | None = None
    for arm, mine in values.items():
        interval = bootstrap_interval(mine, level=level, samples=samples, seed=seed)
        answers = int((arms == arm).sum())
        found[arm] = {"users": len(mine), "answers": answers, "hit_rate": float(mine.mean()), "interval": interval}
        if first is None:
            first = mine
            continue
        found[arm]["difference"] = float(mine.mean() - first.mean())
        apart = resampled_means(mine, samples, seed) - resampled_means(first, samples, seed + 1)
        low, high = np.quantile(apart, [(1 - level) / 2, (1 + level) / 2])
        found[arm]["difference_interval"] = float(low), float(high)
    return {"window": window, "level": level, "samples": samples, "arms": found}


def _hits(shown: list[tuple[Any, ...]], events: list[tuple[Any, ...]], window: int) -> npt.NDArray[np.bool_]:
    """Whether each answer was followed by an event on one of its items, within a window of microseconds."""
    lists = [json.loads(items) for *_, items in shown]
    answer = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
    flat = [item for items in lists for item in items]
    hits = np.zeros(len(shown), np.bool_)
    if not events or not flat:
        return hits
    users, user = Ids.from_values([user for user, _, _ in events])
    items, item = Ids.from_values([item for _, item, _ in events])
    keys = user * len(items) + item
    owner = users.encode([user for _, user, _, _ in shown], on_unknown="mark")[answer]
    number = items.encode(flat, on_unknown="mark")
    known = (owner >= 0) & (number >= 0)
    asked, answer = (owner * len(items) + number)[known], answer[known]
    since = np.array([time for time, *_ in shown], np.int64)[answer]
    times = np.array([time for *_, time in events], np.int64)
    # One number orders by pair, then time: the rank of a time among all, and after equal times for what was shown.
    moments = np.unique(times)
    order = np.argsort(keys * len(moments) + np.searchsorted(moments, times))
    ranked = (keys * len(moments) + np.searchsorted(moments, times))[order]
    after = np.searchsorted(moments, since, "right")
    place = np.searchsorted(ranked, asked * len(moments) + after)
    inside = place < len(ranked)
    inside[inside] = keys[order[place[inside]]] == asked[inside]
    inside[inside] = times[order[place[inside]]] - since[inside] <= window
    hits[answer[inside]] = True
    return hits


def _shares(users: Ints, hits: npt.NDArray[np.bool_]) -> Doubles:
    """The share of hits among the answers of each user."""
    _, number, counts = np.unique(users, return_inverse=True, return_counts=True)
    return np.asarray(np.bincount(number, hits, len(counts)) / counts, np.float64)
