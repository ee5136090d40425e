"""Full-ranking evaluation of models and of tables of answers, and its metrics."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hashlgn.evaluation import metrics
from hashlgn.evaluation.metrics import METRICS

if TYPE_CHECKING:
    from hashlgn.evaluation.full_ranking import Evaluation, evaluate, read_test

__all__ = ["METRICS", "Evaluation", "evaluate", "metrics", "read_test"]


def __getattr__(name: str) -> Any:  # training needs the metrics alone, and not the searchers
    if name in ("Evaluation", "evaluate", "read_test"):
        return getattr(importlib.import_module("hashlgn.evaluation.full_ranking"), name)
    raise AttributeError(f"module 'hashlgn.evaluation' has no attribute {name!r}")
