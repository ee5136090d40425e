"""The compiled scan over packed codes: exact, filtered inside, many times faster than a search over floats."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError, ArtifactError, positive_int, thread_count, threshold_value
from hashlgn.scoring.codes import Bytes
from hashlgn.scoring.decoders import CodebookDecoder, Decoder, Floats
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems, Items, score_bound
from hashlgn.search.base import Hits, check_exclusion, check_queries, check_score_bound, in_range
from hashlgn.search.block_items import BlockItems, items_arrays, items_from, merged
from hashlgn.search.blocks import Blocks, Ints, Scale, Slots, kernel
from hashlgn.utils.locks import Lock
from hashlgn.utils.tensors import MALFORMED, Part, read_tensors, write_tensors

__all__ = ["INDEX", "LONGEST_CODE", "Kernel"]

INDEX = "hashlgn-index"  # the format of a catalogue's file

LONGEST_CODE = 4096  # bits
_GATHER = 64  # an allow list that is so many times shorter than the catalogue is scored item by item


class _State(NamedTuple):
    """What a search sees of the catalogue; a change makes a new one, so that a search is never disturbed."""

    segments: tuple[Blocks, ...]
    removed: npt.NDArray[np.bool_] | None
    n: int
    score_bound: float


class Kernel:
    """Scan of codes by the compiled kernel; every answer is exact.

    The lookup table of a query is rounded upwards to bytes. Sums of bytes are never smaller than the sums they stand
    for, so the items whose sums reach the threshold, given or the k-th best score so far, include every answer. Only
    these candidates pass the filters and are scored exactly. Items stand by falling scale, in blocks that know their
    largest one: a scan ends where no scale that is left can reach the threshold. See ``docs/search.md``.

    A kernel can be pickled and copied, and used in the child of a ``fork``.

    Args:
        items: codes, at most 4,096 bits long.
        threads: processor threads for a batch; all where None.
        isa: instruction set, one of ``Kernel.instruction_sets()``; ``auto`` takes the best.

    Raises:
        ArgumentError: float items, longer codes, an unknown instruction set, or the kernel could not be compiled.
    """

    _state: _State

    def __init__(self, items: Items, threads: int | None = None, *, isa: str = "auto") -> None:
        if not isinstance(items, CodedItems):
            raise ArgumentError("engine 'kernel' is for codes (got float items: use 'flat')")
        if items.decoder.bits > LONGEST_CODE:
            raise ArgumentError(
                f"engine 'kernel' is for codes of at most {LONGEST_CODE} bits (got {items.decoder.bits}: use 'exact')"
            )
        self._set_up(items.decoder, threads, isa)
        self._publish(self._segments(items), None, len(items))

    @staticmethod
    def instruction_sets() -> list[str]:
        """What this machine has, best first; empty where the kernel could not be compiled."""
        return [] if kernel is None else kernel.instruction_sets()

    def __len__(self) -> int:
        return self._state.n

    @property
    def scaled(self) -> bool:
        """Whether items carry scales."""
        return self._state.segments[0].scale is not None

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that a search reads."""
        state = self._state
        return sum(one.nbytes for one in state.segments) + (0 if state.removed is None else state.removed.nbytes)

    def search(self, queries: Floats, k: int, exclude: Exclusion | None = None) -> Hits:
        """The k best items of each query."""
        return self._search(queries, positive_int("k", k), 0.0, exclude)[0]

    def search_above(self, queries: Floats, threshold: float, exclude: Exclusion | None = None) -> Hits:
        """Every item whose score is greater than ``threshold``, for each query."""
        return self._search(queries, 0, threshold_value("threshold", threshold), exclude)[0]

    def answers(
        self,
        histories: Any,
        stored: list[Any],
        users: int,
        banned: npt.NDArray[np.bool_] | None,
        user_ids: Any,
        item_ids: Any,
    ) -> Any:
        """What answers histories over the catalogue as it is now, from ids to hits, in one compiled call.

        Args:
            histories: the items in histories, as the kernel holds them.
            stored: the histories of ``users`` users, as the kernel holds them.
            users: how many there are.
            banned: what is never answered, or None.
            user_ids: ids of the users, as the kernel holds them, or None.
            item_ids: ids of the items, as the kernel holds them, or None.

        Returns:
            A ``kernel.Answers``; None where items are no codes under codewords, or a unit query may leave float32.
        """
        state, decoder = self._state, self.decoder
        if not isinstance(decoder, CodebookDecoder) or not in_range(state.score_bound, 1.0, decoder.width):
            return None
        segments = [one.segment for one in state.segments]
        people = histories, stored, users, banned, user_ids, item_ids
        return kernel.Answers(segments, decoder.columns, *people, self.threads, self.isa)

    def profile(self, queries: Floats, k: int, exclude: Exclusion | None = None) -> dict[str, float]:
        """What a top-k search did: items scanned, rescored and kept (over all queries), seconds by stage and thread."""
        return self._search(queries, positive_int("k", k), 0.0, exclude, timed=True)[1]

    def append(self, packed: Bytes, scale: Scale | None = None) -> npt.NDArray[np.int64]:
        """Add items; what is there is not rebuilt. Searches that run meanwhile see the catalogue before or after.

        Args:
            packed: codes, ``(m, bits / 8)`` uint8.
            scale: scales ``(m,)``, positive numbers, where the catalogue has them; float16 is kept, all others are
                rounded to float32.

        Returns:
            The numbers of the new items, which follow the last one.

        Raises:
            ArgumentError: codes of another length or type, scales that are no positive numbers, scales where there
                are none, or none where there are; the catalogue stays as it was.
        """
        codes = np.asarray(packed)
        if codes.dtype != np.uint8:
            raise ArgumentError(f"packed must be uint8 (got {codes.dtype})")
        items = CodedItems(codes, self.decoder, scale)
        if (scale is not None) != self.scaled:
            raise ArgumentError(f"scale must {'be given' if self.scaled else 'be None'}, as in the catalogue")
        with self._writing:
            state = self._state
            n = state.n + len(items)
            if n >= 2**32 - 1:
                raise ArgumentError(f"items must be fewer than 2^32 - 1 (would be {n})")
            numbers = np.arange(state.n, n)
            segments = merged([*state.segments], numbers, items.packed, items.scale, self._rearranged)
            removed = state.removed
            if removed is not None:
                removed = np.concatenate((removed, np.zeros(len(items), np.bool_)))
            self._publish(segments, removed)
        return numbers

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

    def save(self, path: str | Path) -> Path:
        """Write the catalogue to a file that ``open`` maps into memory, all or nothing.

        Args:
            path: the file where it ends in ``.safetensors``, else the folder in which ``model.safetensors`` is to lie.
                A catalogue that is there is replaced; whoever has it open goes on with it undisturbed.

        Returns:
            The file.

        Raises:
            ArgumentError: the file is something else than a catalogue.
            ArtifactError: it cannot be written; what was there before is untouched.
        """
        state = self._state
        parts = {"items": items_arrays(state.segments, self.decoder)} | self._parts()
        if state.removed is not None:
            parts["removed"] = {"items": np.flatnonzero(state.removed)}, {}
        return write_tensors(path, INDEX, {}, parts)

    @classmethod
    def open(cls, path: str | Path, threads: int | None = None, *, isa: str = "auto", verify: bool = False) -> Self:
        """Map a saved catalogue, or the answers of a saved model, into memory.

        Nothing is copied, and processes that open it share it. Sizes, types, shapes, the range of item numbers and of
        scales are always checked; codes are read when they are searched.

        Args:
            path: what ``save`` was given or has returned.
            threads: processor threads for a batch; all where None.
            isa: instruction set.
            verify: whether checksums are compared too, which reads all of the file once.

        Raises:
            ArtifactError: the file is missing, damaged, altered or of another format.
            ArgumentError: an unknown instruction set, or the kernel could not be compiled.
        """
        scan = cls.__new__(cls)
        held = read_tensors(path, INDEX, "hashlgn-model", verify=verify)
        try:
            parts = held.parts()
            if "decoder" not in parts["items"][1]:
                raise ArgumentError("items must be codes (the file holds float items)")
            segments, decoder = items_from(*parts["items"])
            n = sum(map(len, segments))
            removed = Exclusion.build(n, deny=parts["removed"][0]["items"]).banned if "removed" in parts else None
        except MALFORMED as error:
            raise ArtifactError(f"{path}: inconsistent: {str(error) or type(error).__name__}") from error
        scan._set_up(decoder, threads, isa)
        try:
            scan._open_parts(parts)
            scan._publish(segments, removed)
        except MALFORMED as error:
            raise ArtifactError(f"{path}: inconsistent: {str(error) or type(error).__name__}") from error
        return scan

    def _parts(self) -> dict[str, Part]:
        """What a file holds beside the items: arrays, and what its manifest says of them."""
        return {}

    def _open_parts(self, parts: dict[str, Part]) -> None:
        """Take what ``_parts`` gave."""

    def _set_up(self, decoder: Decoder, threads: int | None, isa: str) -> None:
        _need()
        if isa not in ("auto", *self.instruction_sets()):
            raise ArgumentError(f"isa must be one of auto, {', '.join(self.instruction_sets())} (got {isa!r})")
        self.decoder, self.isa = decoder, isa
        self.threads = thread_count("threads", threads) or os.cpu_count() or 1
        self._longest = score_bound(CodedItems(np.empty((0, decoder.bits // 8), np.uint8), decoder))
        self._writing = Lock()
        self._least: int | None = None  # items of the first catalogue that was published

    def _segments(self, items: CodedItems) -> tuple[Blocks, ...]:
        return BlockItems.of(items).segments

    def _arranged(self, items: CodedItems, first: int = 0) -> Blocks:
        return Blocks.build(items.packed, items.scale, first)

    def _rearranged(self, numbers: Ints, packed: Bytes, scale: Scale | None) -> Blocks:
        return self._arranged(CodedItems(packed, self.decoder, scale), int(numbers[0]) if len(numbers) else 0)

    def over(self, items: BlockItems) -> Kernel:
        """A kernel over a changed catalogue of the same decoder; this one stays as it is, and nothing is built."""
        scan = copy.copy(self)
        scan._writing, scan._least = Lock(), None
        scan._publish(items.segments, None, len(items))
        return scan

    def _publish(
        self, segments: tuple[Blocks, ...], removed: npt.NDArray[np.bool_] | None, count: int | None = None
    ) -> None:
        """Check a catalogue, and then let searches see it."""
        largest = [1.0, *(float(one.largest.max()) for one in segments if one.largest is not None)]
        longest = check_score_bound(self._longest * max(largest))
        for one in segments:
            one.segment  # noqa: B018  the kernel checks the arrays here, not when they are searched
        n = sum(map(len, segments)) if count is None else count
        self._least = n if self._least is None else self._least
        self._state = _State(segments, removed, n, longest)

    def _search(
        self, queries: Floats, k: int, threshold: float, exclude: Exclusion | None, *, timed: bool = False
    ) -> tuple[Hits, dict[str, float]]:
        state = self._state
        queries = check_queries(queries, self.decoder.width, state.score_bound)
        if exclude is not None and (self._least or 0) <= exclude.n_items < state.n:
            exclude = _grown(exclude, state.n)  # items were added after it was made
        exclude = check_exclusion(exclude, len(queries), state.n)
        banned = exclude.banned
        if state.removed is not None:
            banned = state.removed if banned is None else banned | state.removed
        chosen = None if banned is None else _chosen(state, banned)
        try:
            indptr, items, scores, profile = kernel.search(
                [one.segment for one in state.segments],
                self.decoder.tables(queries),
                state.n,
                min(k, state.n),
                threshold if state.n or k == 0 else np.inf,
                exclude.indptr,
                None if exclude.indices is None else np.ascontiguousarray(exclude.indices, np.int64),
                banned,
                self._probes(queries),
                chosen,
                self.threads,
                self.isa,
                timed,
            )
        except ValueError as error:  # arguments were checked before: what is left is a catalogue that was tampered with
            raise ArtifactError(f"the catalogue is damaged: {error}") from error
        return Hits(indptr, items, scores), profile

    def _probes(self, queries: Floats) -> npt.NDArray[np.int32] | None:
        """The lists that each query scans; all where None."""
        return None


def _need() -> None:
    if kernel is None:
        raise ArgumentError("engine 'kernel' needs the compiled module, which this installation lacks: use 'fastscan'")


def _grown(exclude: Exclusion, n: int) -> Exclusion:
    """An exclusion for the catalogue as it was before items were added to it: the new items are not answered."""
    banned = np.ones(n, np.bool_)
    banned[: exclude.n_items] = False if exclude.banned is None else exclude.banned
    return Exclusion(n, exclude.indptr, exclude.indices, banned)


def _chosen(state: _State, banned: npt.NDArray[np.bool_]) -> list[Slots] | None:
    """The slots of the items that are not banned, segment by segment, where these are few."""
    if (state.n - int(np.count_nonzero(banned))) * _GATHER > state.n:
        return None
    allowed = np.flatnonzero(~banned)
    found = [one.find(allowed) for one in state.segments]
    return [np.sort(slots[slots >= 0]).astype(np.uint32) for slots in found]
