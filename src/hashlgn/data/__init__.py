"""Data: external ids, interactions, readers, splits, synthetic data and published data sets."""

from hashlgn.data.ids import Ids
from hashlgn.data.interactions import Dropped, Interactions
from hashlgn.data.readers import FORMATS, read_interactions
from hashlgn.data.splits import global_time, leave_last, leave_users, random_ratio

__all__ = [
    "FORMATS",
    "Dropped",
    "Ids",
    "Interactions",
    "global_time",
    "leave_last",
    "leave_users",
    "random_ratio",
    "read_interactions",
]
