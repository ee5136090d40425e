"""Every export, in its engine, answers what the library answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hashlgn.errors import ArgumentError, MissingExtraError
from hashlgn.experiments.benchmarks.engines import ENGINES, Engine, postgres_server
from hashlgn.export import EXPORTERS, export, queries
from hashlgn.inference.recommender import Recommender
from models import ODD, random_model

# How far scores may be off, as a share of the largest one that a query could have; 0: the same bits.
TOLERANCE = {"parquet": 1e-6, "duckdb": 0, "postgres": 0}
TOLERANCE |= {"pgvector-sparsevec": 1e-6, "pgvector-halfvec": 2e-3, "pgvector-bit": 0}
TOLERANCE |= {"faiss-pq": 1e-6, "faiss-flat": 1e-6, "faiss-fp16": 2e-3}
UNSCALED = {"faiss-pq"}
CODES = {"duckdb", "postgres", "pgvector-sparsevec", "pgvector-bit", "faiss-pq"}
SLOW = [name for name in EXPORTERS if name.startswith("pgvector")]
K = 100


@pytest.fixture(scope="session")
def postgres() -> Iterator[Engine]:
    try:
        server = postgres_server()
        with server as ask:
            yield ask
    except MissingExtraError as error:
        pytest.skip(str(error))


def engine(name: str, request: pytest.FixtureRequest) -> Engine:
    if name.startswith(("postgres", "pgvector")):
        found: Engine = request.getfixturevalue("postgres")
        return found
    if name == "duckdb":
        pytest.importorskip("duckdb", reason="the extra 'duckdb' is not installed")
    return ENGINES[name]


def check(name: str, model: Recommender, ask: Engine, folder: Path) -> None:
    """Export, ask every user's question, compare with the library."""
    export(model, name, folder)
    users = model.model.user_ids.values
    answers = ask(folder, queries(model, name, k=K))
    everything = model.recommend(k=len(model.model.items), filter_seen=False)
    for number, (user, answer) in enumerate(zip(users, answers, strict=True)):
        wanted = model.recommend([user], K)
        scores = everything["score"][everything["user"] == user]
        exact = dict(zip(everything["item"][everything["user"] == user].tolist(), scores.tolist(), strict=True))
        indptr, indices = model.model.seen
        kept = ~np.isin(answer.numbers, indices[indptr[number] : indptr[number + 1]])
        ids = model.model.item_ids.decode(answer.numbers[kept][:K])
        found = answer.scores[kept][:K]
        allowed = TOLERANCE[name] * max(1.0, float(np.abs(scores).max()))
        assert len(ids) == len(wanted)
        if not TOLERANCE[name]:
            assert np.array_equal(ids, wanted["item"])
            assert np.array_equal(found.astype(np.float32), wanted["score"])
            continue
        assert len(set(ids.tolist())) == len(ids)
        own = np.array([exact[item] for item in ids.tolist()])
        assert np.abs(found - own).max() <= allowed
        assert own.min() >= wanted["score"].min() - 2 * allowed


@pytest.mark.parametrize("name", [name for name in EXPORTERS if name not in SLOW])
def test_answers_are_the_librarys(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    ask = engine(name, request)
    tmp_path.chmod(0o755)
    for seed in range(50):
        check(name, random_model(seed, scaled=False if name in UNSCALED else None), ask, tmp_path / str(seed))
