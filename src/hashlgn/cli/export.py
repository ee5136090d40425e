"""``hashlgn export``: the same scores in another engine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from hashlgn.cli.options import Quiet
from hashlgn.errors import counted
from hashlgn.utils.console import say

# The keys of ``hashlgn.export.EXPORTERS``, which is not imported for the sake of a line of help.
ENGINES = (
    "parquet, duckdb, postgres, pgvector-sparsevec, pgvector-halfvec, pgvector-bit, faiss-pq, "
    "faiss-flat, faiss-fp16, qdrant-sparse, qdrant-dense, milvus, lancedb"
)


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model.")],
    to: Annotated[str, typer.Option(help=f"Engine and form: {ENGINES}.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    quiet: Quiet = False,
) -> None:
    """Write a model's items, with ids, titles and genres, for another engine."""
    from hashlgn.export import export
    from hashlgn.inference.recommender import load

    began, recommender = time.perf_counter(), load(model)
    folder = export(recommender, to, out)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    count = counted(len(recommender.model.item_ids), "item")
    say(quiet, f"wrote {count} to {folder}: {size:,} bytes in {time.perf_counter() - began:.1f} s")
