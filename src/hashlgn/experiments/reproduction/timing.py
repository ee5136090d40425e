"""Search time both ways, in one run: the paper's procedure beside ours, by top k and by threshold.

The paper's procedure: float vectors in Faiss's flat index, one call for all users that asks for k and as many as the
longest history holds, or for everything over the threshold; then a Python loop over users that drops what was seen.
For codes the float vectors are the decoded ones. It includes the search and the loop; the sets of seen items are built
inside the loop. Ours is one call that returns ordered answers with seen items left out inside: for floats Faiss's flat
index with a vectorised exclusion, for codes the kernel, whose time includes the query tables. Building indexes and the
lists of seen items is left out of both. Rounds are interleaved, so that what disturbs the machine disturbs all alike,
and what is over quickly is done several times a round, of which the median counts.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Interactions
from hashlgn.experiments.baselines.indexes import INDEXES, Search, loop_over_seen
from hashlgn.experiments.common.measure import timed as timed_call
from hashlgn.experiments.common.runs import left_out
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems
from hashlgn.search.overfetch import faiss_threads

_AT_LEAST = 0.1  # seconds that each search is given in a round
INCLUDES = {
    "paper": "Faiss flat over float vectors (of codes: decoded), one call, then a Python loop that drops seen items",
    "ours": "one call with seen items left out inside, ordered answers (of codes: the kernel, query tables included)",
}


def timed(
    models: Mapping[str, ServedModel],
    thresholds: Mapping[str, Sequence[float]],
    test: Interactions,
    *,
    cuts: Sequence[int],
    repeats: int,
    threads: int | None,
) -> dict[str, Any]:
    """Median seconds for all test users: of the models by name of the row, by the top k of each of ``cuts``, and by
    thresholds for each model's own scores.

    Returns:
        ``mips``: row, k, and seconds of both procedures; ``tips``: row, threshold, mean size of the answers, seconds.
    """
    users = np.flatnonzero(np.diff(test.indptr))
    tasks: dict[tuple[str, str, float], dict[str, Callable[[], int]]] = {}  # row, kind, k or threshold → procedures
    for name, model in models.items():
        queries = np.ascontiguousarray(model.queries_of(users))
        exclude = left_out(model, users)
        searcher = Recommender(model, threads=threads).searcher
        flat = INDEXES["faiss-flat"](np.ascontiguousarray(model.items.decode(), np.float32), 0, threads or 0)
        assert flat.above is not None
        for k in cuts:
            ours = partial(_answered, searcher.search, queries, k, exclude)
            tasks[name, "mips", k] = {"ours": ours, "paper": partial(_looped, flat.search[""], queries, k, exclude)}
        for threshold in thresholds[name]:
            ours = partial(_answered, searcher.search_above, queries, threshold, exclude)
            loop = partial(threshold_loop, flat.above, queries, threshold, exclude)
            tasks[name, "tips", threshold] = {"ours": ours, "paper": loop}
    seconds: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    found = {}
    with faiss_threads(threads):
        for _ in range(repeats):
            for task, ways in tasks.items():
                for way, run in ways.items():
                    spent: list[float] = []
                    while sum(spent) < _AT_LEAST:
                        found[task, way], took = timed_call(run)
                        spent.append(took)
                    seconds[task, way].append(statistics.median(spent))
    lines: dict[str, list[dict[str, Any]]] = {"mips": [], "tips": []}
    for task in tasks:
        name, kind, value = task
        size = found[task, "ours"] / len(users)
        searched = "codes" if isinstance(models[name].items, CodedItems) else "floats"
        line = {"row": name, "over": searched, "k" if kind == "mips" else "threshold": value, "mean size": size}
        medians = {f"{way} seconds": statistics.median(seconds[task, way]) for way in ("paper", "ours")}
        lines[kind].append(line | medians)
    return {**lines, "users": len(users), "repeats": repeats, "includes": INCLUDES}


def threshold_loop(
    above: Callable[[Floats, float], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    queries: Floats,
    threshold: float,
    exclude: Exclusion,
) -> int:
    """The paper's threshold search: everything over the threshold from Faiss, and a loop that drops what was seen.

    Returns:
        How many items all answers hold together.
    """
    assert exclude.indptr is not None and exclude.indices is not None
    bounds, items = above(queries, threshold)
    starts, seen = exclude.indptr.tolist(), exclude.indices
    answers = []
    for row in range(len(queries)):
        history = set(seen[starts[row] : starts[row + 1]].tolist())
        answers.append([item for item in items[bounds[row] : bounds[row + 1]].tolist() if item not in history])
    return sum(map(len, answers))


def _answered(search: Callable[..., Any], queries: Floats, value: float, exclude: Exclusion) -> int:
    return len(search(queries, value, exclude).items)


def _looped(search: Search, queries: Floats, k: int, exclude: Exclusion) -> int:
    return sum(map(len, loop_over_seen(search, queries, k, exclude, together=True)))
