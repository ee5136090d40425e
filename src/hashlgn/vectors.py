"""Codes for vectors that were trained elsewhere: factors of ALS, two towers, sentence embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hashlgn.errors import ArgumentError, need, shown
from hashlgn.scoring.codes import check_bits
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems
from hashlgn.search import Hits, Searcher, build_searcher

__all__ = ["Encoded", "encode"]

_LARGEST = 1e15  # sizes of vectors: products and their squares stay inside float32


@dataclass(frozen=True)
class Encoded:
    """A catalogue of codes, and a searcher over it.

    Attributes:
        items: ``packed`` codes ``(n, bits / 8)``, ``scale`` float16 ``(n,)``, and the ``decoder`` with its codewords.
        searcher: answers queries as they are, ``(q, dim)``.
    """

    items: CodedItems
    searcher: Searcher

    def search(self, queries: Floats, k: int, exclude: Exclusion | None = None) -> Hits:
        """The k items of the highest score for each query; see ``Searcher``."""
        return self.searcher.search(queries, k, exclude)

    def search_above(self, queries: Floats, threshold: float, exclude: Exclusion | None = None) -> Hits:
        """Every item whose score is greater than ``threshold``, for each query; see ``Searcher``."""
        return self.searcher.search_above(queries, threshold, exclude)


def encode(
    items: Any,
    queries: Any = None,
    bits: int = 128,
    *,
    engine: str = "auto",
    threads: int | None = None,
    seed: int = 0,
) -> Encoded:
    """Codes for vectors whose inner product with queries ranks them: this search without a training here.

    Codewords C and sub-codes k are found by additive quantization ``o_i ≈ Σ_m C_m[k_im]`` in the directions that
    queries ask for (see ``training.hashes.Residual``). With ``A`` the second moment of the queries and
    ``g_i = Σ_m C_m[k_im]``, the scale of an item is the least-squares one, ``⟨A o_i, g_i⟩ / ⟨A g_i, g_i⟩``. The score
    is ``q · scale_i g_i``, bit for bit the same in every engine.

    Args:
        items: item vectors, ``(n, dim)``.
        queries: vectors of the kind that will be asked, ``(m, dim)``, a few thousand or more. Default: none, so that
            all directions count alike.
        bits: length of a code, a multiple of 8; two bytes of scale come on top.
        engine: searcher by name, as of ``build_searcher``.
        threads: processor threads of the search; all where None.
        seed: fixes the sample that decides the codewords of a catalogue of more than 50,000 items.

    Raises:
        ArgumentError: an argument breaks its rule, vectors are not finite, or widths differ.
        MissingExtraError: PyTorch is not installed.
    """
    vectors, bits = _vectors("items", items), check_bits(bits)
    asked = None if queries is None else _vectors("queries", queries)
    if asked is not None and asked.shape[1] != vectors.shape[1]:
        raise ArgumentError(f"queries must have the width of items, {vectors.shape[1]} (got {asked.shape[1]})")
    need("torch", "train", "encode")
    from hashlgn.training.encode import coded_items

    coded = coded_items(vectors, asked, bits, seed)
    return Encoded(coded, build_searcher(coded, engine, threads))


def _vectors(name: str, values: Any) -> Floats:
    """Vectors as float32, ``(n, dim)``.

    Raises:
        ArgumentError: they are no finite numbers in two dimensions, too large, or all zero.
    """
    array = np.asarray(values)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu":
        raise ArgumentError(f"{name} must be vectors, (n, dim) (got {shown(array.dtype)}, shape {array.shape})")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
        vectors = np.ascontiguousarray(array, np.float32)
    largest = float(np.abs(vectors).max())
    if not 0 < largest <= _LARGEST:
        raise ArgumentError(f"{name} must be finite, not all zero and at most {_LARGEST:.0e} (got {largest})")
    return vectors
