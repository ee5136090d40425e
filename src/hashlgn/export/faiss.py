"""Faiss: an index, and a Parquet file with what its numbers stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hashlgn.errors import ArgumentError
from hashlgn.export.base import Catalogue, Exporter, Query, write_parquet
from hashlgn.scoring.items import CodedItems

__all__ = ["FLAT", "FP16", "PQ"]


def _write(catalogue: Catalogue, folder: Path, index: Any, add: Callable[[Any, Any], None]) -> None:
    import faiss

    if catalogue.model.removed is not None and catalogue.model.removed.any():
        raise ArgumentError(
            "to must name an export whose items have numbers, since items were removed (Faiss counts places)"
        )
    write_parquet(folder, (part.attributes for part in catalogue.parts()))
    for part in catalogue.parts():
        if len(part.items):
            add(index, part)
    faiss.write_index(index, str(folder / "items.faiss"))


def _pq(catalogue: Catalogue, folder: Path) -> None:
    """Codewords are the unit vectors of ``16 M`` dimensions, so that the product with a flattened table looks it up."""
    import faiss

    count = catalogue.bits // 4
    if isinstance(catalogue.items, CodedItems) and catalogue.items.scale is not None:
        raise ArgumentError("to='faiss-pq' holds no scales, which this model has: use 'faiss-flat' or 'faiss-fp16'")
    index: Any = faiss.IndexPQ(16 * count, count, 4, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(np.tile(np.eye(16, dtype=np.float32), (count, 1, 1)).ravel(), index.pq.centroids)
    index.is_trained = True
    _write(catalogue, folder, index, lambda index, part: index.add_sa_codes(np.ascontiguousarray(part.codes)))


def _flat(catalogue: Catalogue, folder: Path) -> None:
    import faiss

    index = faiss.IndexFlatIP(catalogue.items.width)
    _write(catalogue, folder, index, lambda index, part: index.add(part.items.decode()))


def _fp16(catalogue: Catalogue, folder: Path) -> None:
    import faiss

    kind = faiss.ScalarQuantizer.QT_fp16
    index: Any = faiss.IndexScalarQuantizer(catalogue.items.width, kind, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True  # there is nothing to learn
    _write(catalogue, folder, index, lambda index, part: index.add(part.items.decode()))


def _pq_query(query: Query, k: int) -> dict[str, Any]:
    """What ``index.search`` takes. This index cannot leave items out, so that it is asked for as many more."""
    return {"x": query.flat[None], "k": k + len(query.seen)}


def _vector_query(query: Query, k: int) -> dict[str, Any]:
    """What ``index.search`` takes."""
    import faiss

    asked: dict[str, Any] = {"x": query.vector[None], "k": k}
    if len(query.seen):
        others: Any = faiss.SearchParameters
        asked["params"] = others(sel=faiss.IDSelectorNot(faiss.IDSelectorBatch(query.seen)))
    return asked


PQ = Exporter(_pq, _pq_query)
FLAT = Exporter(_flat, _vector_query)
FP16 = Exporter(_fp16, _vector_query)
