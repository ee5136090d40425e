"""Data: external ids, interactions, readers, splits, synthetic data and published data sets."""

from hashlgn.data.ids import Ids
from hashlgn.data.interactions import CoreReport, Dropped, Interactions

__all__ = ["CoreReport", "Dropped", "Ids", "Interactions"]
