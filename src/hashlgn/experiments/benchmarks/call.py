"""One call from Python beside the scan that it needs: what ids, histories, queries and tables cost; and a change.

Catalogue, codewords and histories are random: 128 + 128 bits, and by default a million items and 50 items per history.
The scan is ``Kernel.search`` with the same queries and the same seen lists, one after the other with the calls, so that
both find the processor's caches in the same state. Times are medians of one thread's own time, which other processes on
the machine disturb less than they disturb the clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, cycle
from typing import Any

import numpy as np

from hashlgn.data import Ids
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.stored import Stored
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.histories import CodedHistories
from hashlgn.scoring.items import CodedItems

__all__ = ["bench_call", "random_model"]

BITS = WIDTH = 128
_CHANGED = 4000  # items of the catalogue that changes, at most


def random_model(n_items: int, n_users: int, length: int, *, strings: bool = False, seed: int = 0) -> ServedModel:
    """A model of random codes, whose users have ``length`` random items each."""
    rng = np.random.default_rng(seed)
    codewords = (rng.standard_normal((2, BITS // 4, 16, WIDTH)) / BITS).astype(np.float32)
    packed = rng.integers(0, 256, (2, n_items, BITS // 8), np.uint8)
    sizes = rng.lognormal(0, 0.3, (2, n_items)).astype(np.float16)
    steps = rng.integers(1, max(2, n_items // length), (n_users, length))  # ascending, each once
    indices = np.minimum(np.cumsum(steps, axis=1) - 1, n_items - length + np.arange(length)).astype(np.int32)
    user_ids, item_ids = Ids.range(n_users), Ids.range(n_items)
    if strings:
        user_ids, item_ids = (Ids([f"{kind}-{i}" for i in range(n)]) for kind, n in (("u", n_users), ("i", n_items)))
    return ServedModel(
        "hashlgn",
        {},
        user_ids,
        item_ids,
        CodedItems(packed[0], CodebookDecoder(codewords[0]), sizes[0]),
        Stored.of(np.arange(0, n_users * length + 1, length), indices.ravel()),
        CodedHistories(packed[1], codewords[1], sizes[1]),
    )


def bench_call(
    *, items: int = 1_000_000, users: int = 20_000, length: int = 50, k: int = 10, seconds: float = 1.0, seed: int = 0
) -> dict[str, Any]:
    """Microseconds of each kind of call.

    Args:
        items: size of the catalogue.
        users: stored histories.
        length: items per history.
        k: items asked for.
        seconds: how long each call is repeated.
        seed: fixes every draw.

    Returns:
        ``rows``, one per call and type of ids: ``call``, ``ids``, ``us`` per call, ``scan us`` of the scan alone, and
        ``beside us`` per user, the difference. The last two rows are changes of a catalogue of at most 4,000 items
        with the same histories.
    """
    rows = []
    for ids in ("int", "str"):
        model = random_model(items, users, length, strings=ids == "str", seed=seed)
        recommender = Recommender(model, threads=1)
        rows += [{"call": name, "ids": ids} | row for name, row in _calls(recommender, k, seconds, seed)]
    changed = Recommender(random_model(min(items, _CHANGED), users, length, seed=seed), threads=1)
    return {"rows": rows + [{"call": name, "ids": "int"} | row for name, row in _changes(changed, seconds, seed)]}


def _changes(recommender: Recommender, seconds: float, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What one item costs that is placed by ten more people, or by its first ten."""
    rng, model = np.random.default_rng(seed), recommender.model
    new = count(len(model.item_ids))

    def people() -> list[int]:
        some: list[int] = rng.choice(len(model.user_ids), min(10, len(model.user_ids)), replace=False).tolist()
        return some

    for _ in range(20 if seconds > 0.1 else 1):  # lengths of histories become known
        recommender.update_items(int(rng.integers(len(model.item_ids))), people())
    item = cycle(rng.permutation(len(model.item_ids)).tolist())
    yield "update of an item", _compared(lambda: recommender.update_items(next(item), people()), None, 1, seconds)
    yield "new item", _compared(lambda: recommender.add_items(next(new), people()), None, 1, seconds)


def _calls(recommender: Recommender, k: int, seconds: float, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    rng, model, searcher = np.random.default_rng(seed), recommender.model, recommender.searcher
    for size in (1, 64):
        numbers = [rng.integers(0, len(model.user_ids), size) for _ in range(64)]
        asked = cycle([model.user_ids.decode(codes).tolist() for codes in numbers])
        scans = cycle([_scan(recommender, codes) for codes in numbers])
        yield (
            f"{size} user{'s' if size > 1 else ''}",
            _compared(
                partial(_recommend, recommender, asked, k),
                partial(_search, recommender, scans, k),
                size,
                seconds,
            ),
        )
    some = model.item_ids.decode(np.sort(rng.choice(len(model.item_ids), 20, replace=False))).tolist()
    numbers20 = model.item_ids.encode(some)
    query = model.queries(np.array([0, 20]), numbers20)
    seen = Exclusion(len(model.item_ids), np.array([0, 20]), numbers20)
    yield (
        "history of 20",
        _compared(
            lambda: _read(recommender.recommend(history=some, k=k)),
            lambda: searcher.search(query, k, seen),
            1,
            seconds,
        ),
    )
    yield "similar items", _compared(lambda: _read(recommender.similar_items(some[:1], k)), None, 1, seconds)
    user = model.user_ids.decode(np.array([7])).tolist()
    yield "score of a pair", _compared(lambda: recommender.score(user, some[:1]), None, 1, seconds)


def _scan(recommender: Recommender, codes: np.ndarray[Any, Any]) -> tuple[Any, Exclusion]:
    model = recommender.model
    return model.queries_of(codes), Exclusion(len(model.item_ids), *model.stored.rows(codes)[:2])


def _recommend(recommender: Recommender, asked: Iterator[list[Any]], k: int) -> Any:
    return _read(recommender.recommend(next(asked), k))


def _search(recommender: Recommender, scans: Iterator[tuple[Any, Exclusion]], k: int) -> Any:
    query, seen = next(scans)
    return recommender.searcher.search(query, k, seen)


def _read(table: Any) -> Any:
    """The columns that everybody reads."""
    return table["similar" if "similar" in table else "item"], table["score"]


def _compared(
    call: Callable[[], Any], scan: Callable[[], Any] | None, users: int, seconds: float
) -> dict[str, float | None]:
    """Medians of the two, one after the other."""
    times: dict[str, list[float]] = {"call": [], "scan": []}
    for _ in range(3):
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["call"]) < 20:
        for name, function in (("call", call), ("scan", scan)):
            if function is not None:
                start = time.thread_time()
                function()
                times[name].append(time.thread_time() - start)
    us = 1e6 * statistics.median(times["call"])
    alone = 1e6 * statistics.median(times["scan"]) if scan is not None else None
    return {"us": us, "scan us": alone, "beside us": None if alone is None else (us - alone) / users}
