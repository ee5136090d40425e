"""Qdrant: a sparse vector per item whose product with a query is the score, or the decoded vector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hashlgn.errors import need
from hashlgn.export.base import NAME, Catalogue, Exporter, Part, Query

__all__ = ["DENSE", "SPARSE"]

_BATCH = 1024  # points sent at a time
_SPARSE, _DENSE = "score", "vector"  # names of the vectors


def _package() -> Any:
    return need("qdrant_client", "qdrant", "an export to Qdrant")


def _fill(catalogue: Catalogue, client: Any, create: dict[str, Any], vectors: Callable[[Part], list[Any]]) -> None:
    point = _package().models.PointStruct
    client.create_collection(NAME, **create)
    for part in catalogue.parts():
        payloads, found = part.attributes.drop_columns("number").to_pylist(), vectors(part)
        points = [
            point(id=number, vector=vector, payload=payload)
            for number, vector, payload in zip(part.attributes["number"].to_pylist(), found, payloads, strict=True)
        ]
        for start in range(0, len(points), _BATCH):
            client.upsert(NAME, points[start : start + _BATCH])


def _fill_sparse(catalogue: Catalogue, client: Any) -> None:
    """``M`` numbers other than 0: the scale at ``16 m + k_m``."""
    models, count = _package().models, catalogue.bits // 4

    def vectors(part: Part) -> list[Any]:
        places, scales = part.places.tolist(), part.scales.tolist()
        return [
            {_SPARSE: models.SparseVector(indices=row, values=[scale] * count)}
            for row, scale in zip(places, scales, strict=True)
        ]

    create = {"vectors_config": {}, "sparse_vectors_config": {_SPARSE: models.SparseVectorParams()}}
    _fill(catalogue, client, create, vectors)


def _fill_dense(catalogue: Catalogue, client: Any) -> None:
    models = _package().models
    kind = models.VectorParams(size=catalogue.items.width, distance=models.Distance.DOT)
    create = {"vectors_config": {_DENSE: kind}}
    _fill(catalogue, client, create, lambda part: [{_DENSE: row} for row in part.items.decode().tolist()])


def _local(fill: Callable[[Catalogue, Any], None]) -> Callable[[Catalogue, Path], None]:
    """What writes the files of the client's local mode."""

    def write(catalogue: Catalogue, folder: Path) -> None:
        client = _package().QdrantClient(path=str(folder))
        try:
            fill(catalogue, client)
        finally:
            client.close()

    return write


def _asked(query: Query, k: int, vector: Any, using: str) -> dict[str, Any]:
    models = _package().models
    asked: dict[str, Any] = {"query": vector, "using": using, "limit": k}
    if len(query.seen):
        asked["query_filter"] = models.Filter(must_not=[models.HasIdCondition(has_id=query.seen.tolist())])
    return asked


def _sparse_query(query: Query, k: int) -> dict[str, Any]:
    """What ``client.query_points`` takes beside the name of the collection."""
    table = query.flat.tolist()
    vector = _package().models.SparseVector(indices=list(range(len(table))), values=table)
    return _asked(query, k, vector, _SPARSE)


def _dense_query(query: Query, k: int) -> dict[str, Any]:
    """What ``client.query_points`` takes beside the name of the collection."""
    exact = _package().models.SearchParams(exact=True)
    return {**_asked(query, k, query.vector.tolist(), _DENSE), "search_params": exact}


SPARSE = Exporter(_local(_fill_sparse), _sparse_query, _fill_sparse)
DENSE = Exporter(_local(_fill_dense), _dense_query, _fill_dense)
