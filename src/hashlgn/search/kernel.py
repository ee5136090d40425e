"""The compiled scan over packed codes: exact, filtered inside, many times faster than a search over floats."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError, positive_int, thread_count, threshold_value
from hashlgn.scoring.codes import Bytes
from hashlgn.scoring.decoders import Decoder, Floats
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems, Items, reach
from hashlgn.search.base import Hits, check_exclusion, check_queries, check_reach
from hashlgn.search.blocks import Blocks, Places, kernel
from hashlgn.search.index_file import read_index, write_index

__all__ = ["LONGEST_CODE", "Kernel"]

LONGEST_CODE = 4096  # bits
_GATHER = 64  # an allow list that is so many times shorter than the catalogue is scored item by item

Scale = npt.NDArray[np.floating[Any]]


class _State(NamedTuple):
    """What a search sees of the catalogue; a change makes a new one, so that a search is never disturbed."""

    parts: tuple[Blocks, ...]
    removed: npt.NDArray[np.bool_] | None
    n: int
    reach: float


class Kernel:
    """Scan of codes by the compiled kernel; every answer is exact.

    The table of a query is rounded upwards to bytes. Sums of bytes are never smaller than the sums they stand for, so
    the items whose sums reach the bar, the k-th best score or the threshold, include every answer. Only these pass the
    filters and are scored exactly. Items stand by falling scale, in blocks that know their largest one: a scan ends
    where no scale that is left can reach the bar. See ``docs/search.md``.

    Args:
        items: codes, at most 4,096 bits long.
        threads: processor threads for a batch; all where None.
        isa: instruction set, one of ``Kernel.instruction_sets()``; ``auto`` takes the best.

    Raises:
        ArgumentError: float items, longer codes, an unknown instruction set, or the kernel could not be compiled.
    """

    def __init__(self, items: Items, threads: int | None = None, *, isa: str = "auto") -> None:
        if not isinstance(items, CodedItems):
            raise ArgumentError("engine 'kernel' is for codes (got float items: use 'flat')")
        if items.decoder.bits > LONGEST_CODE:
            raise ArgumentError(
                f"engine 'kernel' is for codes of at most {LONGEST_CODE} bits (got {items.decoder.bits}: use 'exact')"
            )
        self._set_up(items.decoder, items.scale is not None, threads, isa)
        self._state = self._joined((self._arranged(items),), None, len(items))

    @staticmethod
    def instruction_sets() -> list[str]:
        """What this machine has, best first; empty where the kernel could not be compiled."""
        return [] if kernel is None else kernel.instruction_sets()

    def __len__(self) -> int:
        return self._state.n

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that a search reads."""
        state = self._state
        return sum(part.nbytes for part in state.parts) + (0 if state.removed is None else state.removed.nbytes)

    def search(self, queries: Floats, k: int, exclude: Exclusion | None = None) -> Hits:
        """The k best items of each query."""
        return self._search(queries, positive_int("k", k), 0.0, exclude)[0]

    def search_above(self, queries: Floats, threshold: float, exclude: Exclusion | None = None) -> Hits:
        """Every item whose score is greater than ``threshold``, for each query."""
        return self._search(queries, 0, threshold_value("threshold", threshold), exclude)[0]

    def profile(self, queries: Floats, k: int, exclude: Exclusion | None = None) -> dict[str, float]:
        """What a top-k search did: items scanned, rescored and kept (over all queries), seconds by stage and thread."""
        return self._search(queries, positive_int("k", k), 0.0, exclude, timed=True)[1]

    def append(self, packed: Bytes, scale: Scale | None = None) -> npt.NDArray[np.int64]:
        """Add items; what is there is not rebuilt. Searches that run meanwhile see the catalogue before or after.

        Args:
            packed: codes, ``(m, bits / 8)``.
            scale: scales ``(m,)``, where the catalogue has them.

        Returns:
            The numbers of the new items, which follow the last one.

        Raises:
            ArgumentError: codes of another length, or scales where there are none, or none where there are.
        """
        items = CodedItems(np.asarray(packed), self.decoder, scale)
        if (scale is not None) != self.scaled:
            raise ArgumentError(f"scale must {'be given' if self.scaled else 'be None'}, as in the catalogue")
        with self._writing:
            state = self._state
            parts = [*state.parts, self._arranged(items, state.n)]
            # Parts at least halve from one to the next, so there are few of them, and an item is moved few times.
            while len(parts) > 1 and 2 * len(parts[-1]) > len(parts[-2]):
                parts[-2:] = [self._merged(parts[-2], parts[-1])]
            removed = state.removed
            if removed is not None:
                removed = np.concatenate((removed, np.zeros(len(items), np.bool_)))
            self._state = self._joined(tuple(parts), removed, state.n + len(items))
        return np.arange(state.n, state.n + len(items))

    def remove(self, items: npt.ArrayLike) -> None:
        """Take items out of all answers from now on; their numbers are not used again.

        Raises:
            ArgumentError: a number is outside the catalogue.
        """
        with self._writing:
            state = self._state
            banned = Exclusion.build(state.n, deny=np.atleast_1d(np.asarray(items))).banned
            removed = banned if state.removed is None or banned is None else state.removed | banned
            self._state = state._replace(removed=removed)

    def save(self, folder: str | Path) -> Path:
        """Write the catalogue to a folder that ``open`` maps into memory; an index that is there is replaced.

        Raises:
            ArgumentError: the folder holds something else than an index.
            ArtifactError: it cannot be written; what was there before is untouched.
        """
        state = self._state
        write_index(Path(folder), self.decoder, state.parts, state.n, state.removed)
        return Path(folder)

    @classmethod
    def open(cls, folder: str | Path, threads: int | None = None, *, isa: str = "auto", verify: bool = True) -> Kernel:
        """Map a saved catalogue into memory: nothing is copied, and processes that open it share it.

        Args:
            folder: what ``save`` wrote.
            threads: processor threads for a batch; all where None.
            isa: instruction set.
            verify: whether checksums are compared, which reads all of it once; sizes always are.

        Raises:
            ArtifactError: the index is missing, damaged, altered or of a newer format.
            ArgumentError: an unknown instruction set, or the kernel could not be compiled.
        """
        scan = Kernel.__new__(Kernel)
        _need()
        decoder, parts, n, removed = read_index(Path(folder), verify=verify)
        scan._set_up(decoder, any(part.scale is not None for part in parts), threads, isa)
        scan._state = scan._joined(parts, removed, n)
        return scan

    def _set_up(self, decoder: Decoder, scaled: bool, threads: int | None, isa: str) -> None:
        if kernel is None:
            raise ArgumentError(
                "engine 'kernel' needs the compiled module, which this installation lacks: use 'fastscan'"
            )
        if isa not in ("auto", *self.instruction_sets()):
            raise ArgumentError(f"isa must be one of auto, {', '.join(self.instruction_sets())} (got {isa!r})")
        self.decoder, self.scaled, self.isa = decoder, scaled, isa
        self.threads = thread_count("threads", threads) or os.cpu_count() or 1
        self._longest = reach(CodedItems(np.empty((0, decoder.bits // 8), np.uint8), decoder))
        self._writing = threading.Lock()

    def _arranged(self, items: CodedItems, first: int = 0) -> Blocks:
        return Blocks.build(items.packed, items.scale, first)

    def _merged(self, a: Blocks, b: Blocks) -> Blocks:
        (codes, scale), (more, scales) = a.packed(), b.packed()
        joined = None if scale is None or scales is None else np.concatenate((scale, scales))
        return self._arranged(CodedItems(np.concatenate((codes, more)), self.decoder, joined), a.first)

    def _joined(self, parts: tuple[Blocks, ...], removed: npt.NDArray[np.bool_] | None, n: int) -> _State:
        largest = max((float(part.largest.max()) for part in parts if part.largest is not None), default=1.0)
        return _State(parts, removed, n, check_reach(self._longest * max(1.0, largest)))

    def _search(
        self, queries: Floats, k: int, threshold: float, exclude: Exclusion | None, *, timed: bool = False
    ) -> tuple[Hits, dict[str, float]]:
        state = self._state
        queries = check_queries(queries, self.decoder.width, state.reach)
        exclude = check_exclusion(exclude, len(queries), state.n)
        banned = exclude.banned
        if state.removed is not None:
            banned = state.removed if banned is None else banned | state.removed
        indptr, items, scores, profile = kernel.search(
            [part.part for part in state.parts],
            self.decoder.tables(queries),
            state.n,
            min(k, state.n),
            threshold if state.n or k == 0 else np.inf,
            exclude.indptr,
            None if exclude.indices is None else np.ascontiguousarray(exclude.indices, np.int64),
            banned,
            self._probes(queries),
            None if banned is None else _chosen(state, banned),
            self.threads,
            self.isa,
            timed,
        )
        return Hits(indptr, items, scores), profile

    def _probes(self, queries: Floats) -> npt.NDArray[np.int32] | None:
        """The lists that each query looks at; all where None."""
        return None


def _need() -> None:
    if kernel is None:
        raise ArgumentError("engine 'kernel' needs the compiled module, which this installation lacks: use 'fastscan'")


def _chosen(state: _State, banned: npt.NDArray[np.bool_]) -> list[Places] | None:
    """The places of the items that are not banned, part by part, where these are few."""
    if (state.n - int(np.count_nonzero(banned))) * _GATHER > state.n:
        return None
    allowed = np.flatnonzero(~banned)
    cuts = np.searchsorted(allowed, [part.first for part in state.parts[1:]])
    return [
        np.sort(part.places[inside - part.first])
        for part, inside in zip(state.parts, np.split(allowed, cuts), strict=True)
    ]
