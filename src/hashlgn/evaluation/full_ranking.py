"""Full-ranking evaluation: every item is a candidate, what a user has in training is masked."""

from __future__ import annotations

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
from hashlgn.evaluation.calibration import Reliability, reliability
from hashlgn.evaluation.groups import item_groups, user_groups
from hashlgn.evaluation.metrics import BEYOND, METRICS, Evaluated, Recommended, coverage, gini
from hashlgn.evaluation.result import Cutoff, Evaluation
from hashlgn.inference.answering import BATCH
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.rows import rows_of

__all__ = ["QUALITY", "evaluate", "read_test"]

QUALITY = ("precision", "recall", "f1", "ndcg", "map", "mrr", "hit_rate")
Ints = npt.NDArray[np.int64]
_SIZE = ("answer_size", "empty")
_PAIRS = 200  # best items per user whose probabilities are compared with what happened


def evaluate(
    model: Any,
    test: Any,
    k: int | Iterable[int] = (20, 50, 100),
    *,
    threshold: float | Iterable[float] = (),
    metrics: Iterable[str] = QUALITY,
    train: Any = None,
    history: Any = None,
) -> Evaluation:
    """Rank the whole catalogue for every user of the test, and evaluate the answers.

    Users without training interactions are left out, and counted in ``dropped``: interactions alone cannot answer them.
    Of a model with a calibration, the probabilities of each user's 200 best items are compared with what happened.

    Args:
        model: a trained model, or the path of a saved one; or answers from elsewhere: any object with
            ``recommend(users=…, k=…)`` that returns a table, such a table (pandas, Polars, Arrow, a mapping), or a file
            of one (.csv, .tsv, .parquet, .jsonl). A table has columns user and item, and rank or score; without these
            its rows are in order, best first. A user who is not in it has an empty answer.
        test: held-out interactions, or anything that ``read_interactions`` takes; of a folder, ``test.txt`` is
            read where it is there.
        k: one cutoff or several. Default: 20, 50 and 100.
        threshold: one threshold or several, for threshold search. Default: none.
        metrics: keys of ``hashlgn.evaluation.metrics.METRICS``, which holds the other NDCGs too, and of ``BEYOND``, the
            metrics beyond accuracy. Default: ``QUALITY``.
        train: for answers from elsewhere, what the users had seen. Test interactions that are in it are left out, as
            are test users who are not. Without it every user of the test is evaluated, and there is no catalogue to
            state coverage of. Answers stay as they are.
        history: for a model of this project, what the users of the test have interacted with, as ``test``: it takes the
            place of the stored histories, and is masked in their stead. The users need not be in the training (strong
            generalisation, see ``hashlgn.data.leave_users``). Users of the test without a known item in it are left
            out, and counted. Default: the histories that the model stores.

    Raises:
        ArgumentError: a cutoff breaks its rule, a metric is unknown, or ``model`` is nothing that answers.
        DataError: no test interaction is one that could be answered, or answers cannot be read.
        NotFittedError: the model is not trained.
    """
    cutoffs = sorted({positive_int("k", value) for value in _several(k)})
    thresholds = [threshold_value("threshold", value) for value in _several(threshold)]
    names = _several(metrics)
    for name in names:
        choose("metric", name, METRICS | BEYOND)
    if not cutoffs and not thresholds:
        raise ArgumentError("k must hold at least one cutoff where there is no threshold (got none)")
    if isinstance(model, Recommender):
        _ = model.model  # not trained: said before anything is read
    held_out = test if isinstance(test, Interactions) else read_test(test)
    seen = train if train is None or isinstance(train, Interactions) else read_interactions(train)
    given = history if history is None or isinstance(history, Interactions) else read_interactions(history)
    answers = answers_of(model, held_out, seen, given, cutoffs[-1] if cutoffs else None)
    fresh, dropped, in_training = _fresh(held_out, answers)
    users = np.flatnonzero(np.diff(fresh.indptr))
    pairs: list[tuple[_Pool, Cutoff]] = []
    if cutoffs:
        pool = _Pool.search(answers, fresh, users, cutoffs[-1], None)
        pairs += [(pool, pool.cutoff(value, None, names)) for value in cutoffs]
    for value in thresholds:
        pool = _Pool.search(answers, fresh, users, None, value)
        pairs.append((pool, pool.cutoff(None, value, (*names, *_SIZE))))
    lengths = np.diff(answers.known.indptr)[users]
    of_items = [(cutoff, pool.recommended) for pool, cutoff in pairs if pool.recommended is not None]
    return Evaluation(
        answers.known.user_ids.decode(users),
        len(fresh),
        dropped,
        in_training,
        tuple(cutoff for _, cutoff in pairs),
        user_groups(lengths, fresh, users, [cutoff for _, cutoff in pairs]) if answers.masked else (),
        () if answers.counts is None else item_groups(answers.counts, fresh, users, of_items),
        _reliability(answers, fresh, users),
    )


def _reliability(answers: Answers, test: Interactions, users: Ints) -> Reliability | None:
    """What the probabilities of each user's best items are worth, over the horizon that the test has."""
    calibration = answers.calibration
    if calibration is None:
        return None
    counts = np.diff(answers.known.indptr)
    pool = _Pool.search(answers, test, users, _PAIRS, None)
    horizon = len(test) / int(counts[users].sum())
    labels = np.zeros(len(pool.items), np.bool_)
    labels[pool.hits] = True
    of_users = np.repeat(counts[users], pool.evaluated.sizes)
    return reliability(calibration.probability(pool.scores, of_users, horizon), labels, horizon=horizon)


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
            f"{len(data)} are in the training, and {dropped.interactions} have a user or an item that it does not know"
            f"{'; `hashlgn data split` makes a test part' if len(data) else ''})"
        )
    return data.select(~seen), dropped, int(seen.sum())


def read_test(source: Any, **options: Any) -> Interactions:
    """Read held-out interactions: of a folder with ``test.txt``, that file; else as ``read_interactions``."""
    if isinstance(source, str | Path):
        source = resolved(source)
        if (source / "test.txt").is_file():
            options.setdefault("part", "test")
    return read_interactions(source, **options)


@dataclass(frozen=True, eq=False)
class _Pool:
    """The answers to all users of one search, compared with the truth."""

    evaluated: Evaluated  # where the hits are
    recommended: Recommended | None  # the same with what the training says of the items; None where it is not known
    items: Ints  # of all answers, one after the other
    scores: npt.NDArray[np.float32]  # their scores
    hits: Ints  # positions of the hits in ``items``
    seconds: float  # wall time of the search

    @classmethod
    def search(cls, answers: Answers, test: Interactions, users: Ints, k: int | None, threshold: float | None) -> _Pool:
        """Search for all users, a batch at a time."""
        parts, found, scores, seconds = [], [], [], 0.0
        for chunk, truth in _batches(test, users):
            hits, took = answers.search(chunk, k, threshold)
            seconds += took
            parts.append(Evaluated.build(hits.indptr, hits.items, *truth))
            found.append(hits.items)
            scores.append(hits.scores)
        evaluated, items = Evaluated.concatenate(parts), np.concatenate(found)
        indptr = np.append(0, np.cumsum(evaluated.sizes))
        hit = indptr[evaluated.rows] + evaluated.ranks
        recommended = None
        if answers.counts is not None:
            relevant = np.zeros(len(items), np.bool_)
            relevant[hit] = True
            shares = answers.counts / max(answers.n_users, 1)
            bounds, own = rows_of((answers.known.indptr, answers.known.indices), users)
            sums = np.bincount(np.repeat(np.arange(len(users)), np.diff(bounds)), shares[own], minlength=len(users))
            profile = sums / np.maximum(np.diff(bounds), 1)
            about = answers.counts, answers.n_users, profile, answers.features
            recommended = Recommended(indptr, items, relevant, *about)
        return cls(evaluated, recommended, items, np.concatenate(scores), hit, seconds)

    def cutoff(self, k: int | None, threshold: float | None, names: Iterable[str]) -> Cutoff:
        """The metrics of the k best, or of the whole answers."""
        per_user = {}
        for name in names:
            if name in METRICS:
                per_user[name] = METRICS[name](self.evaluated, k)
            elif self.recommended is not None:
                per_user[name] = BEYOND[name](self.recommended, k)
            else:
                raise ArgumentError(f"metric {name!r} needs train, what the users had seen (got None)")
        spread: tuple[float | None, float | None] = (None, None)
        if self.recommended is not None:  # answers from elsewhere may hold items that nobody has in training
            n_items = len(self.recommended.counts)
            held = self.items[self.recommended.within(k) & (self.items < n_items)]
            spread = coverage(held, n_items), gini(held, n_items)
        return Cutoff(k, threshold, per_user, *spread, self.seconds)


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
