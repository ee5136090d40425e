"""Full-ranking evaluation: every item is a candidate, what a user has in training is masked."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Dropped, Interactions, read_interactions
from hashlgn.data.sources import resolved
from hashlgn.errors import ArgumentError, DataError, choose, positive_int, threshold_value
from hashlgn.evaluation.answers import Answers, answers_of
from hashlgn.evaluation.metrics import METRICS, Evaluated, bootstrap_interval, coverage, f1_of_means, gini
from hashlgn.inference.recommender import BATCH, Recommender
from hashlgn.scoring.exclusion import Exclusion, rows_of

__all__ = ["Cutoff", "Evaluation", "evaluate", "read_test"]

QUALITY = ("precision", "recall", "f1", "ndcg", "map", "mrr", "hit_rate")
Ints = npt.NDArray[np.int64]
_SIZE = ("answer_size", "empty")


@dataclass(frozen=True, eq=False, repr=False)
class Cutoff:
    """One way of cutting the answers: the k best, or all over a threshold.

    Attributes:
        k: number of items, or None.
        threshold: score to exceed, or None.
        per_user: one value per user by metric, ``(users,)`` float64 each.
        coverage: share of the catalogue that appears in any answer; None where the catalogue is not known.
        gini: how unequally the answers are spread over the catalogue, 0 for equally; None where it is not known.
        seconds: wall time of the search for all users: scoring, exclusion and ordering. One search, at the largest k,
            serves all of them.
    """

    k: int | None
    threshold: float | None
    per_user: dict[str, npt.NDArray[np.float64]]
    coverage: float | None
    gini: float | None
    seconds: float

    @property
    def name(self) -> str:
        """``@50`` for the 50 best, ``> 0.5`` for a threshold."""
        return f"@{self.k}" if self.k is not None else f"> {self.threshold:g}"

    def mean(self, metric: str) -> float:
        """Mean over users.

        Raises:
            ArgumentError: the evaluation was not asked for this metric.
        """
        values: npt.NDArray[np.float64] = choose("metric", metric, self.per_user)
        return float(values.mean())

    def __repr__(self) -> str:
        means = ", ".join(f"{name} {self.mean(name):.4f}" for name in self.per_user)
        return f"Cutoff({self.name}: {means})"

    def interval(self, metric: str, *, seed: int = 0) -> tuple[float, float]:
        """Bootstrap 95% interval of the mean over users."""
        return bootstrap_interval(self.per_user[metric], seed=seed)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """How good a model's answers are.

    Attributes:
        users: external ids of the users evaluated, those with at least one test interaction that can be answered.
        interactions: test interactions evaluated.
        dropped: test users, items and interactions left out because the training does not know them.
        seen: test interactions left out because the training has them: they are masked, so nobody could hit them.
        cutoffs: by ascending k, then by threshold as given.
    """

    users: npt.NDArray[Any]
    interactions: int
    dropped: Dropped
    seen: int
    cutoffs: tuple[Cutoff, ...]

    def at(self, k: int) -> Cutoff:
        """The cutoff at the k best.

        Raises:
            ArgumentError: the evaluation was not asked for this k.
        """
        for cutoff in self.cutoffs:
            if cutoff.k == k:
                return cutoff
        held = ", ".join(str(cutoff.k) for cutoff in self.cutoffs if cutoff.k is not None)
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
            "cutoffs": [
                {
                    ("k" if cutoff.k is not None else "threshold"): cutoff.k
                    if cutoff.k is not None
                    else cutoff.threshold,
                    "metrics": {
                        name: {"mean": cutoff.mean(name)}
                        | ({"interval_95": list(cutoff.interval(name))} if intervals else {})
                        for name in cutoff.per_user
                    }
                    | (
                        {"f1_of_means": {"mean": f1_of_means(cutoff.per_user["precision"], cutoff.per_user["recall"])}}
                        if {"precision", "recall"} <= cutoff.per_user.keys()
                        else {}
                    ),
                    "coverage": cutoff.coverage,
                    "gini": cutoff.gini,
                    "search_seconds": cutoff.seconds,
                }
                for cutoff in self.cutoffs
            ],
        }

    def _rows(self) -> list[list[str]]:
        """Names and means as text, a row per cutoff."""
        names = [name for name in METRICS if any(name in cutoff.per_user for cutoff in self.cutoffs)]
        rows = [["", *names, "coverage", "gini"]]
        for cutoff in self.cutoffs:
            values = [cutoff.mean(name) if name in cutoff.per_user else None for name in names]
            rows.append(
                [cutoff.name, *("" if v is None else f"{v:.4f}" for v in (*values, cutoff.coverage, cutoff.gini))]
            )
        return rows

    def _note(self) -> str:
        return f"means over {len(self.users):,} users, {self.interactions:,} test interactions"

    def __repr__(self) -> str:
        return "\n".join([*("".join(f"{text:>12}" for text in row) for row in self._rows()), self._note()])

    def _repr_html_(self) -> str:
        head, *rows = ([html.escape(text) for text in row] for row in self._rows())
        lines = [f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows]
        return f"<table><tr><th>{'</th><th>'.join(head)}</th></tr>{''.join(lines)}</table><p>{self._note()}</p>"


def evaluate(
    model: Any,
    test: Any,
    k: int | Iterable[int] = (20, 50, 100),
    *,
    threshold: float | Iterable[float] = (),
    metrics: Iterable[str] = QUALITY,
    train: Any = None,
) -> Evaluation:
    """Rank the whole catalogue for every user of the test, and evaluate the answers.

    Users without training interactions are left out, and counted in ``dropped``: interactions alone cannot answer them.

    Args:
        model: a trained model, or the path of a saved one; or answers from elsewhere: any object with
            ``recommend(users=…, k=…)`` that returns a table, such a table (pandas, Polars, Arrow, a mapping), or a file
            of one (.csv, .tsv, .parquet, .jsonl). A table has columns user and item, and rank or score; without these
            its rows are in order, best first. A user who is not in it has an empty answer.
        test: held-out interactions, or anything that ``read_interactions`` takes; of a folder with ``test.txt``, that.
        k: one cutoff or several. Default: 20, 50 and 100.
        threshold: one threshold or several, for threshold search. Default: none.
        metrics: keys of ``hashlgn.evaluation.metrics.METRICS``, which holds the other NDCGs too. Default: ``QUALITY``.
        train: for answers from elsewhere, what the users had seen. Test interactions that are in it are left out, as
            are test users who are not. Without it every user of the test is evaluated, and there is no catalogue to
            state coverage of. Answers stay as they are.

    Raises:
        ArgumentError: a cutoff breaks its rule, a metric is unknown, or ``model`` is nothing that answers.
        DataError: no test interaction is one that could be answered, or answers cannot be read.
        NotFittedError: the model is not trained.
    """
    cutoffs = sorted({positive_int("k", value) for value in _several(k)})
    thresholds = [threshold_value("threshold", value) for value in _several(threshold)]
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in names:
        choose("metric", name, METRICS)
    if not cutoffs and not thresholds:
        raise ArgumentError("k must hold at least one cutoff where there is no threshold (got none)")
    if isinstance(model, Recommender):
        _ = model.model  # not trained: said before anything is read
    held_out = test if isinstance(test, Interactions) else read_test(test)
    seen = train if train is None or isinstance(train, Interactions) else read_interactions(train)
    answers = answers_of(model, held_out, seen, cutoffs[-1] if cutoffs else None)
    fresh, dropped, in_training = _fresh(held_out, answers)
    users = np.flatnonzero(np.diff(fresh.indptr))
    evaluated = [
        *(_top(answers, fresh, users, cutoffs, names) if cutoffs else ()),
        *(_over(answers, fresh, users, value, names) for value in thresholds),
    ]
    ids = answers.known.user_ids.decode(users)
    return Evaluation(ids, len(fresh), dropped, in_training, tuple(evaluated))


def _fresh(test: Interactions, answers: Answers) -> tuple[Interactions, Dropped, int]:
    """Test interactions that can be answered; what is unknown; how many others the training has."""
    known = answers.known
    data, dropped = test.encode_like(known)
    if not answers.masked:
        return data, dropped, 0
    cold = np.diff(known.indptr)[data.rows] == 0
    dropped = Dropped(
        dropped.users + len(np.unique(data.rows[cold])), dropped.items, dropped.interactions + int(cold.sum())
    )
    data = data.select(~cold)
    seen = Exclusion.build(known.n_items, seen=(known.indptr, known.indices)).excluded(data.rows, data.indices)
    if seen.all():
        raise DataError(
            "test must hold interactions of users in the training with known items they have not seen (got none: "
            f"{len(data)} are in the training, and {dropped.interactions} have a user or an item that it does not know)"
        )
    return data.select(~seen), dropped, int(seen.sum())


def read_test(source: Any, **options: Any) -> Interactions:
    """Read held-out interactions: of a folder with ``test.txt``, that file; else as ``read_interactions``."""
    if isinstance(source, str | Path):
        source = resolved(source)
        if (source / "test.txt").is_file():
            options.setdefault("part", "test")
    return read_interactions(source, **options)


def _top(answers: Answers, test: Interactions, users: Ints, cutoffs: list[int], names: list[str]) -> list[Cutoff]:
    parts, found, seconds = [], [], 0.0
    for chunk, truth in _batches(test, users):
        hits, took = answers.search(chunk, cutoffs[-1], None)
        seconds += took
        parts.append(Evaluated.build(hits.indptr, hits.items, *truth))
        place = np.arange(len(hits.items)) - np.repeat(hits.indptr[:-1], np.diff(hits.indptr))
        found.append((place, hits.items))
    evaluated = Evaluated.concatenate(parts)
    place, items = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return [
        Cutoff(
            k,
            None,
            {name: METRICS[name](evaluated, k) for name in names},
            *_spread(answers, items[place < k]),
            seconds,
        )
        for k in cutoffs
    ]


def _over(answers: Answers, test: Interactions, users: Ints, threshold: float, names: list[str]) -> Cutoff:
    parts, items, seconds = [], [], 0.0
    for chunk, truth in _batches(test, users):
        hits, took = answers.search(chunk, None, threshold)
        seconds += took
        parts.append(Evaluated.build(hits.indptr, hits.items, *truth))
        items.append(hits.items)
    evaluated = Evaluated.concatenate(parts)
    per_user = {name: METRICS[name](evaluated, None) for name in (*names, *_SIZE)}
    return Cutoff(None, threshold, per_user, *_spread(answers, np.concatenate(items)), seconds)


def _spread(answers: Answers, items: Ints) -> tuple[float | None, float | None]:
    """Coverage and Gini coefficient of the answers over the catalogue of the training."""
    if not answers.masked:
        return None, None
    n_items = answers.known.n_items
    known = items[items < n_items]  # answers from elsewhere may hold items that nobody has in training
    return coverage(known, n_items), gini(known, n_items)


def _batches(test: Interactions, users: Ints) -> Iterator[tuple[Ints, Any]]:
    """Users a few thousand at a time, with what they are tested on."""
    for start in range(0, len(users), BATCH):
        chunk = users[start : start + BATCH]
        yield chunk, rows_of((test.indptr, test.indices), chunk)


def _several(values: Any) -> list[Any]:
    """One value or several, as a list."""
    if (
        isinstance(values, str)
        or not isinstance(values, Iterable)
        or (isinstance(values, np.ndarray) and not values.ndim)
    ):
        return [values]
    return list(values)
