"""Full-ranking evaluation of models and of tables of answers, and its metrics."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hashlgn.evaluation import metrics
from hashlgn.evaluation.metrics import BEYOND, METRICS

if TYPE_CHECKING:
    from hashlgn.evaluation.full_ranking import evaluate, read_test
    from hashlgn.evaluation.result import Evaluation

__all__ = ["BEYOND", "METRICS", "Evaluation", "evaluate", "metrics", "read_test"]

_MODULES = {"Evaluation": "result", "evaluate": "full_ranking", "read_test": "full_ranking"}


def __getattr__(name: str) -> Any:  # training needs the metrics alone, and not the searchers
    if name in _MODULES:
        return getattr(importlib.import_module(f"hashlgn.evaluation.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'hashlgn.evaluation' has no attribute {name!r}")
