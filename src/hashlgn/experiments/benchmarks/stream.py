"""A data set replayed by time: answer, see what people do next, learn it, and so on; ours beside baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from hashlgn.data import Ids, Interactions
from hashlgn.errors import ArgumentError, DataError, choose, need
from hashlgn.experiments.common.measure import timed
from hashlgn.experiments.common.page import new_figure, write_figure
from hashlgn.experiments.common.runs import recommender
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.sizes import model_bytes
from hashlgn.refitting import refit
from hashlgn.utils.provenance import provenance

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

AGES = (1, 2, 5, 10, 20, 50)  # interactions of an item when it is asked for: where the next group begins
_ALS: dict[str, Any] = {"factors": 64, "regularization": 1.0, "alpha": 5.0, "iterations": 15}


class Method(Protocol):
    """What answers, and learns or not."""

    def scores(self, users: Ints) -> Floats:
        """Scores of all items for users, ``(q, items)``; −inf for items that are not known."""

    def learn(self, part: Interactions, known: Interactions) -> None:
        """Take in what happened in a period; ``known`` is all up to its end."""

    def nbytes(self) -> int:
        """Bytes of what is kept."""


class _Ours:
    """A model of this project; ``learn`` is given."""

    def __init__(self, model: Recommender, n_items: int, learn: Learn) -> None:
        self.model, self._n, self._learn = model, n_items, learn

    def scores(self, users: Ints) -> Floats:
        model = self.model.model
        out = np.full((len(users), self._n), -np.inf, np.float32)
        numbers = model.user_ids.encode(users, on_unknown="mark")
        items = model.item_ids.values.astype(np.int64)
        here = numbers >= 0
        out[np.ix_(here, items)] = model.queries_of(numbers[here]) @ model.items.decode().T
        out[np.ix_(~here, items)] = model.popularity
        return out

    def learn(self, part: Interactions, known: Interactions) -> None:
        self.model = self._learn(self.model, part, known)

    def nbytes(self) -> int:
        return int(model_bytes(self.model.model)["total"])


class _Popular:
    """What most people had in the last period."""

    def __init__(self, known: Interactions, share: float) -> None:
        times = known.times
        assert times is not None
        newest = np.argsort(-times, kind="stable")[: max(1, int(share * len(known)))]
        self._counts = np.bincount(known.indices[newest], minlength=known.n_items).astype(np.float32)

    def scores(self, users: Ints) -> Floats:
        return np.tile(self._counts, (len(users), 1))

    def learn(self, part: Interactions, known: Interactions) -> None:
        self._counts = np.bincount(part.indices, minlength=known.n_items).astype(np.float32)

    def nbytes(self) -> int:
        return int(self._counts.nbytes)


class _Als:
    """Alternating least squares of the package ``implicit``, updated by its own ``partial_fit``."""

    def __init__(self, known: Interactions, seed: int, threads: int | None) -> None:
        need("implicit", "references", "the baseline ALS")
        from implicit.cpu.als import AlternatingLeastSquares

        self._model = AlternatingLeastSquares(**_ALS, random_state=seed, num_threads=threads or 0)
        self._model.fit(known.matrix, show_progress=False)
        self._popular = np.bincount(known.indices, minlength=known.n_items).astype(np.float32)
        self._known = np.diff(known.indptr) > 0

    def scores(self, users: Ints) -> Floats:
        found: Floats = self._model.user_factors[users] @ self._model.item_factors.T
        found[~self._known[users]] = self._popular
        return found

    def learn(self, part: Interactions, known: Interactions) -> None:
        users, items = np.flatnonzero(np.diff(part.indptr)), np.unique(part.indices)
        self._model.partial_fit_users(users, known.matrix[users])
        self._model.partial_fit_items(items, known.matrix.T.tocsr()[items])
        self._known[users] = True

    def nbytes(self) -> int:
        return int(self._model.user_factors.nbytes + self._model.item_factors.nbytes)


def _users(model: Recommender, part: Interactions, known: Interactions) -> Recommender:
    there = np.zeros(part.n_items, np.bool_)
    there[model.model.item_ids.values.astype(np.int64)] = True
    model.update(part.select(there[part.indices]), budget=0)
    return model


def _both(model: Recommender, part: Interactions, known: Interactions) -> Recommender:
    model.update(part)
    return model


Learn = Callable[[Recommender, Interactions, Interactions], Recommender]  # model, period, all up to its end
OURS: dict[str, Learn] = {
    "never": lambda model, part, known: model,
    "users": _users,
    "users and items": _both,
    "refit": lambda model, part, known: refit(model, part, threads=model.threads),
}
METHODS = (*OURS, "train anew", "ALS", "popular")  # what is compared, by name


def bench_stream(
    data: Interactions | None = None,
    *,
    interactions: int = 100_000,
    methods: Sequence[str] | None = None,
    start: float = 0.5,
    periods: int = 5,
    k: int = 20,
    threads: int | None = None,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train on the first part of a data set, then by turns answer and learn the rest, period by period.

    Asked are the users of each period who have a history by then. A question is an interaction of the period that the
    user has not had before, and the answer holds the k best items without those the user has had. Arguments are the
    options of ``hashlgn bench stream``; of ``drifting`` data there are a user and an item for 60 interactions.

    Returns:
        ``rows``, one per method: recall@k over all questions, and by the number of interactions that the item had when
        it was asked for; seconds of learning, milliseconds per interaction, megabytes. ``course``: recall by period.

    Raises:
        ArgumentError: a method is unknown, or a number breaks its rule.
        DataError: there are no times.
    """
    methods = METHODS if methods is None else methods
    for name in methods:
        choose("method", name, dict.fromkeys(METHODS))
    if not 0 < start < 1 or periods < 1:
        raise ArgumentError(f"start must lie between 0 and 1, and periods be positive (got {start} and {periods})")
    if data is None:
        size = max(20, interactions // 60)
        data = drifting(size, size, interactions, seed=seed)
    if data.times is None:
        raise DataError("bench stream needs times (the data has none: name their column, as --columns time=when)")
    numbered = Interactions(
        Ids.range(data.n_users), Ids.range(data.n_items), data.indptr, data.indices, None, data.times
    )
    order = np.argsort(data.times, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    bounds = np.linspace(start * len(order), len(order), periods + 1).astype(np.int64)
    first = numbered.select(place < bounds[0])

    @cache
    def base() -> Recommender:
        return train(first)

    def train(known: Interactions) -> Recommender:
        # By number: users and items are known to the model from their first interaction on.
        return recommender(known, changes, seed=seed, threads=threads)

    def method(name: str) -> Method:
        if name == "popular":
            return _Popular(first, (1 - start) / periods / start)
        if name == "ALS":
            return _Als(first, seed, threads)
        learn = OURS.get(name) or (lambda model, part, known: train(known))
        return _Ours(Recommender(base().model, threads=threads), numbered.n_items, learn)

    rows, course = [], []
    for name in methods:
        row, recalls = _replayed(name, method(name), numbered, place, bounds, k, say)
        rows.append(row)
        course.append({"method": name} | {str(number + 1): recall for number, recall in enumerate(recalls)})
    return {"rows": rows, "course": course, **provenance(data=data.stats(), seed=seed, threads=threads)}


def _replayed(
    name: str, method: Method, data: Interactions, place: Ints, bounds: Ints, k: int, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[float]]:
    """One method over all periods."""
    hits, asked = np.zeros(len(AGES) + 1), np.zeros(len(AGES) + 1)
    recalls, seconds, learnt = [], 0.0, 0
    for begin, end in pairwise(bounds):
        known, part = data.select(place < begin), data.select((place >= begin) & (place < end))
        found, age = _asked(method, known, part, k)
        group = np.searchsorted(AGES, age, side="right")
        hits += np.bincount(group[found], minlength=len(hits))
        asked += np.bincount(group, minlength=len(asked))
        recalls.append(float(found.mean()) if len(found) else 0.0)
        took = timed(partial(method.learn, part, data.select(place < end)))[1]
        seconds += took
        learnt += len(part)
        say(f"{name}: recall@{k} {recalls[-1]:.4f} of {len(found):,}, learnt in {took:.2f} s")
    labels = ["new items", *(f"{a} to {b - 1}" for a, b in pairwise(AGES)), f"{AGES[-1]} on"]
    labels[1] = "1"
    by_age = [float(hit / count) if count else None for hit, count in zip(hits, asked, strict=True)]
    return {
        "method": name,
        f"recall@{k}": float(hits.sum() / max(asked.sum(), 1)),
        **dict(zip(labels, by_age, strict=True)),
        "learning, s": seconds,
        "ms per interaction": 1000 * seconds / max(learnt, 1),
        "MB": method.nbytes() / 1e6,
    }, recalls


def _asked(method: Method, known: Interactions, part: Interactions, k: int) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Whether each question of a period is answered, and how many interactions its item had before."""
    users = np.flatnonzero((np.diff(part.indptr) > 0) & (np.diff(known.indptr) > 0))
    counts = np.bincount(known.indices, minlength=known.n_items)
    found, ages = [np.empty(0, np.bool_)], [np.empty(0, np.int64)]
    for start in range(0, len(users), 512):
        chunk = users[start : start + 512]
        scores = method.scores(chunk)
        wanted: Any = sparse.csr_matrix(part.matrix[chunk])
        mine = known.matrix[chunk].nonzero()
        scores[mine] = -np.inf
        size = min(k, scores.shape[1])
        top = np.argpartition(-scores, size - 1, axis=1)[:, :size]
        answered = np.zeros(scores.shape, np.bool_)
        np.put_along_axis(answered, top, np.take_along_axis(scores, top, axis=1) > -np.inf, axis=1)
        rows, items = wanted.nonzero()
        found.append(answered[rows, items])
        ages.append(counts[items])
    return np.concatenate(found), np.concatenate(ages)


def drifting(n_users: int, n_items: int, interactions: int, *, seed: int = 0) -> Interactions:
    """Made interactions with times, in which items are born and fade, and people change their minds.

    Half of the items are there from the start, the others are born at even steps. An item is wanted by the people of
    its cluster, the more the younger it is. Each user prefers one of 12 clusters, and now and then another one. Users
    arrive at even steps too, half of them at the start. ``interactions`` are draws: repeated pairs count once.
    """
    rng, clusters = np.random.default_rng(seed), 12
    birth = np.maximum(0, np.linspace(-1, 1, n_items))[rng.permutation(n_items)]
    arrival = np.maximum(0, np.linspace(-1, 1, n_users))
    of_item, quality = rng.integers(clusters, size=n_items), rng.lognormal(0, 1, n_items)
    likes = rng.integers(clusters, size=(4, n_users))  # a user's clusters, one after the other
    shift = rng.random(n_users)
    users, items, moments = [], [], np.sort(rng.random(interactions))
    for part in np.array_split(moments, max(1, interactions // 2000)):
        now = part[-1]
        weight = np.where(birth <= now, quality * (0.2 + np.exp(-4 * (now - birth))), 0)
        who = rng.choice(np.flatnonzero(arrival <= now), len(part))
        own = likes[((now + shift[who]) * 2).astype(np.int64) % 4, who]
        cluster = np.where(rng.random(len(part)) < 0.8, own, rng.integers(clusters, size=len(part)))
        what = np.zeros(len(part), np.int64)
        for number in range(clusters):
            here = cluster == number
            chance = weight * (of_item == number)
            if chance.sum() == 0:
                chance = weight
            what[here] = rng.choice(n_items, int(here.sum()), p=chance / chance.sum())
        users.append(who)
        items.append(what)
    times = (moments * 1e9).astype(np.int64)
    return Interactions.from_pairs(np.concatenate(users), np.concatenate(items), times=times)


def draw(path: Path, result: Mapping[str, Any]) -> None:
    """Recall by period, a line per method."""
    figure, (axes,) = new_figure(1, 1, (7, 4))
    for line in result["course"]:
        periods = [name for name in line if name != "method"]
        axes.plot([int(name) for name in periods], [line[name] for name in periods], marker="o", label=line["method"])
    recall = next(name for name in result["rows"][0] if name.startswith("recall"))
    axes.set(xlabel="period", ylabel=recall, xticks=[int(n) for n in result["course"][0] if n != "method"])
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    write_figure(path, figure)
