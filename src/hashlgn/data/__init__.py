"""Data: external ids, interactions, readers, splits, synthetic data and published data sets."""

from hashlgn.data.ids import Ids
from hashlgn.data.interactions import CoreReport, Dropped, Interactions
from hashlgn.data.splits import global_time, leave_last, random_ratio, validation_slice

__all__ = [
    "CoreReport",
    "Dropped",
    "Ids",
    "Interactions",
    "global_time",
    "leave_last",
    "random_ratio",
    "validation_slice",
]
