"""Search by title: words that begin as asked, titles that begin with the whole text first."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Titles"]

_MOST = 5000  # titles looked at per search


class Titles:
    """An index over the titles of a catalogue.

    Args:
        titles: one per item.
        popularity: what ranks titles that match alike, ``(n,)``.
    """

    def __init__(self, titles: Sequence[str], popularity: npt.NDArray[np.float64]) -> None:
        plain = [_plain(title) for title in titles]
        self._text, self._popularity = "\n".join(plain), popularity
        self._starts = np.cumsum([0, *(len(title) + 1 for title in plain)], dtype=np.int64)[:-1]

    def search(self, text: str, k: int) -> list[int]:
        """Numbers of at most ``k`` items whose title has every word of the text as the beginning of a word.

        Titles that begin with the text come first, then by popularity.
        """
        wanted = _plain(text)
        words = wanted.split()
        if not words:
            return []
        patterns = [re.compile(rf"(?<!\w){re.escape(word)}") for word in words]
        rarest = max(range(len(words)), key=lambda place: len(words[place]))
        found: dict[int, bool] = {}
        for match in patterns[rarest].finditer(self._text):
            number = int(self._starts.searchsorted(match.start(), "right")) - 1
            if number in found:
                continue
            title = self._title(number)
            if all(pattern.search(title) for pattern in patterns):
                found[number] = title.startswith(wanted)
                if len(found) == _MOST:
                    break
        best = sorted(found, key=lambda number: (not found[number], -self._popularity[number], number))
        return best[:k]

    def _title(self, number: int) -> str:
        start = self._starts[number]
        end = self._text.find("\n", start)
        return self._text[start : end if end >= 0 else len(self._text)]


def _plain(text: str) -> str:
    """Without case, accents and line ends."""
    folded = text.casefold()
    if not folded.isascii():
        folded = "".join(c for c in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(c))
    return " ".join(folded.split())
