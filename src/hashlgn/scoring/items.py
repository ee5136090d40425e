"""How a trained model scores, in NumPy alone: items, decoders folded into query tables, fold-in of new users.

A query ``f`` is a vector ``(width,)``: the user as the searcher takes them, compression already applied. Items are
either float vectors, scored ``f · o``, or packed codes, scored

    score(f, i) = scale_i · f · g(c_i) = scale_i · Σ_m T[m, subcode_im],        T = decoder.tables(f), shape (M, 16)

because every decoder here is a sum over the 4-bit sub-codes (``scale_i`` is 1 where items carry none). Tables are
computed by ``ordered_product`` in float64 and rounded to float32 once, so that they do not depend on the batch; the
sum over them is taken in float64, m ascending, multiplied by the scale and rounded to float32 once: that is *the*
score. The score of a float item is ``ordered_product`` too, rounded once. A score of −0.0 is given as +0.0. Every
searcher returns exactly these numbers, ordered by (score descending, item ascending).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError
from hashlgn.scoring.codes import Bytes, unpack_signs
from hashlgn.scoring.decoders import Decoder, Floats, ReweightDecoder
from hashlgn.scoring.products import Doubles

__all__ = [
    "CodedItems",
    "FloatItems",
    "Items",
    "binary_items",
    "binary_queries",
    "rounded",
    "score_bound",
    "subcode_scores",
]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FloatItems:
    """Items as float vectors ``(n, width)``."""

    vectors: Floats

    def __repr__(self) -> str:
        return f"FloatItems({len(self):,} items, width {self.width})"

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def width(self) -> int:
        """Length of a query."""
        return int(self.vectors.shape[1])

    @property
    def bytes_per_item(self) -> float:
        """Bytes of one item as stored."""
        return float(self.vectors.itemsize * self.vectors.shape[1])

    def decode(self) -> Floats:
        """The vectors whose inner product with a query is the score, ``(n, width)``."""
        return self.vectors

    def take(self, items: Ints) -> FloatItems:
        """Some of the items."""
        return FloatItems(self.vectors[items])


@dataclass(frozen=True)
class CodedItems:
    """Items as packed codes ``(n, bits / 8)``, the decoder that reads them, and where there is one a scale ``(n,)``.

    The scale is positive and part of the item's bytes. Float16, as in a saved model, is kept; all other numbers are
    rounded to float32 here, once, so that every engine multiplies by the same ones.

    Raises:
        ArgumentError: codes of another length, or scales that are no numbers, or not positive and finite in float32.
    """

    packed: Bytes
    decoder: Decoder
    scale: npt.NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        if self.packed.ndim != 2 or self.packed.shape[1] * 8 != self.decoder.bits:
            raise ArgumentError(
                f"packed must have shape (n, {self.decoder.bits // 8}), bits / 8 columns (got {self.packed.shape})"
            )
        if self.scale is not None:
            object.__setattr__(self, "scale", _scales(self.scale))
            if self.scale.shape != (len(self.packed),):
                raise ArgumentError(f"scale must have shape ({len(self.packed)},) (got {self.scale.shape})")
            if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
                raise ArgumentError("scale must be positive and finite for every item")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} items, {self.bytes_per_item:g} bytes per item, {self.decoder})"

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def width(self) -> int:
        """Length of a query."""
        return self.decoder.width

    @property
    def bytes_per_item(self) -> float:
        """Bytes of one item as stored: code and scale."""
        return float(self.packed.shape[1] + (0 if self.scale is None else self.scale.itemsize))

    def decode(self) -> Floats:
        """The vectors whose inner product with a query is the score, ``(n, width)``: ``scale_i · g(c_i)``."""
        decoded = self.decoder.decode(self.packed)
        return decoded if self.scale is None else decoded * self.scale[:, None].astype(np.float32)

    def rows(self, items: Ints) -> tuple[Bytes, npt.NDArray[np.floating] | None]:
        """Codes and scales of some items."""
        return self.packed[items], None if self.scale is None else self.scale[items]

    def take(self, items: Ints) -> CodedItems:
        """Some of the items."""
        codes, scale = self.rows(items)
        return CodedItems(codes, self.decoder, scale)


Items = FloatItems | CodedItems


def _scales(values: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """Numbers as float16 where they are, else as float32."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise ArgumentError(f"scale must be numbers (got {array.dtype})")
    if array.dtype.kind == "f" and array.dtype.itemsize == 2:
        return array.astype(np.float16, copy=False)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
        return array.astype(np.float32, copy=False)


def binary_items(packed: Bytes) -> CodedItems:
    """Items of a model that is binary on both sides: a query of ±1 scores ``bits − 2 · Hamming distance``.

    Args:
        packed: codes, ``(n, bits / 8)``; queries are ``binary_queries`` of the users' codes.
    """
    ones = np.ones(8 * packed.shape[1], np.float32)
    return CodedItems(packed, ReweightDecoder(ones, ones))


def binary_queries(packed: Bytes) -> Floats:
    """Codes of users, ``(q, bits / 8)``, as queries of ±1, ``(q, bits)``, for ``binary_items``."""
    return unpack_signs(packed).astype(np.float32)


def score_bound(items: Items) -> float:
    """A bound over the sizes of scores: no score, and no sum on the way to it, passes ``score_bound · ‖f‖``.

    For float items the greatest ``‖o‖``; for codes ``Σ_m max_k ‖C_m[k]‖``, to be multiplied by the scales.
    """
    if isinstance(items, FloatItems):
        squares = np.einsum("ij,ij->i", items.vectors, items.vectors, dtype=np.float64)
        return float(np.sqrt(squares.max(initial=0.0)))
    width, squares = items.width, np.zeros((items.decoder.bits // 4, 16))
    for start in range(0, width, 64):  # the table of a unit vector is one component of every codeword
        units = np.eye(min(64, width - start), width, start, dtype=np.float32)
        with np.errstate(invalid="ignore"):  # infinity times 0: the answer is NaN then, and no bound
            squares += (items.decoder.tables(units).astype(np.float64) ** 2).sum(axis=0)
    return float(np.sqrt(squares).max(axis=1).sum())


def subcode_scores(table: Floats, subcodes: Bytes, scale: npt.NDArray[np.float16] | None = None) -> Floats:
    """The score of every item for one query, as the model defines it.

    Args:
        table: query table, ``(M, 16)`` float32.
        subcodes: sub-codes of the items, ``(n, M)``.
        scale: scales of the items, ``(n,)``, or None.

    Returns:
        ``(n,)`` float32.
    """
    total = np.zeros(len(subcodes), np.float64)
    for m in range(subcodes.shape[1]):
        total += table[m].astype(np.float64)[subcodes[:, m]]
    return rounded(total, scale)


def rounded(total: Doubles, scale: npt.NDArray[np.floating] | None = None) -> Floats:
    """Scores from float64 sums, which may be overwritten: times the scales, rounded to float32 once, +0.0 for −0.0."""
    if scale is not None:
        total *= scale
    scores = total.astype(np.float32)
    scores += np.float32(0)
    return scores
