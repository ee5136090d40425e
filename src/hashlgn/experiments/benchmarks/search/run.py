"""One catalogue, every method: build them all, then time them in turns and evaluate their answers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from hashlgn.evaluation.metrics import Evaluated, ndcg, recall
from hashlgn.experiments.benchmarks.search.catalogues import Catalogue
from hashlgn.experiments.benchmarks.search.methods import VECTORISED, Method, Setting, build_methods
from hashlgn.experiments.common.measure import timed
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.scoring.rows import rows_of
from hashlgn.search import Hits
from hashlgn.search.overfetch import faiss_threads

Ints = npt.NDArray[np.int64]
_WANTED = 100  # answers a user that the threshold search is set to give
_BLOCK = 250_000  # items decoded at a time
_CHUNK = 512  # users evaluated at a time
_SLACK = 1e-5  # relative: scores that differ by rounding alone are ties


@dataclass(frozen=True)
class Truth:
    """Exact answers to the batch: the best scores of each query, descending, and the items behind them."""

    queries: Floats
    scores: Floats
    items: FloatItems | CodedItems

    @property
    def level(self) -> float:
        """The threshold that about 100 items a user pass."""
        return float(-np.sort(-self.scores, axis=None)[min(_WANTED * len(self.scores), self.scores.size - 1)])

    def agreement(self, items: Ints) -> float:
        """Share of the answers ``(q, k)`` that are among the k best; ties with the k-th best count as such."""
        k, right = min(items.shape[1], self.scores.shape[1]), 0
        for start in range(0, len(items), _CHUNK):
            part = slice(start, start + _CHUNK)
            found, queries, level = items[part, :k], self.queries[part], self.scores[part, k - 1 : k]
            vectors = self.items.take(np.maximum(found, 0).ravel()).decode().reshape(*found.shape, -1)
            scores = np.einsum("qkd,qd->qk", vectors, queries)
            right += int(((scores >= level - _SLACK * np.abs(level)) & (found >= 0)).sum())
        return float(right / (len(items) * k))


def measure(catalogue: Catalogue, setting: Setting) -> list[dict[str, Any]]:
    """Time and evaluate every method over one catalogue.

    Returns:
        One row for every method and k. Times are microseconds per query, medians. A ratio is the time of the first row,
        Faiss's flat search over the narrowest floats, divided by the row's own; where seen items are left out, the time
        of the fastest vectorised search over these floats that does the same.
    """
    with faiss_threads(setting.threads):
        methods = build_methods(catalogue, setting)
        truths = _truths(catalogue, setting)
        _clock(methods, catalogue, setting, truths)
        rows = []
        for method in methods:
            setting.say(f"evaluating {method.name} over {method.over}")
            for k in setting.ks:
                evaluated = _evaluated(method, catalogue, setting, truths, k)
                rows.append(_row(method, methods, catalogue, setting, k) | evaluated)
        return rows


def _truths(catalogue: Catalogue, setting: Setting) -> dict[str, Truth]:
    """Exact answers by what is searched."""
    length = min(catalogue.n_items, max(*setting.ks, 10 * _WANTED))
    truths = {}
    for form in catalogue.forms:
        setting.say(f"exact answers of {form.name}")
        queries = np.ascontiguousarray(form.queries[: setting.batch])
        truths[form.name] = Truth(queries, _best(queries, form.items, length), form.items)
    return truths


def _best(queries: Floats, items: FloatItems | CodedItems, length: int) -> Floats:
    """The best scores of each query, descending, from items decoded a block at a time."""
    best = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(items), _BLOCK):
        block = items.take(np.arange(start, min(start + _BLOCK, len(items)))).decode()
        scores, _ = faiss.knn(queries, block, min(length, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        best = -np.sort(-np.concatenate((best, scores), axis=1), axis=1)[:, :length]
    return best


def _clock(methods: Sequence[Method], catalogue: Catalogue, setting: Setting, truths: dict[str, Truth]) -> None:
    """Run every task of every method once to warm up, then ``repeats`` times in turns."""
    rows = np.arange(setting.batch)
    every, each = catalogue.exclusion(rows), [catalogue.exclusion(rows[r : r + 1]) for r in rows[: setting.singles]]
    tasks = []
    for method in methods:
        batch = np.ascontiguousarray(method.queries[rows])
        tasks.append((method, _tasks(method, setting, batch, truths[method.over].level, every, each)))
    for number in range(setting.repeats + 1):
        for method, runs in tasks:
            setting.say(f"round {number}/{setting.repeats}, {method.name} over {method.over}")
            for task, calls in runs.items():
                for call in calls[:1] if not number else calls:
                    seconds = timed(call)[1]
                    if number:
                        method.times.setdefault(task, []).append(seconds)


def _tasks(
    method: Method, setting: Setting, batch: Any, level: float, every: Exclusion, each: list[Exclusion]
) -> dict[str, list[Callable[[], Any]]]:
    """What one method is to do in one round, by task."""
    runs: dict[str, list[Callable[[], Any]]] = {}
    search, filtered, above = method.search, method.filtered, method.above
    alone = [(batch[row : row + 1], seen) for row, seen in enumerate(each)]
    for k in setting.ks:
        if search is not None:
            runs[f"top {k}"] = [partial(search, batch, k)]
            runs[f"single {k}"] = [partial(search, query, k) for query, _ in alone]
        if filtered is not None:
            runs[f"seen {k}"] = [partial(filtered, batch, k, every)]
        if search is not None and filtered is not None:
            runs[f"single seen {k}"] = [partial(filtered, query, k, seen) for query, seen in alone]
    if above is not None:
        runs["above"] = [partial(above, batch, level)]
    return runs


def _evaluated(
    method: Method, catalogue: Catalogue, setting: Setting, truths: dict[str, Truth], k: int
) -> dict[str, Any]:
    """Agreement with the exact answers, nothing left out; quality against held-out items, seen ones left out."""
    found: dict[str, float | None] = dict.fromkeys(("float agreement", "decoded agreement", "recall", "ndcg"))
    if method.search is not None:
        items = _padded(method.search(np.ascontiguousarray(method.queries[: setting.batch]), k), k)
        if method.floats is not None:
            found["float agreement"] = round(truths[method.floats].agreement(items), 4)
        if method.floats != method.over:
            found["decoded agreement"] = round(truths[method.over].agreement(items), 4)
    if catalogue.truth is not None and method.filtered is not None:
        parts = []
        for start in range(0, len(method.queries), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(method.queries)))
            queries = np.ascontiguousarray(method.queries[rows])
            items = _padded(method.filtered(queries, k, catalogue.exclusion(rows)), k)
            bounds = np.concatenate(([0], np.cumsum((items >= 0).sum(axis=1))))
            parts.append(Evaluated.build(bounds, items[items >= 0], *rows_of(catalogue.truth, rows)))
        evaluated = Evaluated.concatenate(parts)
        found["recall"], found["ndcg"] = (round(float(f(evaluated, k).mean()), 4) for f in (recall, ndcg))
    return found


def _padded(answer: Any, k: int) -> Ints:
    """Answers as ``(q, k)``, −1 where there are no more."""
    if isinstance(answer, np.ndarray):
        rows = list(answer)
    else:
        rows = [answer.row(r)[0] for r in range(len(answer))] if isinstance(answer, Hits) else answer
    padded = np.full((len(rows), k), -1, np.int64)
    for row, items in zip(padded, rows, strict=True):
        row[: len(items)] = items
    return padded


def _row(method: Method, methods: Sequence[Method], catalogue: Catalogue, setting: Setting, k: int) -> dict[str, Any]:
    def us(of: Method, task: str) -> float | None:
        count = 1 if task.startswith("single") else setting.batch
        return 1e6 * statistics.median(of.times[task]) / count if task in of.times else None

    def ratio(base: float | None, value: float | None) -> float | None:
        return None if base is None or value is None else round(base / value, 2)

    base = methods[0]
    top, seen, single, both = (us(method, f"{task} {k}") for task in ("top", "seen", "single", "single seen"))
    others = [us(m, f"seen {k}") for m in methods if m.over == base.over and m.name in VECTORISED]
    return {
        "data": catalogue.name,
        "items": catalogue.n_items,
        "k": k,
        "method": method.name,
        "over": method.over,
        "us": _short(top),
        "qps": None if top is None else round(1e6 / top),
        "ratio": ratio(us(base, f"top {k}"), top),
        "seen us": _short(seen),
        "seen qps": None if seen is None else round(1e6 / seen),
        "seen ratio": ratio(min(t for t in others if t is not None), seen),
        "single us": _short(single),
        "single ratio": ratio(us(base, f"single {k}"), single),
        "single seen us": _short(both),
        "threshold us": _short(us(method, "above")),
        "threshold ratio": ratio(us(base, "above"), us(method, "above")),
        "bytes/item": round(method.size, 1),
        "build s": round(method.build, 2),
    }


def _short(value: float | None) -> float | None:
    """Four digits are more than a clock is worth."""
    return None if value is None else float(f"{value:.4g}")
