"""Full-ranking evaluation: every item is a candidate, what a user has in training is masked."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Dropped, Interactions, read_interactions
from hashlgn.errors import ArgumentError, DataError, choose, positive_int, threshold_value
from hashlgn.evaluation.metrics import METRICS, Judged, bootstrap_interval, coverage, f1_of_means
from hashlgn.inference.recommender import BATCH, Recommender
from hashlgn.scoring.exclusion import Exclusion, rows_of

__all__ = ["Cut", "Evaluation", "evaluate", "read_test"]

QUALITY = ("precision", "recall", "f1", "ndcg", "map", "mrr", "hit_rate")
_SIZE = ("answer_size", "empty")


@dataclass(frozen=True, eq=False)
class Cut:
    """One way of cutting the answers: the k best, or all over a threshold.

    Attributes:
        k: number of items, or None.
        threshold: score to exceed, or None.
        per_user: one value a user by metric, ``(users,)`` float64 each.
        coverage: share of the catalogue that appears in any answer.
        seconds: wall time of the search for all users: scoring, exclusion and ordering. One search, at the largest k,
            serves all of them.
    """

    k: int | None
    threshold: float | None
    per_user: dict[str, npt.NDArray[np.float64]]
    coverage: float
    seconds: float

    @property
    def name(self) -> str:
        """``@50`` for the 50 best, ``> 0.5`` for a threshold."""
        return f"@{self.k}" if self.k is not None else f"> {self.threshold:g}"

    def mean(self, metric: str) -> float:
        """Mean over users."""
        return float(self.per_user[metric].mean())

    def interval(self, metric: str, *, seed: int = 0) -> tuple[float, float]:
        """Bootstrap 95% interval of the mean over users."""
        return bootstrap_interval(self.per_user[metric], seed=seed)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good a model's answers are.

    Attributes:
        users: external ids of the users judged, those with at least one test interaction that can be answered.
        interactions: test interactions judged.
        dropped: test users, items and interactions left out because the training does not know them.
        seen: test interactions left out because the training has them: they are masked, so nobody could hit them.
        cuts: by ascending k, then by threshold as given.
    """

    users: npt.NDArray[Any]
    interactions: int
    dropped: Dropped
    seen: int
    cuts: tuple[Cut, ...]

    def at(self, k: int) -> Cut:
        """The cut at the k best.

        Raises:
            ArgumentError: the evaluation was not asked for this k.
        """
        for cut in self.cuts:
            if cut.k == k:
                return cut
        held = ", ".join(str(cut.k) for cut in self.cuts if cut.k is not None)
        raise ArgumentError(f"k must be one that was evaluated, {held} (got {k})")

    def to_dict(self, *, intervals: bool = True) -> dict[str, Any]:
        """Means, their bootstrap 95% intervals, coverage and search time, ready for JSON."""
        return {
            "users": len(self.users),
            "interactions": self.interactions,
            "left_out": {
                "unknown_users": self.dropped.users,
                "unknown_items": self.dropped.items,
                "unknown_interactions": self.dropped.interactions,
                "seen_in_training": self.seen,
            },
            "cuts": [
                {
                    ("k" if cut.k is not None else "threshold"): cut.k if cut.k is not None else cut.threshold,
                    "metrics": {
                        name: {"mean": cut.mean(name)}
                        | ({"interval_95": list(cut.interval(name))} if intervals else {})
                        for name in cut.per_user
                    }
                    | (
                        {"f1_of_means": {"mean": f1_of_means(cut.per_user["precision"], cut.per_user["recall"])}}
                        if {"precision", "recall"} <= cut.per_user.keys()
                        else {}
                    ),
                    "coverage": cut.coverage,
                    "search_seconds": cut.seconds,
                }
                for cut in self.cuts
            ],
        }

    def __str__(self) -> str:
        names = [name for name in METRICS if any(name in cut.per_user for cut in self.cuts)]
        lines = [f"{'':>10}" + "".join(f"{name:>12}" for name in [*names, "coverage"])]
        for cut in self.cuts:
            values = [f"{cut.mean(name):12.4f}" if name in cut.per_user else f"{'':>12}" for name in names]
            lines.append(f"{cut.name:>10}" + "".join(values) + f"{cut.coverage:12.4f}")
        return "\n".join([*lines, f"means over {len(self.users):,} users, {self.interactions:,} test interactions"])


def evaluate(
    model: Recommender,
    test: Any,
    k: int | Iterable[int] = (20, 50, 100),
    *,
    threshold: float | Iterable[float] = (),
    metrics: Iterable[str] = QUALITY,
) -> Evaluation:
    """Rank the whole catalogue for every user of the test, and judge the answers.

    Args:
        model: a trained model.
        test: held-out interactions, or anything that ``read_interactions`` takes; of a folder with ``test.txt``, that.
        k: one cut or several.
        threshold: one threshold or several, for threshold search; none by default.
        metrics: keys of ``hashlgn.evaluation.metrics.METRICS``, which holds the other NDCGs too.

    Raises:
        ArgumentError: a cut breaks its rule, or a metric is unknown.
        DataError: no test interaction is one that the model could answer.
        NotFittedError: the model is not trained.
    """
    served = model.model
    cuts = sorted({positive_int("k", value) for value in ([k] if not isinstance(k, Iterable) else k)})
    thresholds = [
        threshold_value("threshold", t) for t in ([threshold] if not isinstance(threshold, Iterable) else threshold)
    ]
    names = list(metrics)
    for name in names:
        choose("metric", name, METRICS)
    if not cuts and not thresholds:
        raise ArgumentError("k must hold at least one cut where there is no threshold (got none)")
    train = Interactions(served.user_ids, served.item_ids, *served.seen)
    data, dropped = (test if isinstance(test, Interactions) else read_test(test)).encode_like(train)
    known = Exclusion.build(len(served.items), seen=served.seen)
    fresh = data.select(~known.excluded(data.rows, data.indices))
    users = np.flatnonzero(np.diff(fresh.indptr))
    if not len(users):
        raise DataError(
            f"test must hold interactions of known users with known items they have not seen (got none: of {len(data)} "
            f"known ones all were seen in training, and {dropped.interactions} have an unknown user or item)"
        )
    judged = [
        *(_top(model, fresh, users, cuts, names) if cuts else ()),
        *(_over(model, fresh, users, value, names) for value in thresholds),
    ]
    return Evaluation(served.user_ids.decode(users), len(fresh), dropped, len(data) - len(fresh), tuple(judged))


def read_test(source: Any, **options: Any) -> Interactions:
    """Read held-out interactions: of a folder with ``test.txt``, that file; else as ``read_interactions``."""
    if isinstance(source, str | Path) and (Path(source) / "test.txt").is_file():
        options["part"] = "test"
    return read_interactions(source, **options)


def _top(
    model: Recommender, test: Interactions, users: npt.NDArray[np.int64], cuts: list[int], names: list[str]
) -> list[Cut]:
    parts, answers, seconds = [], [], 0.0
    for chunk, exclude, truth in _batches(model, test, users):
        began = time.perf_counter()
        hits = model.searcher.search(model.model.users[chunk], cuts[-1], exclude)
        seconds += time.perf_counter() - began
        parts.append(Judged.build(hits.indptr, hits.items, *truth))
        place = np.arange(len(hits.items)) - np.repeat(hits.indptr[:-1], np.diff(hits.indptr))
        answers.append((place, hits.items))
    judged = Judged.concatenate(parts)
    n_items = len(model.model.items)
    return [
        Cut(
            k,
            None,
            {name: METRICS[name](judged, k) for name in names},
            coverage(np.concatenate([items[place < k] for place, items in answers]), n_items),
            seconds,
        )
        for k in cuts
    ]


def _over(
    model: Recommender, test: Interactions, users: npt.NDArray[np.int64], threshold: float, names: list[str]
) -> Cut:
    parts, seconds = [], 0.0
    shown = np.zeros(len(model.model.items), np.bool_)
    for chunk, exclude, truth in _batches(model, test, users):
        began = time.perf_counter()
        hits = model.searcher.search_above(model.model.users[chunk], threshold, exclude)
        seconds += time.perf_counter() - began
        parts.append(Judged.build(hits.indptr, hits.items, *truth))
        shown[hits.items] = True
    judged = Judged.concatenate(parts)
    per_user = {name: METRICS[name](judged, None) for name in (*names, *_SIZE)}
    return Cut(None, threshold, per_user, float(shown.mean()), seconds)


def _batches(model: Recommender, test: Interactions, users: npt.NDArray[np.int64]) -> Iterable[tuple[Any, Any, Any]]:
    """Users a few thousand at a time, with what they have seen and what they are tested on."""
    served = model.model
    _ = model.searcher  # built before the clock runs
    for start in range(0, len(users), BATCH):
        chunk = users[start : start + BATCH]
        exclude = Exclusion.build(len(served.items), seen=rows_of(served.seen, chunk))
        yield chunk, exclude, rows_of((test.indptr, test.indices), chunk)
