"""HashLGN: recommendations from bits.

    import hashlgn

    train = hashlgn.read_interactions("ratings.csv")
    model = hashlgn.HashLGN(bits=128, seed=0).fit(train)
    print(model.recommend(users=[42], k=10).to_pandas())
    model.save("model")

Names are imported when they are first used, so that serving a saved model never imports PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hashlgn.config import Config as Config
    from hashlgn.data import Interactions as Interactions
    from hashlgn.data import read_interactions as read_interactions
    from hashlgn.errors import HashLGNError as HashLGNError
    from hashlgn.estimators import HashLGN as HashLGN
    from hashlgn.estimators import LightGCN as LightGCN
    from hashlgn.evaluation.full_ranking import evaluate as evaluate
    from hashlgn.inference.recommender import Recommender as Recommender
    from hashlgn.inference.recommender import load as load
    from hashlgn.vectors import encode as encode

__version__ = "0.1.0"

_PACKAGES = (
    "client",
    "config",
    "data",
    "errors",
    "estimators",
    "evaluation",
    "experiments",
    "export",
    "inference",
    "scoring",
    "search",
    "training",
)
_MODULES = {
    "Config": "config",
    "HashLGN": "estimators",
    "HashLGNError": "errors",
    "Interactions": "data",
    "LightGCN": "estimators",
    "Recommender": "inference.recommender",
    "encode": "vectors",
    "evaluate": "evaluation.full_ranking",
    "load": "inference.recommender",
    "read_interactions": "data",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:  # so that ``hashlgn.search.SEARCHERS`` needs no import of its own
        return importlib.import_module(f"hashlgn.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'hashlgn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"hashlgn.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({name for name in globals() if name.startswith("__")} | {*_MODULES, *_PACKAGES})
