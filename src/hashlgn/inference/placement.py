"""Where a new item goes: both of its vectors from the people who first had it, without a training.

Let ``v_u`` be the sums of the histories of the n people who have an item, each without the item itself, and ``m`` the
mean of the unit queries ``v_u / ‖v_u‖`` with the weights ``‖v_u‖^-1/4``: a long history says less of each of its items.
A weighted mean is worth ``n' = (Σ weights)² / Σ weights²`` people (Kish, *Survey Sampling*, 1965). Over the items of a
training, ``m = μ + s + e``: the signal s tells items apart and has the covariance ``S``; the error e has ``N / n'``. In
the axes w that make N the identity and S diagonal, ``λ``, the best linear estimate of an item's vector o from m is

    o(m, n) = a + b ln(1 + n) + Σ_k c_k · w_k·(m − μ) / (λ_k + 0.7 / n'),      c_k = cov(o, w_k·m)

but for the factor 0.7: an order of items suffers less from noise than from directions that are shrunk. So a single
interaction moves an item little from where an average item of the training is. Each ``w_k·(m − μ)`` is held within four
of its standard deviations over items of the training, ``√(λ_k + 1 / n')``. New items have new people, who differ from
those of the training; the items would follow, the people's queries would follow the items, and in the end new items
would fill the answers.

A mean does not tell who the people are, and a training knows: it draws an item towards each of them, and away from all
others. So o moves by the δ that minimises

    n / (n + 3) Σ_{u: people} (q_u·(o + δ) − t)² + α Σ_{u: all} (q_u·δ)² + |δ|²,      α = 0.005

``t`` is what the people of a trained item score on average, as a line over the logarithm of their number. It is read at
8 n people, or at n where that is more: a new item goes on growing, and one step goes a part of the way. All of this is
one step of implicit ALS (Hu, Koren and Volinsky, ICDM 2008) that starts where the mean has put the item. In closed form
``δ = L Xᵀ ((1 + 3 / n) I + X L Xᵀ)^-1 (t − X o)``, with ``X`` the queries of the people, ``L = (α U G + I)^-1``, and
``G`` the second moment of the queries of U users. Where s of n people are asked, each counts n / s times.

The vector p of an item in a history follows the first rule alone, and counts by ``n / (n + 100)``: a history suffers
more from an item at a wrong place than from one that it lacks. ``placement_fit`` has the constants that have no number
here: they come in closed form from the histories and the vectors of the training (an empirical Bayes estimate of a
normal model: Efron and Morris, *Stein's estimation rule and its competitors*, JASA 1973).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg

from hashlgn._kernel import compiled
from hashlgn.errors import ArgumentError
from hashlgn.scoring.codes import Bytes, unpack_subcodes
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.encoding import Coder
from hashlgn.scoring.histories import CodedHistories, FloatHistories
from hashlgn.scoring.items import CodedItems, Items

__all__ = ["WEIGHT", "Placement", "decoded_answers", "decoded_histories"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

_compiled: Any = compiled()
WEIGHT = 0.25  # exponent of the weight ``(1 / ‖v_u‖)^WEIGHT`` of a person
_OTHERS = 0.005  # α: how much a score of a user who does not have an item counts beside one who has it
_DOUBT = 3  # people at whose number an item is drawn half as much
_GROWTH = 8  # times as many people as it has: the score that its people are to have, see above
_NOISE = 0.7  # of an error's variance that counts, see above
_REACH = 4  # standard deviations, over items of the training, that a mean counts for at most along an axis
_NOTHING = 1e-10  # of a squared length: what rounding leaves of a history without its only item
_TRUST = 100  # people from which on an item counts half in a history: a few tell little of what else theirs will want
_DECODED = 128  # items decoded at a time


@dataclass(frozen=True, eq=False)
class Placement:
    """The estimate of this module's equation for both vectors of an item.

    Attributes:
        mean: μ, ``(width,)``.
        axes: w, ``(width, axes)``.
        signal: λ, ``(axes,)``, positive.
        answers: of o: c ``(axes, width)``, then a and b; ``(axes + 2, width)``.
        histories: of p, the same.
        metrics: the second moments of queries and of answers, ``(2, width, width)``.
        lengths: lengths that decoded codes have before their scales, of answers and of histories, ``(2,)``, positive.
        levels: t: mean score of the people of an item is ``levels[0] + levels[1] ln(1 + n)``, ``(2,)``.
        users: of the training, ``(1,)``.

    Raises:
        ArgumentError: the arrays do not fit together.
    """

    mean: Floats
    axes: Floats
    signal: Floats
    answers: Floats
    histories: Floats
    metrics: Floats
    lengths: Floats
    levels: Floats
    users: Floats

    def __post_init__(self) -> None:
        width, axes = len(self.mean), len(self.signal)
        shapes = {"mean": (width,), "axes": (width, axes), "signal": (axes,), "metrics": (2, width, width)}
        shapes |= dict.fromkeys(("answers", "histories"), (axes + 2, width)) | {"lengths": (2,), "levels": (2,)}
        shapes |= {"users": (1,)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.dtype != np.float32 or array.shape != shape or not np.isfinite(array).all():
                raise ArgumentError(
                    f"placement.{name} must be finite float32 {shape} (got {array.dtype} {array.shape})"
                )
        if not ((self.signal > 0).all() and (self.lengths > 0).all()):
            raise ArgumentError("placement.signal and placement.lengths must be positive")

    def coder(self, side: str, codewords: Floats) -> Coder:
        """What makes codes of one side, ``answers`` or ``histories``, of the model that this is of."""
        coders: dict[str, Coder] = self.__dict__.setdefault("_coders", {})
        if side not in coders:
            number = 0 if side == "answers" else 1
            coders[side] = Coder(codewords, self.metrics[number], float(self.lengths[number]))
        return coders[side]

    def estimates(
        self, v: Doubles, rows: Ints, strengths: Floats, bounds: Ints, own: Floats, totals: Ints
    ) -> tuple[Floats, Floats]:
        """Both vectors of items. Runs compiled where the kernel could be compiled.

        Args:
            v: sums of histories, ``(histories, width)``.
            rows: the history of each person who is asked, item by item, ``(entries,)``.
            strengths: ``a_ui`` of the item in it, 0 where it is not there, ``(entries,)``.
            bounds: of the people of each item, ``(n + 1,)``.
            own: vector of each item in a history; 0 of one that is in none, ``(n, width)``.
            totals: how many people have the item, ``(n,)``; some are asked.

        Returns:
            o and p, each ``(n, width)`` float32.
        """
        o, p = np.empty_like(own), np.empty_like(own)
        if _compiled is not None:
            self.held.estimates(v, rows, strengths, bounds, own, totals, o, p)
            return o, p
        for row, (begin, end) in enumerate(pairwise(bounds.tolist())):
            units, weights = _queries(v[rows[begin:end]], strengths[begin:end, None] * own[row].astype(np.float64))
            o[row], p[row] = self._estimate(units, weights, int(totals[row]))
        return o, p

    def _estimate(self, units: Doubles, weights: Doubles, total: int) -> tuple[Doubles, Doubles]:
        """Both vectors of one item from the unit queries of its people and their weights."""
        factors = np.zeros(len(self.answers))
        factors[-2:] = 1, np.log1p(total)
        if len(units):
            worth = weights.sum() ** 2 / (weights**2).sum()
            z = (weights @ units / weights.sum() - self.mean) @ self.axes
            most = _REACH * np.sqrt(self.signal + 1 / worth)
            factors[:-2] = z.clip(-most, most) / (self.signal + _NOISE / worth)
        o = factors @ self.answers
        if len(units) and len(self.signal):
            moved = units @ self._stiffness
            count, n = len(units), max(total, len(units))
            together = moved @ units.T + (1 + _DOUBT / n) * count / n * np.eye(count)
            level = (self.levels[0] + self.levels[1] * np.log1p([total, _GROWTH * total])).max()
            o = o + linalg.solve(together, level - units @ o, assume_a="pos") @ moved
        return o, factors @ self.histories * (total / (total + _TRUST))

    @cached_property
    def held(self) -> Any:
        """The same for the kernel."""
        arrays = self.mean, self.axes, self.signal, self.answers, self.histories, self._stiffness, self.levels
        constants = WEIGHT, _NOTHING, _NOISE, _REACH, _DOUBT, _GROWTH, _TRUST
        return _compiled.Placement(*map(np.ascontiguousarray, arrays), *constants)

    def __getstate__(self) -> dict[str, Any]:
        """The arrays; what is made of them is made again."""
        return self.arrays()

    @cached_property
    def _stiffness(self) -> Floats:
        """``(α U G + I)^-1``."""
        whole = _OTHERS * float(self.users[0]) * self.metrics[0].astype(np.float64)
        inverse: Floats = linalg.inv(whole + np.eye(len(whole))).astype(np.float32)
        return inverse

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, ready to be stored."""
        names = ("mean", "axes", "signal", "answers", "histories", "metrics", "lengths", "levels", "users")
        return {name: getattr(self, name) for name in names}


def _queries(v: Doubles, own: Doubles) -> tuple[Doubles, Doubles]:
    """Unit queries of people without the item itself, and how much each weighs, of those whose history has more."""
    left = v - own
    lengths = np.linalg.norm(left, axis=1)
    kept = lengths**2 > _NOTHING * (v**2).sum(axis=1)
    return left[kept] / lengths[kept, None], lengths[kept] ** -WEIGHT


def decoded_histories(histories: CodedHistories | FloatHistories, items: Ints) -> Floats:
    """Vectors ``p`` of some items, ``(n, width)`` float32."""
    if isinstance(histories, FloatHistories):
        return histories.items[items]
    return _decoded(histories.codewords, *histories.take(items))


def decoded_answers(items: Items, some: Ints) -> Floats:
    """Vectors ``o`` of some items, ``(n, width)`` float32."""
    if isinstance(items, CodedItems) and isinstance(items.decoder, CodebookDecoder):
        packed, scale = items.rows(some)
        if scale is not None:
            return _decoded(items.decoder.codewords, packed, scale)
    return items.take(some).decode()


def _decoded(codewords: Floats, packed: Bytes, scale: npt.NDArray[np.floating[Any]]) -> Floats:
    flat = codewords.reshape(-1, codewords.shape[2])
    decoded = np.empty((len(packed), flat.shape[1]), np.float32)
    if _compiled is not None:
        _compiled.decode(packed, scale, flat, decoded)
        return decoded
    starts = 16 * np.arange(len(codewords))
    for start in range(0, len(packed), _DECODED):
        part = slice(start, start + _DECODED)
        decoded[part] = flat[unpack_subcodes(packed[part]) + starts].sum(axis=1)
        decoded[part] *= scale[part, None]
    return decoded
