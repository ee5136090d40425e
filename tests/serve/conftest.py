"""Models that the tests of the service share."""

from __future__ import annotations

from pathlib import Path

import pytest
from serve_help import saved

from hashlgn.inference.recommender import Recommender, load


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of two models of one catalogue."""
    folder = tmp_path_factory.mktemp("models")
    return {name: saved(folder, name, seed) for seed, name in enumerate(("first", "second"))}


@pytest.fixture(scope="package")
def library(models: dict[str, Path]) -> dict[str, Recommender]:
    """The same models in the library."""
    return {name: load(path, threads=1) for name, path in models.items()}
