"""Histories: a user is the sum of what is in their history, ``v_u = Σ_{i∈H_u} a_ui p_i``, and no vector of their own.

``a_ui`` is the strength of the interaction and ``p_i`` the vector of item i in a history, kept as floats or as codes.
Sums over items run in float64 and over ascending numbers, so that neither the order of events nor the batch changes a
bit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hashlgn._kernel import compiled
from hashlgn.errors import ArgumentError
from hashlgn.scoring.codes import Bytes
from hashlgn.scoring.products import Doubles, histograms, single_product, unit_rows, weighted_sums
from hashlgn.scoring.rows import ascending_rows
from hashlgn.utils.pages import Pages

__all__ = ["CodedHistories", "FloatHistories", "Histories", "PagedHistories", "queries", "sorted_rows"]

Floats = npt.NDArray[np.float32]
_compiled: Any = compiled()
Ints = npt.NDArray[np.int64]


class Histories(Protocol):
    """The items of a catalogue as they count in histories: a vector ``p_i`` of ``width`` numbers each."""

    @property
    def width(self) -> int:
        """Length of a vector."""

    @property
    def bytes_per_item(self) -> float:
        """Bytes per item as stored, without what all items share."""

    def __len__(self) -> int:
        """Number of items."""

    def vectors(self, indptr: npt.ArrayLike, indices: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Doubles:
        """Sums ``v_u = Σ_{i∈H_u} a_ui p_i`` of histories in compressed-row form.

        Args:
            indptr: bounds of the rows, ``(q + 1,)``, from 0 to the number of entries.
            indices: item numbers, ``(entries,)``, in any order within a row, each at most once.
            weights: strengths ``a_ui``, ``(entries,)``, positive and finite; 1 where None.

        Returns:
            ``(q, width)`` float64.

        Raises:
            ArgumentError: the arrays do not fit, an item is not in the catalogue or twice in a row, or a weight is not
                positive and finite.
        """


@dataclass(frozen=True)
class FloatHistories:
    """Histories from float vectors.

    Attributes:
        items: ``p``, ``(n, width)`` float32.
    """

    items: Floats

    def __post_init__(self) -> None:
        items = self.items
        if items.dtype != np.float32 or items.ndim != 2 or not np.isfinite(items).all():
            raise ArgumentError(f"items must be finite float32, (n, width) (got {items.dtype} {items.shape})")

    def __repr__(self) -> str:
        return f"FloatHistories({len(self):,} items, width {self.width})"

    def __len__(self) -> int:
        return len(self.items)

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self.items.shape[1])

    @property
    def bytes_per_item(self) -> float:
        """Bytes per item as stored."""
        return float(self.items.itemsize * self.items.shape[1])

    def vectors(self, indptr: npt.ArrayLike, indices: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Doubles:
        """Sums of histories; see ``Histories``."""
        return weighted_sums(*sorted_rows(indptr, indices, weights, len(self)), self.items)


@dataclass(frozen=True)
class CodedHistories:
    """Histories from codes: ``p_i = weight_i · Σ_m C'_m[subcode'_im]``.

    The sum over a history is taken by sub-codes first: ``h[m, k] = Σ_i a_ui weight_i [subcode'_im = k]``, then
    ``v = Σ_{m,k} h[m, k] C'_m[k]``, which is summed in float32 (see ``single_product``), and so costs half the time.

    Attributes:
        packed: codes, ``(n, bits / 8)`` uint8.
        codewords: ``C'``, ``(M, 16, width)`` float32, with ``M = bits / 4``.
        weight: ``(n,)`` float16 or float32, finite.
    """

    packed: Bytes
    codewords: Floats
    weight: npt.NDArray[np.floating[Any]]

    def __post_init__(self) -> None:
        if self.codewords.ndim != 3 or self.codewords.shape[1] != 16 or not np.isfinite(self.codewords).all():
            raise ArgumentError(f"codewords must be finite, (M, 16, width) (got shape {self.codewords.shape})")
        packed, weight = self.packed, self.weight
        if packed.dtype != np.uint8 or packed.ndim != 2 or 2 * packed.shape[1] != len(self.codewords):
            raise ArgumentError(
                f"packed must be uint8 with {len(self.codewords)} / 2 columns (got {packed.dtype} {packed.shape})"
            )
        known = weight.dtype in (np.float16, np.float32)
        if not known or weight.shape != (len(packed),) or not np.isfinite(weight).all():
            raise ArgumentError(
                f"weight must be finite float16 or float32, ({len(packed)},) (got {weight.dtype} {weight.shape})"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} items, {self.bytes_per_item:g} bytes per item, width {self.width})"

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self.codewords.shape[2])

    @property
    def bytes_per_item(self) -> float:
        """Bytes per item as stored: code and weight."""
        return float(len(self.codewords) / 2 + self.pages[1].pages[0].itemsize)

    def vectors(self, indptr: npt.ArrayLike, indices: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Doubles:
        """Sums of histories; see ``Histories``."""
        bounds, items, strengths = sorted_rows(indptr, indices, weights, len(self))
        return single_product(self.histograms(bounds, items, strengths), self.rows)

    def histograms(self, bounds: Ints, items: Ints, strengths: Doubles) -> Doubles:
        """``h`` of histories in compressed-row form, ``(q, 16 M)``; nothing is checked that the caller knows."""
        if _compiled is None:
            return histograms(bounds, items, strengths * self.weight[items], self.packed)
        out = np.empty((len(bounds) - 1, 16 * len(self.codewords)), np.float64)
        self.held.histogram(bounds, items, strengths, out)
        return out

    @cached_property
    def pages(self) -> tuple[Pages, Pages]:
        """Codes and weights in pages."""
        return Pages.of(np.ascontiguousarray(self.packed)), Pages.of(np.ascontiguousarray(self.weight))

    def take(self, items: Ints) -> tuple[Bytes, npt.NDArray[np.floating[Any]]]:
        """Codes and weights of some items."""
        return self.pages[0].take(items), self.pages[1].take(items)

    def changed(self, numbers: Ints, packed: Bytes, weight: npt.NDArray[np.floating[Any]]) -> PagedHistories:
        """The same with other codes and weights of some items, ascending; new items follow the last one."""
        codes, weights = self.pages
        return PagedHistories(self, codes.put(numbers, packed), weights.put(numbers, weight), Pages.places(numbers))

    def __getstate__(self) -> dict[str, Any]:
        """The arrays; what is made of them is made again."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def held(self) -> Any:
        """The same for the kernel."""
        return _compiled.HistoryCodes(*([*side.pages] for side in self.pages), self.rows)

    @cached_property
    def rows(self) -> Floats:
        """The codewords, ``(16 M, width)``."""
        return np.ascontiguousarray(self.codewords.reshape(-1, self.width), np.float32)


class PagedHistories(CodedHistories):
    """Histories after a change: what did not change is shared with those before. ``packed`` and ``weight`` are made
    when they are first asked for.

    Args:
        before: what was changed.
        codes: ``packed`` in pages.
        weights: ``weight`` in pages.
        places: the pages that changed.
    """

    def __init__(self, before: CodedHistories, codes: Pages, weights: Pages, places: list[int]) -> None:
        self.__dict__.update(codewords=before.codewords, rows=before.rows, pages=(codes, weights))
        if _compiled is not None:
            self.__dict__["held"] = before.held.changed(
                places, *([side.pages[place] for place in places] for side in (codes, weights))
            )

    def __len__(self) -> int:
        return len(self.pages[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return CodedHistories, (self.packed, self.codewords, self.weight)

    @property
    def packed(self) -> Bytes:
        """Codes, ``(n, bits / 8)``."""
        return self.pages[0].whole

    @property
    def weight(self) -> npt.NDArray[np.floating[Any]]:
        """Weights, ``(n,)``."""
        return self.pages[1].whole


def queries(
    histories: Histories, indptr: npt.ArrayLike, indices: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Floats:
    """Queries ``q_u = v_u / ‖v_u‖`` of histories, ``(q, width)`` float32; a zero query where ``v_u`` is zero.

    Args:
        histories: the items as they count in histories.
        indptr: as of ``Histories.vectors``.
        indices: as of ``Histories.vectors``.
        weights: as of ``Histories.vectors``.

    Raises:
        ArgumentError: as ``Histories.vectors``, or a sum is too large for float64.
    """
    if _compiled is not None and isinstance(histories, CodedHistories) and _plain(indptr, indices, weights):
        unit: Floats | None = histories.held.queries(indptr, indices, weights)
        if unit is not None:
            return unit
    unit = unit_rows(histories.vectors(indptr, indices, weights))
    if unit is None:
        raise ArgumentError("weights must be so small that the sum of a history is finite")
    return unit


def sorted_rows(
    indptr: npt.ArrayLike, indices: npt.ArrayLike, weights: npt.ArrayLike | None, n_items: int
) -> tuple[Ints, Ints, Doubles]:
    """Check histories in compressed-row form, and sort each row by item number.

    Returns:
        Bounds and items int64, weights float64 (1 where None).

    Raises:
        ArgumentError: see ``Histories.vectors``.
    """
    bounds, items = _integers("indptr", indptr), _integers("indices", indices)
    strengths = np.ones(len(items), np.float64) if weights is None else _strengths(weights, len(items))
    if ascending_rows(bounds, items, n_items):
        return bounds, items, strengths
    if not len(bounds) or bounds[0] != 0 or bounds[-1] != len(items) or (bounds[1:] < bounds[:-1]).any():
        raise ArgumentError("indptr must ascend from 0 to the number of indices")
    if len(items) and (items.min() < 0 or items.max() >= n_items):
        bad = items[(items < 0) | (items >= n_items)][0]
        raise ArgumentError(f"indices must hold item numbers in 0 … {n_items - 1} (got {bad})")
    keys = np.repeat(np.arange(len(bounds) - 1) * n_items, bounds[1:] - bounds[:-1]) + items
    order = np.argsort(keys, kind="stable")
    keys, items, strengths = keys[order], items[order], strengths[order]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        raise ArgumentError(f"indices must hold each item of a history once (item {items[twice[0]]} is there twice)")
    return bounds, items, strengths


def _integers(name: str, values: npt.ArrayLike) -> Ints:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ArgumentError(f"{name} must be a flat array of integers (got {array.dtype}, shape {array.shape})")
    return np.ascontiguousarray(array, np.int64)


def _strengths(weights: npt.ArrayLike, count: int) -> Doubles:
    array = np.asarray(weights)
    if array.shape != (count,) or (count and array.dtype.kind not in "fiu"):
        raise ArgumentError(f"weights must be {count} numbers, one per index (got {array.dtype}, shape {array.shape})")
    strengths = np.ascontiguousarray(array, np.float64)
    wrong = ~(np.isfinite(strengths) & (strengths > 0))
    if wrong.any():
        raise ArgumentError(f"weights must be positive and finite (got {strengths[wrong][0]})")
    return strengths


def _plain(indptr: npt.ArrayLike, indices: npt.ArrayLike, weights: npt.ArrayLike | None) -> bool:
    """Whether these are flat arrays of the types that are stored."""
    numbers = (indptr, indices) if weights is None else (indptr, indices, weights)
    if not all(type(values) is np.ndarray and values.ndim == 1 for values in numbers):
        return False
    return [np.asarray(values).dtype for values in numbers] == _STORED[: len(numbers)]


_STORED = [np.dtype(np.int64), np.dtype(np.int64), np.dtype(np.float32)]
