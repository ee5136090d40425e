"""Other engines, asked what an export makes for them: answers and times of ``exports.py`` and of the tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from postgres import postgres_server, rows_of_output

from hashlgn.errors import need
from hashlgn.experiments.common.measure import timed
from hashlgn.export import Query, milvus
from hashlgn.export.base import NAME
from hashlgn.scoring.decoders import Floats

__all__ = ["ENGINES", "Answer", "Engine", "QdrantEdge", "postgres_answers", "qdrant_answers"]


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
    found = [timed(partial(call, query)) for query in queries]
    return [
        Answer(np.asarray(numbers, np.int64), np.asarray(scores, np.float64), seconds)
        for (numbers, scores), seconds in found
    ]


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
    connection.execute("SET threads = 1")
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


def _qdrant(folder: Path, queries: list[Any]) -> list[Answer]:
    client = need("qdrant_client", "qdrant", "Qdrant").QdrantClient(path=str(folder))
    try:
        return qdrant_answers(client, queries)
    finally:
        client.close()


def qdrant_answers(client: Any, queries: list[Any]) -> list[Answer]:
    """Answers of a client of Qdrant."""

    def call(query: dict[str, Any]) -> tuple[Any, Any]:
        with warnings.catch_warnings(action="ignore"):  # local mode is exact, whether it is asked to be or not
            points = client.query_points(NAME, **query).points
        return [point.id for point in points], [point.score for point in points]

    return _timed(call, queries)


class QdrantEdge:
    """Qdrant's engine itself, in this process, which ``export.fill`` takes for a client.

    Args:
        folder: an empty one, for its files.
    """

    def __init__(self, folder: Path) -> None:
        self._edge, self._folder = need("qdrant_edge", "engines", "Qdrant's engine"), folder
        self._shard: Any = None

    def create_collection(self, name: str, vectors_config: Any, sparse_vectors_config: Any = None) -> None:
        """As the client's."""
        edge = self._edge
        dense = {n: edge.EdgeVectorParams(kind.size, edge.Distance.Dot) for n, kind in vectors_config.items()}
        sparse = {n: edge.EdgeSparseVectorParams() for n in sparse_vectors_config or ()}
        self._shard = edge.EdgeShard.create(str(self._folder), edge.EdgeConfig(dense or None, sparse or None))

    def upsert(self, name: str, points: list[Any]) -> None:
        """As the client's."""
        held = [
            self._edge.Point(point.id, {n: self._own(vector) for n, vector in point.vector.items()}, point.payload)
            for point in points
        ]
        self._shard.update(self._edge.UpdateOperation.upsert_points(held))

    def answers(self, queries: list[Any]) -> list[Answer]:
        """Answers to what the client's ``query_points`` takes."""
        edge = self._edge

        def call(query: dict[str, Any]) -> tuple[Any, Any]:
            others = None
            if "query_filter" in query:
                others = edge.Filter(must_not=[edge.HasIdCondition(set(query["query_filter"].must_not[0].has_id))])
            nearest = edge.Query.Nearest(self._own(query["query"]), using=query["using"])
            exact = edge.SearchParams(exact=True)
            found = self._shard.query(edge.QueryRequest(query["limit"], query=nearest, filter=others, params=exact))
            return [point.id for point in found], [point.score for point in found]

        return _timed(call, queries)

    def close(self) -> None:
        """Write what is not written, and end."""
        self._shard.flush()
        self._shard.close()

    def _own(self, vector: Any) -> Any:
        return self._edge.SparseVector(vector.indices, vector.values) if hasattr(vector, "indices") else vector


def _milvus(folder: Path, queries: list[Any]) -> list[Answer]:
    with milvus.opened(folder) as client:
        client.load_collection(NAME)

        def call(query: dict[str, Any]) -> tuple[Any, Any]:
            (found,) = client.search(NAME, **query)
            return [hit["number"] for hit in found], [hit["distance"] for hit in found]

        return _timed(call, queries)


def _lancedb(folder: Path, queries: list[Any]) -> list[Answer]:
    table = need("lancedb", "lancedb", "LanceDB").connect(str(folder)).open_table(NAME)

    def call(query: dict[str, Any]) -> tuple[Any, Any]:
        search = table.search(query["vector"]).distance_type("dot").limit(query["k"])
        search = search.where(query["where"], prefilter=True) if query["where"] else search
        found = search.to_arrow()
        return found["number"].to_numpy(), 1 - found["_distance"].to_numpy().astype(np.float64)

    return _timed(call, queries)


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
    "qdrant-sparse": _qdrant,
    "qdrant-dense": _qdrant,
    "milvus": _milvus,
    "lancedb": _lancedb,
}
