"""One call from Python beside the scan that it needs: what ids, histories, queries and tables cost; and a change.

Catalogue, codewords and histories are random: 128 + 128 bits, and by default a million items and 50 items per history.
The scan, from query to hits, is timed inside the call. So a call and its scan are of one query, and "beside" is what is
left of each single call, with the caches as a scan leaves them; 1,024 users ask in turn, so that none finds its own
history in a cache. Times are medians.
"""

from __future__ import annotations

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
from hashlgn.scoring.histories import CodedHistories
from hashlgn.scoring.items import CodedItems

BITS = WIDTH = 128
_ASKED = 1024  # users who ask


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
    """Microseconds of each kind of call; arguments are the options of ``hashlgn bench call``.

    Returns:
        ``rows``, one per call and type of ids: ``call``, ``ids``, ``us`` per call, ``scan us`` of the scan alone, and
        ``beside us`` per user, what is left. The last two rows are changes of the same catalogue with integer ids.
    """
    rows = []
    for ids in ("int", "str"):
        model = random_model(items, users, length, strings=ids == "str", seed=seed)
        recommender = Recommender(model, threads=1)
        rows += [{"call": name, "ids": ids} | row for name, row in _calls(recommender, k, seconds, seed)]
    changed = Recommender(random_model(items, users, length, seed=seed), threads=1)
    return {"rows": rows + [{"call": name, "ids": "int"} | row for name, row in _changes(changed, seconds, seed)]}


def _changes(recommender: Recommender, seconds: float, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What one item costs that is placed by ten more people, or by its first ten."""
    rng, model = np.random.default_rng(seed), recommender.model
    size = min(10, len(model.user_ids))
    people = cycle([rng.choice(len(model.user_ids), size, replace=False).tolist() for _ in range(_ASKED)])
    item, new = cycle(rng.permutation(len(model.item_ids)).tolist()), count(len(model.item_ids))
    yield "update of an item", _timed(lambda: recommender.update_items(next(item), next(people)), seconds)
    yield "new item", _timed(lambda: recommender.add_items(next(new), next(people)), seconds)


def _calls(recommender: Recommender, k: int, seconds: float, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    rng, model, direct = np.random.default_rng(seed), recommender.model, recommender.direct
    assert direct is not None  # codes, and the engine that is chosen for them

    def scan() -> float:
        return direct.seconds

    for size in (1, 64):
        numbers = [rng.integers(0, len(model.user_ids), size) for _ in range(_ASKED // size)]
        asked = cycle([model.user_ids.decode(codes).tolist() for codes in numbers])
        call = partial(_recommend, recommender, asked, k)
        yield f"{size} user{'s' if size > 1 else ''}", _timed(call, seconds, scan, size)
    some = model.item_ids.decode(np.sort(rng.choice(len(model.item_ids), 20, replace=False))).tolist()
    yield "history of 20", _timed(lambda: _read(recommender.recommend(history=some, k=k)), seconds, scan)
    yield "similar items", _timed(lambda: _read(recommender.similar_items(some[:1], k)), seconds)
    user = model.user_ids.decode(np.array([7])).tolist()
    yield "score of a pair", _timed(lambda: recommender.score(user, some[:1]), seconds)


def _recommend(recommender: Recommender, asked: Iterator[list[Any]], k: int) -> Any:
    return _read(recommender.recommend(next(asked), k))


def _read(table: Any) -> Any:
    """The columns that everybody reads."""
    return table["similar" if "similar" in table else "item"], table["score"]


def _timed(
    call: Callable[[], Any], seconds: float, scan: Callable[[], float] | None = None, users: int = 1
) -> dict[str, float | None]:
    """Medians of a call, of the scan in it, and of what is left of it."""
    times: list[tuple[float, float]] = []
    for _ in range(3):
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 20:
        start = time.perf_counter()
        call()
        whole = time.perf_counter() - start
        times.append((whole, whole if scan is None else scan()))
    wholes, scans = (1e6 * np.array(column) for column in zip(*times, strict=True))
    us = float(np.median(wholes))
    if scan is None:
        return {"us": us, "scan us": None, "beside us": None}
    return {"us": us, "scan us": float(np.median(scans)), "beside us": float(np.median(wholes - scans)) / users}
