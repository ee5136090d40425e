"""Arrays in pages: a changed copy shares the pages in which nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Pages"]

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

_BITS = 13
_SIZE = 1 << _BITS  # rows of a page


class Pages:
    """Rows of an array, ``(n, …)``, which do not change.

    Args:
        pages: the rows, 8,192 a page but for the last one.
    """

    def __init__(self, pages: tuple[Array, ...]) -> None:
        self.pages = pages

    @classmethod
    def of(cls, array: Array) -> Pages:
        """The rows of an array, without a copy."""
        made = cls(tuple(array[start : start + _SIZE] for start in range(0, max(len(array), 1), _SIZE)))
        made.__dict__["whole"] = array
        return made

    def __len__(self) -> int:
        return _SIZE * (len(self.pages) - 1) + len(self.pages[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {"pages": self.pages}

    @cached_property
    def whole(self) -> Array:
        """All rows in one array."""
        return np.concatenate(self.pages)

    def take(self, numbers: Ints) -> Array:
        """Some rows, in the order asked."""
        if "whole" in self.__dict__:
            return self.whole[numbers]
        if len(numbers) == 1:
            row: Array = self.pages[int(numbers[0]) >> _BITS][numbers & (_SIZE - 1)]
            return row
        out = np.empty((len(numbers), *self.pages[0].shape[1:]), self.pages[0].dtype)
        for place, mine, at in _by_page(numbers):
            out[mine] = self.pages[place][at]
        return out

    def put(self, numbers: Ints, rows: Array | int) -> Pages:
        """The same with other rows at some numbers, each once, the last one last; those past the end follow it without
        a gap.
        """
        pages = list(self.pages)
        if len(numbers) == 1 and (number := int(numbers[0])) < len(self):  # as in most changes
            pages[number >> _BITS] = page = self.pages[number >> _BITS].copy()
            page[number & (_SIZE - 1)] = rows[0] if isinstance(rows, np.ndarray) else rows
            return Pages(tuple(pages))
        for place, mine, at in _by_page(numbers):
            old = pages[place] if place < len(pages) else pages[0][:0]
            page = np.empty((max(len(old), int(at[-1]) + 1), *old.shape[1:]), old.dtype)
            page[: len(old)] = old
            page[at] = rows[mine] if isinstance(rows, np.ndarray) else rows
            pages[place : place + 1] = [page]
        return Pages(tuple(pages))

    def increased(self, numbers: Ints) -> Pages:
        """The same with numbers that are greater by how often their place is named."""
        pages = list(self.pages)
        for place, _, at in _by_page(numbers):
            pages[place] = pages[place].copy()
            np.add.at(pages[place], at, 1)
        return Pages(tuple(pages))

    @staticmethod
    def places(numbers: Ints) -> list[int]:
        """The pages that hold some rows, ascending."""
        return sorted({*(numbers >> _BITS).tolist()})


def _by_page(numbers: Ints) -> Iterator[tuple[int, Any, Ints]]:
    """Pages that hold some rows, which of the numbers are theirs, and where these rows are in the page."""
    if len(numbers) == 1:  # as in most changes
        yield int(numbers[0]) >> _BITS, slice(None), numbers & (_SIZE - 1)
        return
    places = Pages.places(numbers)
    for place in places:
        mine = slice(None) if len(places) == 1 else (numbers >> _BITS == place).nonzero()[0]
        yield place, mine, numbers[mine] & (_SIZE - 1)
