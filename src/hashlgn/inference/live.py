"""What a model keeps about its changes since the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError
from hashlgn.inference.placement import Placement
from hashlgn.utils.pages import Pages

if TYPE_CHECKING:
    from hashlgn.inference.model import ServedModel

__all__ = ["Live", "live_of"]


@dataclass(frozen=True, eq=False)
class Live:
    """What a model keeps about its changes.

    Attributes:
        placement: where new items go; None until the first item is placed.
        counts: interactions of each item that its place rests on, ``(items,)`` int32.
        removed: whether each item is no longer answered, ``(items,)`` bool, or None where all are.
        items: number of items of the training.
        changes: how many there were.

    Raises:
        ArgumentError: an array has another type.
    """

    placement: Placement | None
    counts: Pages
    items: int
    removed: npt.NDArray[np.bool_] | None = None
    changes: int = 0

    def __post_init__(self) -> None:
        for name, kind, array in (("counts", np.int32, self.counts.pages[0]), ("removed", np.bool_, self.removed)):
            if array is not None and (array.dtype != kind or array.ndim != 1):
                raise ArgumentError(f"live.{name} must be flat {np.dtype(kind)} (got {array.dtype} {array.shape})")


def live_of(model: ServedModel) -> Live:
    """What a model keeps about its changes; of one that never changed, the start."""
    if model.live is not None:
        return model.live
    return Live(None, Pages.of(model.item_counts.astype(np.int32)), len(model.item_ids))
