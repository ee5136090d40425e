"""Other engines, asked what an export makes for them: answers and times of ``bench export`` and of the tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hashlgn.errors import need
from hashlgn.experiments.benchmarks.postgres import postgres_server, rows_of_output
from hashlgn.export import Query
from hashlgn.scoring.decoders import Floats

__all__ = ["ENGINES", "Answer", "Engine", "postgres_answers"]


class Answer(NamedTuple):
    """What an engine answers to one query.

    Attributes:
        numbers: items, best first.
        scores: as the engine gives them.
        seconds: wall time of the call.
    """

    numbers: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    seconds: float


Engine = Callable[[Path, list[Any]], list[Answer]]
Call = Callable[[Any], tuple[Any, Any]]  # a query → numbers, scores


def _timed(call: Call, queries: list[Any]) -> list[Answer]:
    found = []
    for query in queries:
        began = time.perf_counter()
        numbers, scores = call(query)
        seconds = time.perf_counter() - began
        found.append(Answer(np.asarray(numbers, np.int64), np.asarray(scores, np.float64), seconds))
    return found


def _parquet(folder: Path, queries: list[Any]) -> list[Answer]:
    import pyarrow.parquet as pq

    column = pq.read_table(folder / "items.parquet")["vector"].combine_chunks()
    vectors: Floats = column.flatten().to_numpy().reshape(len(column), -1)

    def call(query: Query) -> tuple[Any, Any]:
        scores = vectors @ query.vector
        order = np.argsort(-scores, kind="stable")
        return order, scores[order]

    return _timed(call, queries)


def _duckdb(folder: Path, queries: list[Any]) -> list[Answer]:
    connection = need("duckdb", "duckdb", "DuckDB").connect(str(folder / "items.duckdb"), read_only=True)
    try:

        def call(query: str) -> tuple[Any, Any]:
            found = connection.execute(query).fetchnumpy()
            return found["number"], found["score"]

        return _timed(call, queries)
    finally:
        connection.close()


def _faiss(folder: Path, queries: list[Any]) -> list[Answer]:
    import faiss

    index = faiss.read_index(str(folder / "items.faiss"))

    def call(query: dict[str, Any]) -> tuple[Any, Any]:
        scores, numbers = index.search(**query)
        return numbers[0][numbers[0] >= 0], scores[0][numbers[0] >= 0]

    return _timed(call, queries)


def _postgres(folder: Path, queries: list[Any]) -> list[Answer]:
    with postgres_server() as psql:
        return postgres_answers(psql(folder, queries))


def postgres_answers(outputs: list[tuple[str, float]]) -> list[Answer]:
    """Answers from what psql printed of each query."""
    found = []
    for output, seconds in outputs:
        rows = rows_of_output(output)
        numbers, scores = [int(row[0]) for row in rows], [float(row[-1]) for row in rows]
        found.append(Answer(np.array(numbers, np.int64), np.array(scores), seconds))
    return found


ENGINES: dict[str, Engine] = {
    "parquet": _parquet,
    "duckdb": _duckdb,
    "postgres": _postgres,
    "pgvector-sparsevec": _postgres,
    "pgvector-halfvec": _postgres,
    "pgvector-bit": _postgres,
    "faiss-pq": _faiss,
    "faiss-flat": _faiss,
    "faiss-fp16": _faiss,
}
