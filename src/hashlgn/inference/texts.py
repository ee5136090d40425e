"""Texts of a catalogue as flat arrays, decoded one at a time, so that a mapped file is never read whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError
from hashlgn.inference.ragged import lengthened, spliced

__all__ = ["Tags", "Texts"]

Offsets = npt.NDArray[np.int64]


class Texts(Sequence[str]):
    """A sequence of strings.

    Args:
        utf8: all strings end to end, uint8.
        offsets: where each begins and the last one ends, ``(n + 1,)`` int64.

    Raises:
        ArgumentError: the offsets do not ascend from 0 to the length of ``utf8``.
    """

    def __init__(self, utf8: npt.NDArray[np.uint8], offsets: Offsets) -> None:
        if utf8.dtype != np.uint8 or utf8.ndim != 1:
            raise ArgumentError(f"utf8 must be flat uint8 (got {utf8.dtype} {utf8.shape})")
        check_offsets(offsets, len(utf8))
        self.utf8, self.offsets = utf8, offsets

    @classmethod
    def of(cls, values: Iterable[str]) -> Texts:
        """The strings of a list.

        Raises:
            ArgumentError: a value is no string, or holds half of a surrogate pair.
        """
        try:
            encoded = [value.encode() for value in values]
        except (AttributeError, TypeError, UnicodeEncodeError) as error:
            raise ArgumentError(f"texts must be strings of valid Unicode ({error})") from error
        utf8 = np.frombuffer(b"".join(encoded), np.uint8)
        return cls(utf8, np.cumsum([0, *map(len, encoded)], dtype=np.int64))

    def changed(self, texts: Mapping[int, str], count: int) -> Texts:
        """``count`` strings: those of ``texts`` by number, else those that were there, else empty ones."""
        if not texts and count == len(self):
            return self
        rows = {number: np.frombuffer(text.encode(), np.uint8) for number, text in texts.items()}
        bounds = lengthened(self.offsets, {number: len(row) for number, row in rows.items()}, count)
        return Texts(spliced(self.utf8, self.offsets, rows), bounds)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        place = range(len(self))[index(number)]
        return self.utf8[self.offsets[place] : self.offsets[place + 1]].tobytes().decode(errors="replace")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


class Tags(Sequence[tuple[str, ...]]):
    """A sequence of tuples of strings.

    Args:
        names: the strings of all tuples, one after the other.
        rows: where each tuple begins and the last one ends, ``(n + 1,)`` int64.

    Raises:
        ArgumentError: the rows do not ascend from 0 to the number of names.
    """

    def __init__(self, names: Texts, rows: Offsets) -> None:
        check_offsets(rows, len(names))
        self.names, self.rows = names, rows

    @classmethod
    def of(cls, values: Iterable[Sequence[str]]) -> Tags:
        """The tuples of a list.

        Raises:
            ArgumentError: a value is no tuple of strings.
        """
        rows = list(values)
        if not all(isinstance(row, tuple) for row in rows):
            raise ArgumentError("tags must be tuples of strings")
        names = Texts.of(name for row in rows for name in row)
        return cls(names, np.cumsum([0, *map(len, rows)], dtype=np.int64))

    def changed(self, tags: Mapping[int, tuple[str, ...]], count: int) -> Tags:
        """``count`` tuples: those of ``tags`` by number, else those that were there, else empty ones."""
        if not tags and count == len(self):
            return self
        texts = {number: [name.encode() for name in names] for number, names in tags.items()}
        sizes = {number: np.array([*map(len, names)], np.int64) for number, names in texts.items()}
        rows = {number: np.frombuffer(b"".join(names), np.uint8) for number, names in texts.items()}
        lengths = spliced(np.diff(self.names.offsets), self.rows, sizes)
        utf8 = spliced(self.names.utf8, self.names.offsets[self.rows], rows)
        names = Texts(utf8, np.concatenate(([0], np.cumsum(lengths))))
        return Tags(names, lengthened(self.rows, {number: len(row) for number, row in sizes.items()}, count))

    def __len__(self) -> int:
        return len(self.rows) - 1

    @overload
    def __getitem__(self, number: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, number: slice) -> list[tuple[str, ...]]: ...
    def __getitem__(self, number: int | slice) -> tuple[str, ...] | list[tuple[str, ...]]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        place = range(len(self))[index(number)]
        return tuple(self.names[int(self.rows[place]) : int(self.rows[place + 1])])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


def check_offsets(offsets: Any, end: int) -> None:
    """Check that offsets ascend from 0 to ``end``.

    Raises:
        ArgumentError: they do not.
    """
    if offsets.dtype != np.int64 or offsets.ndim != 1 or not len(offsets):
        raise ArgumentError(f"offsets must be flat int64 (got {offsets.dtype} {offsets.shape})")
    if offsets[0] != 0 or offsets[-1] != end or (offsets[1:] < offsets[:-1]).any():
        raise ArgumentError(f"offsets must ascend from 0 to {end}")
