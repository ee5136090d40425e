"""An inverted file over packed codes, for tens of millions of items: approximate, and says how far."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from scipy import sparse

from hashlgn.errors import ArgumentError, positive_int, thread_count
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems, Items
from hashlgn.search.base import Hits
from hashlgn.search.blocks import Blocks
from hashlgn.search.flat import flat_index
from hashlgn.search.kernel import Kernel
from hashlgn.search.overfetch import faiss_threads
from hashlgn.utils.tensors import Part

__all__ = ["InvertedFile"]

_WHOLE = 20_000  # a catalogue so small is one list: the scan is quick, and exact
_SAMPLE = 40  # items a list that the centroids are learned from
_CHUNK = 65_536  # items decoded at a time


class InvertedFile(Kernel):
    """Top-k search in the lists with the largest products; threshold search, and small allow lists, over all of them.

    Items are put into lists by spherical k-means over the directions of their decoded vectors. A query scans, by the
    kernel, the ``probes`` lists with the largest products ``f · mean of the list``, best first. Items of other lists
    are missed: ``agreement`` says how many. Scores and order of what is found are exact.

    Args:
        items: codes.
        threads: processor threads; all where None.
        isa: instruction set of the scan.
        lists: number of lists; about ``√n`` where None.
        probes: lists that a query scans; a thirty-second of them, at least 16, where None. All lists: exact.
        seed: of the k-means.

    Attributes:
        lists: number of lists.
        probes: lists that a query scans; may be changed at any time.
        centroids: directions that the lists gather around, ``(lists, width)``.
        means: mean vector of each list of the first items, ``(lists, width)``.
    """

    def __init__(
        self,
        items: Items,
        threads: int | None = None,
        *,
        isa: str = "auto",
        lists: int | None = None,
        probes: int | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(items, CodedItems):
            raise ArgumentError("engine 'ivf' is for codes (got float items: use 'flat')")
        n = len(items)
        self.lists = positive_int("lists", max(1, round(n**0.5)) if lists is None else lists)
        if lists is None and n <= _WHOLE:
            self.lists = 1
        if self.lists > max(n, 1):
            raise ArgumentError(f"lists must be at most the number of items, {n} (got {self.lists})")
        self.probes = positive_int("probes", min(self.lists, max(16, self.lists // 32)) if probes is None else probes)
        with faiss_threads(thread_count("threads", threads)):
            self.centroids = _centroids(items, self.lists, seed)
        self.means: Floats = np.empty((0, 0), np.float32)
        super().__init__(items, threads, isa=isa)

    def search_above(self, queries: Floats, threshold: float, exclude: Exclusion | None = None) -> Hits:
        """Every item whose score is greater than ``threshold``: exact, all lists are scanned."""
        return self.exact().search_above(queries, threshold, exclude)

    def exact(self) -> Kernel:
        """The exact scan over the same items; no array is copied."""
        scan = Kernel.__new__(Kernel)
        scan._set_up(self.decoder, self.threads, self.isa)
        scan._least, scan._state = self._least, self._state
        return scan

    def agreement(self, queries: Floats, k: int, exclude: Exclusion | None = None) -> float:
        """Share of the exact top-k that the inverted file finds, over all queries; 1 where there is nothing to find."""
        found, exact = self.search(queries, k, exclude), self.exact().search(queries, k, exclude)
        rows = [
            np.repeat(np.arange(len(hits)), np.diff(hits.indptr)) * len(self) + hits.items for hits in (found, exact)
        ]
        return float(np.isin(rows[1], rows[0]).mean()) if len(rows[1]) else 1.0

    def _segments(self, items: CodedItems) -> tuple[Blocks, ...]:
        return (self._arranged(items),)

    def _arranged(self, items: CodedItems, first: int = 0) -> Blocks:
        belongs = np.zeros(len(items), np.int64)
        sums = np.zeros_like(self.centroids, np.float64)
        with faiss_threads(self.threads):
            nearest = flat_index(self.centroids)
            for start in range(0, len(items), _CHUNK):
                vectors = items.take(np.arange(start, min(start + _CHUNK, len(items)))).decode()
                found = nearest.search(_unit(vectors), 1)[1][:, 0]
                belongs[start : start + len(found)] = found
                members = (np.ones(len(found)), (found, np.arange(len(found))))
                sums += sparse.csr_matrix(members, (self.lists, len(found))) @ vectors
        if not len(self.means):  # of the first items: as the centroids, they stay while items are added
            counts = np.bincount(belongs, minlength=self.lists)
            self.means = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        return Blocks.build(items.packed, items.scale, first, belongs, self.lists)

    def _probes(self, queries: Floats) -> npt.NDArray[np.int32] | None:
        if self.probes >= self.lists:
            return None
        with faiss_threads(self.threads):
            found: npt.NDArray[np.int32] = self._nearest.search(queries, self.probes)[1].astype(np.int32)
        return found

    @cached_property
    def _nearest(self) -> Any:
        return flat_index(self.means)

    def _parts(self) -> dict[str, Part]:
        arrays = {"centroids": self.centroids, "means": self.means}
        return {"lists": (arrays, {"form": "lists", "probes": self.probes})}

    def _open_parts(self, parts: dict[str, Part]) -> None:
        if "lists" not in parts:
            raise ArgumentError("the file holds no lists: Kernel.open reads it")
        arrays, said = parts["lists"]
        self.centroids, self.means = arrays["centroids"], arrays["means"]
        self.lists, self.probes = len(self.centroids), positive_int("probes", said["probes"])
        shape = self.lists, self.decoder.width
        for array in (self.centroids, self.means):
            if array.dtype != np.float32 or array.shape != shape or not np.isfinite(array).all():
                raise ArgumentError(f"centroids and means must be finite float32 {shape}")


def _centroids(items: CodedItems, lists: int, seed: int) -> Floats:
    """Directions that the lists gather around, ``(lists, width)``, from a sample."""
    if lists == 1:
        return np.zeros((1, items.width), np.float32)
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(len(items), min(len(items), _SAMPLE * lists), replace=False))
    kmeans: Any = faiss.Kmeans(
        items.width,
        lists,
        niter=8,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_SAMPLE,
    )
    kmeans.train(_unit(items.take(sample).decode()))
    return np.asarray(kmeans.centroids, np.float32)


def _unit(vectors: Floats) -> Floats:
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(vectors / lengths, np.float32)
