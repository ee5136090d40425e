"""Products whose bits do not depend on the batch, the number of threads or the instruction set.

A product of matrices by BLAS adds its terms in an order that depends on the shapes, so the last bit of a row changes
with the number of rows beside it. Here each entry is a sum of its own: it starts at +0.0 and takes one multiplication
and one addition per term, in ascending order. It is never fused or split. A sum that starts at +0.0 is never −0.0.

Each function runs compiled where the kernel could be compiled. The NumPy form under it is the definition and gives the
same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn._kernel import compiled

__all__ = [
    "Doubles",
    "chosen_products",
    "histograms",
    "norms",
    "ordered_product",
    "single_product",
    "unit_rows",
    "weighted_sums",
]

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
_compiled: Any = compiled()


def ordered_product(x: npt.NDArray[np.floating[Any]], y: Floats, isa: str = "auto") -> Doubles:
    """``out[q, :] = Σ_j x[q, j] · y[j, :]``, j ascending, products and sums in float64.

    Terms with ``x[q, j] = 0`` are left out. For finite ``y`` this changes no bit: a sum is never −0.0, so that to add a
    zero of either sign changes nothing. An infinite ``y[j, :]`` counts only where ``x[q, j]`` is not 0.

    Args:
        x: ``(q, n)``, float32 or float64.
        y: ``(n, width)`` float32.
        isa: instruction set, one of ``Kernel.instruction_sets()``; ``auto`` takes the best.

    Returns:
        ``(q, width)`` float64.
    """
    wide = np.ascontiguousarray(x, np.float64)
    if _compiled is not None:
        out = np.empty((len(wide), y.shape[1]), np.float64)
        _compiled.product(wide, np.ascontiguousarray(y, np.float32), out, isa)
        return out
    out = np.zeros((len(wide), y.shape[1]), np.float64)
    for column, row in zip(wide.T, y.astype(np.float64), strict=True):
        used = np.flatnonzero(column)
        with np.errstate(invalid="ignore"):
            if len(used) == len(out):
                out += column[:, None] * row
            else:
                out[used] += column[used, None] * row
    return out


def single_product(x: Doubles, y: Floats, isa: str = "auto") -> Doubles:
    """``out[q, :] = Σ_j x[q, j] · y[j, :]``, j ascending, products and sums in float32: half the time.

    A row of x is multiplied by the power of two that brings its largest number into ½ … 1, and the sums by its inverse:
    this changes no bit, and nothing leaves the range of float32.

    Args:
        x: ``(q, n)`` float64; each number is rounded to float32 once.
        y: ``(n, width)`` float32, finite.
        isa: as of ``ordered_product``.

    Returns:
        ``(q, width)`` float64.
    """
    if _compiled is not None:
        out = np.empty((len(x), y.shape[1]), np.float64)
        _compiled.single(np.ascontiguousarray(x), np.ascontiguousarray(y), out, isa)
        return out
    largest = np.abs(x).max(axis=1, initial=0.0, keepdims=True)
    power = np.clip(np.frexp(largest)[1], -1000, 1000)
    sums = np.zeros((len(x), y.shape[1]), np.float32)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        narrow = (x * np.ldexp(1.0, -power)).astype(np.float32)
        for column, row in zip(narrow.T, y, strict=True):
            sums += column[:, None] * row
        return np.asarray(sums * np.ldexp(1.0, power), np.float64)


def chosen_products(x: npt.NDArray[np.floating[Any]], y: Floats, chosen: Ints) -> Doubles:
    """``out[q, l] = Σ_j x[q, j] · y[chosen[q, l], j]``, the entries of ``ordered_product(x, y.T)`` at chosen columns.

    Args:
        x: ``(q, n)``, float32 or float64.
        y: ``(items, n)`` float32, finite.
        chosen: rows of y, ``(q, l)``.

    Returns:
        ``(q, l)`` float64.
    """
    wide = np.ascontiguousarray(x, np.float64)
    if _compiled is not None:
        out = np.empty(chosen.shape, np.float64)
        _compiled.chosen(wide, np.ascontiguousarray(y, np.float32), np.ascontiguousarray(chosen, np.int64), out)
        return out
    out = np.zeros(chosen.shape, np.float64)
    for j in range(y.shape[1]):
        out += wide[:, j, None] * y[chosen, j]
    return out


def weighted_sums(indptr: Ints, indices: Ints, weights: Doubles, vectors: Floats) -> Doubles:
    """``out[r, :] = Σ_e weights[e] · vectors[indices[e], :]`` over the entries e of row r, in their order.

    Args:
        indptr: bounds of the rows, ``(q + 1,)``.
        indices: rows of ``vectors``, ``(entries,)``.
        weights: ``(entries,)``.
        vectors: ``(n, width)`` float32, finite.

    Returns:
        ``(q, width)`` float64.
    """
    if _compiled is not None:
        out = np.empty((len(indptr) - 1, vectors.shape[1]), np.float64)
        _compiled.sums(indptr, indices, weights, np.ascontiguousarray(vectors, np.float32), out)
        return out
    out = np.zeros((len(indptr) - 1, vectors.shape[1]), np.float64)
    counts = np.diff(indptr)
    for place in range(int(counts.max(initial=0))):
        rows = np.flatnonzero(counts > place)
        entries = indptr[rows] + place
        out[rows] += weights[entries, None] * vectors[indices[entries]]
    return out


def histograms(indptr: Ints, indices: Ints, weights: Doubles, packed: npt.NDArray[np.uint8]) -> Doubles:
    """``out[r, 16 m + k]``: the sum of the weights of row r's entries whose 4-bit sub-code m is k, in their order.

    Args:
        indptr: bounds of the rows, ``(q + 1,)``.
        indices: rows of ``packed``, ``(entries,)``.
        weights: ``(entries,)``.
        packed: codes, ``(n, bits / 8)``.

    Returns:
        ``(q, 16 M)`` float64, with ``M = bits / 4``.
    """
    rows, width = len(indptr) - 1, 32 * packed.shape[1]
    if _compiled is not None:
        out = np.empty((rows, width), np.float64)
        _compiled.histogram(indptr, indices, weights, np.ascontiguousarray(packed), out)
        return out
    codes = packed[indices]
    columns = np.stack((codes & 15, codes >> 4), axis=2).reshape(len(indices), width // 16) + np.arange(0, width, 16)
    columns += np.repeat(np.arange(rows) * width, np.diff(indptr))[:, None]
    repeated = np.repeat(weights, columns.shape[1])
    return np.asarray(np.bincount(columns.ravel(), repeated, minlength=rows * width), np.float64).reshape(rows, width)


def norms(vectors: npt.NDArray[np.floating[Any]]) -> Doubles:
    """Euclidean lengths ``(n,)`` of vectors ``(n, width)``: the square root of the squares' sum, in ascending order."""
    wide = np.asarray(vectors, np.float64)
    if wide.shape[1] == 0:
        return np.zeros(len(wide), np.float64)
    return np.asarray(np.sqrt(np.cumsum(wide * wide, axis=1)[:, -1]))


def unit_rows(v: Doubles) -> Floats | None:
    """``out[r, :] = v[r, :] / ‖v[r, :]‖`` in float32, zeros where ``v[r, :]`` is zero; None where one is not finite."""
    if _compiled is not None:
        out = np.empty(v.shape, np.float32)
        return out if _compiled.unit(v, out) else None
    largest = np.abs(v).max(axis=1, initial=0)
    if not np.isfinite(largest).all():
        return None
    # A power of two changes no bit of a quotient, and keeps squares inside float64.
    v = np.ldexp(v, -np.frexp(largest)[1][:, None])
    lengths = norms(v)[:, None]
    return np.asarray(np.divide(v, lengths, out=np.zeros_like(v), where=lengths > 0), np.float32)
