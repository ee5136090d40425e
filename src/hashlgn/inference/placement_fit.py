"""The constants of where new items go, from the histories and the vectors of a training; see ``placement``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from hashlgn.inference.placement import WEIGHT, Placement, decoded_answers, decoded_histories
from hashlgn.scoring.histories import CodedHistories, FloatHistories
from hashlgn.scoring.items import CodedItems, Items

__all__ = ["fit_placement"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

_ENTRIES = 1_000_000  # interactions of a sample of users that decide the constants
_LEAST = 1e-2  # of the largest λ: a direction with less tells items apart all the same
_CHUNK = 512  # interactions whose vectors are gathered at a time: more would leave the caches
_ITEMS = 20_000  # whose answers are the metric of the histories' codes


def fit_placement(
    items: Items,
    histories: CodedHistories | FloatHistories,
    seen: tuple[Ints, npt.NDArray[np.int32]],
    strengths: Floats | None,
) -> Placement:
    """The constants of a trained model, from its vectors and the histories that it stores.

    Of large data, a sample of users decides.
    """
    n_items = len(items)
    degree = np.bincount(seen[1], minlength=n_items)
    x = _sampled(seen, strengths, n_items)
    used = np.flatnonzero(np.bincount(x.indices, minlength=n_items))
    x = x[:, used]
    p, o = decoded_histories(histories, used), decoded_answers(items, used)
    v = np.asarray(x @ p)
    inverse = _inverse_lengths(x, v, p)
    sums, totals, worth = _weighted(x, v, p, inverse)
    known = np.bincount(x.indices[inverse > 0], minlength=len(used)) >= 2
    if np.count_nonzero(known) < 2:
        return _average(items, histories)
    noise = _noise(x, v, p, inverse, sums, totals, worth)
    mean, axes, signal, z, weight = _axes(sums[known] / totals[known, None], worth[known], noise)
    logs = np.column_stack((np.ones(int(known.sum())), np.log1p(degree[used][known])))
    parts = (_regressed(part[known], z, logs, weight) for part in (o, p))
    lengths = _lengths(items, histories, used, o, p)
    levels = _levels(x, v, p, o, inverse, np.column_stack((np.ones(len(used)), np.log1p(degree[used]))))
    users = np.array([np.count_nonzero(np.diff(seen[0]))], np.float32)
    return Placement(mean, axes, signal, next(parts), next(parts), _moments(v, o), lengths, levels, users)


def _lengths(items: Items, histories: CodedHistories | FloatHistories, some: Ints, o: Floats, p: Floats) -> Floats:
    """Mean lengths of decoded codes before their scales, of both sides; 1 where they are floats.

    Args:
        items: answers.
        histories: items in histories.
        some: items, ``(n,)``.
        o: their vectors as answers, ``(n, width)``.
        p: in histories, ``(n, width)``.
    """
    found = np.ones(2)
    if isinstance(items, CodedItems):
        scale = items.take(some).scale
        found[0] = _mean_length(o, np.ones(len(o)) if scale is None else scale)
    if isinstance(histories, CodedHistories):
        found[1] = _mean_length(p, histories.take(some)[1])
    return np.maximum(found, 1e-6).astype(np.float32)


def _mean_length(vectors: Floats, scales: npt.NDArray[np.floating[Any]]) -> float:
    scales = np.abs(scales.astype(np.float64))
    return float((np.linalg.norm(vectors, axis=1)[scales > 0] / scales[scales > 0]).sum() / max((scales > 0).sum(), 1))


def _average(items: Items, histories: CodedHistories | FloatHistories) -> Placement:
    """Every new item is an average one: nothing is known of the people."""
    some, width = np.arange(0, len(items), -(-len(items) // _ITEMS)), items.width
    o, p = decoded_answers(items, some), decoded_histories(histories, some)
    a, b = (np.vstack((part.mean(axis=0), np.zeros(width))).astype(np.float32) for part in (o, p))
    nothing = np.zeros((width, 0), np.float32)
    lengths = _lengths(items, histories, some, o, p)
    unknown = np.zeros(2, np.float32)
    return Placement(
        np.zeros(width, np.float32), nothing, nothing[0], a, b, _moments(p, o), lengths, unknown, unknown[:1]
    )


def _sampled(seen: tuple[Ints, npt.NDArray[np.int32]], strengths: Floats | None, n_items: int) -> Any:
    """The histories of some users, as a sparse matrix of strengths."""
    indptr, indices = seen
    values = np.ones(len(indices), np.float32) if strengths is None else np.asarray(strengths)
    x = sparse.csr_matrix((values, indices, indptr), (len(indptr) - 1, n_items))
    active = np.flatnonzero(np.diff(indptr) > 1)
    if len(indices) > _ENTRIES:
        count = max(2, len(active) * _ENTRIES // len(indices))
        active = np.sort(np.random.default_rng(0).choice(active, min(count, len(active)), replace=False))
    return x[active]


def _inverse_lengths(x: Any, v: Floats, p: Floats) -> Floats:
    """``1 / ‖v_u − a_ui p_i‖`` for every interaction; 0 where nothing is left."""
    rows = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    products = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        products[part] = np.einsum("ij,ij->i", v[rows[part]], p[x.indices[part]])
    own, square = np.einsum("ij,ij->i", v, v)[rows], np.einsum("ij,ij->i", p, p)[x.indices]
    left = own - 2 * x.data * products + x.data**2 * square
    inverse: Floats = np.where(left > 1e-6 * own, 1 / np.sqrt(np.maximum(left, 1e-30)), 0).astype(np.float32)
    return inverse


def _levels(x: Any, v: Floats, p: Floats, o: Floats, inverse: Floats, logs: Doubles) -> Floats:
    """The mean score of an item's people, each without the item, as a line over the logarithm of their number."""
    units = sparse.csr_matrix((inverse, x.indices, x.indptr), x.shape)
    own = np.bincount(x.indices, x.data * inverse, x.shape[1])
    sums = np.einsum("ij,ij->i", np.asarray(units.T @ v), o) - own * np.einsum("ij,ij->i", p, o)
    counts = np.bincount(x.indices[inverse > 0], minlength=x.shape[1])
    levels: Floats = linalg.lstsq(logs.T @ (counts[:, None] * logs), logs.T @ sums)[0].astype(np.float32)
    return levels


def _weighted(x: Any, v: Floats, p: Floats, inverse: Floats) -> tuple[Floats, Floats, Floats]:
    """Of each item the sum of its people's unit queries with their weights, the sum of the weights, and n'."""
    weights = inverse**WEIGHT
    shares = sparse.csr_matrix((weights * inverse, x.indices, x.indptr), x.shape)

    def summed(values: Floats) -> Floats:
        return np.bincount(x.indices, values, x.shape[1]).astype(np.float32)

    sums = np.asarray(shares.T @ v) - summed(x.data * shares.data)[:, None] * p
    totals, squares = summed(weights), summed(weights**2)
    worth: Floats = (totals**2 / np.maximum(squares, 1e-30)).astype(np.float32)
    return sums, totals, worth


def _noise(x: Any, v: Floats, p: Floats, inverse: Floats, sums: Floats, totals: Floats, worth: Floats) -> Doubles:
    """``N``: how the queries of an item's people spread around their mean."""
    squares = sparse.csr_matrix((inverse ** (2 + WEIGHT), x.indices, x.indptr), x.shape)
    crossed = sparse.csr_matrix((x.data * squares.data, x.indices, x.indptr), x.shape)
    own = np.bincount(x.indices, x.data**2 * squares.data, x.shape[1]).astype(np.float32)
    cross = v.T @ np.asarray(crossed @ p)
    total = v.T @ (np.asarray(squares.sum(axis=1)).reshape(-1, 1) * v) - cross - cross.T + p.T @ (own[:, None] * p)
    means = sums / np.maximum(totals, 1e-30)[:, None]  # of an item of one person, all of its part of the total
    freedom = float((totals * (1 - 1 / np.maximum(worth, 1))).sum())
    noise = (total.astype(np.float64) - sums.T @ means) / max(freedom, 1e-30)
    lifted: Doubles = noise + 1e-3 * np.trace(noise) / len(noise) * np.eye(len(noise))
    return lifted


def _axes(means: Floats, worth: Floats, noise: Doubles) -> tuple[Floats, Floats, Floats, Doubles, Doubles]:
    """Mean, axes and signal of the items' mean queries; their coordinates, and the weight of each item."""
    weight = worth.astype(np.float64) / (worth + 10)
    weight /= weight.sum()
    mean = weight @ means
    spread = ((means - mean) * weight[:, None]).T @ (means - mean) - noise * (weight / worth).sum()
    try:
        values, axes = linalg.eigh(spread, noise)
    except linalg.LinAlgError:  # few people, or strengths far apart: rounding left less than nothing in some directions
        values, axes = linalg.eigh(spread, _lifted(noise))
    if values[-1] <= 0:  # nothing tells items apart
        values, axes = values[:0], axes[:, :0]
    signal = np.maximum(values, _LEAST * values.max(initial=0))
    return mean.astype(np.float32), axes.astype(np.float32), signal.astype(np.float32), (means - mean) @ axes, weight


def _lifted(noise: Doubles) -> Doubles:
    """The same with eigenvalues of at least a thousandth of the largest; of 1 where all are 0."""
    values, vectors = linalg.eigh(noise)
    least = 1e-3 * float(np.abs(values).max()) or 1.0
    lifted: Doubles = (vectors * np.maximum(values, least)) @ vectors.T
    return lifted


def _regressed(vectors: Floats, z: Doubles, logs: Doubles, weight: Doubles) -> Floats:
    """``c``, ``a`` and ``b`` of one side, ``(axes + 2, width)``."""
    weighted = logs * weight[:, None]
    prior = linalg.lstsq(weighted.T @ logs, weighted.T @ vectors)[0]
    covariance = (z * weight[:, None]).T @ (vectors - logs @ prior)
    return np.vstack((covariance, prior)).astype(np.float32)


def _moments(v: Floats, o: Floats) -> Floats:
    """Second moments of unit queries and of answers."""
    q = v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
    some = o[:: -(-len(o) // _ITEMS)]
    return np.stack([part.T @ part / max(len(part), 1) for part in (q, some)]).astype(np.float32)
