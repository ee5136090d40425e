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
        out = np.empty((len(numbers), *self.pages[0].shape[1:]), self.pages[0].dtype)
        for place, mine in _by_page(numbers):
            out[mine] = self.pages[place][numbers[mine] - (place << _BITS)]
        return out

    def put(self, numbers: Ints, rows: Any) -> Pages:
        """The same with other rows at some numbers, each once; those past the end follow it without a gap."""
        if not len(numbers):
            return self
        pages = list(self.pages)
        for place, mine in _by_page(numbers):
            if len(pages) == place:
                pages.append(pages[0][:0])
            at, old = numbers[mine] - (place << _BITS), pages[place]
            page = np.empty((max(len(old), int(at.max()) + 1), *old.shape[1:]), old.dtype)
            page[: len(old)] = old
            page[at] = rows[mine] if np.ndim(rows) else rows
            pages[place] = page
        return Pages(tuple(pages))

    def differing(self, other: Pages) -> list[int]:
        """Places of the pages that are not those of an earlier, shorter or equal one."""
        shared = len(other.pages)
        return [place for place, page in enumerate(self.pages) if place >= shared or page is not other.pages[place]]


def _by_page(numbers: Ints) -> Iterator[tuple[int, Any]]:
    """Pages that hold some rows, and which of the numbers are theirs."""
    places = numbers >> _BITS
    used = set(places.tolist())
    for place in sorted(used):
        yield place, slice(None) if len(used) == 1 else (places == place).nonzero()[0]
