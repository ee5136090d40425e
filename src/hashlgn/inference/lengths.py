"""Lengths of the sums of histories, remembered from change to change: what the mean of an item's people costs most.

``‖v_u‖`` of a history weighs it in the mean of unit queries. A change moves a sum by no more than what it adds:
``| ‖v'‖ − ‖v‖ | ≤ ‖v' − v‖``. So a length stays known within a tolerance while what was added since is small beside it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Lengths"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_TOLERANCE = 0.2  # of a length: the weights of some people are that much off, and their mean hardly


class Lengths:
    """What is known of the lengths of users' sums; a later state has its own.

    Args:
        known: lengths, ``(n_users,)``; NaN where unknown.
        moved: how far a sum may have moved since, ``(n_users,)``.
    """

    def __init__(self, known: Floats, moved: Floats) -> None:
        self._known, self._moved = known, moved

    @classmethod
    def unknown(cls, count: int) -> Lengths:
        """Nothing is known of so many users."""
        return cls(np.full(count, np.nan, np.float32), np.zeros(count, np.float32))

    def of(self, users: Ints, without: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Lengths of users' sums less a vector of length ``without``, ``(q,)``; which of them are near enough."""
        found = self._known[users]
        return found, self._moved[users] + without <= _TOLERANCE * found

    def learn(self, users: Ints, lengths: Floats) -> None:
        """Lengths of this state, as they are."""
        self._known[users], self._moved[users] = lengths, 0

    def grown(self, count: int) -> Lengths:
        """The same of more users, to be changed."""
        more = count - len(self._known)
        return Lengths(
            np.concatenate((self._known, np.full(more, np.nan, np.float32))),
            np.concatenate((self._moved, np.zeros(more, np.float32))),
        )

    def move(self, users: Ints, by: Floats | float) -> None:
        """The sums of users move by vectors of lengths ``by`` at most."""
        np.add.at(self._moved, users, np.float32(by))
