"""What all exports share: the catalogue in parts, a user's question, and a folder that is written whole or not."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hashlgn.errors import ArgumentError, shown
from hashlgn.inference.model import ServedModel
from hashlgn.scoring.codes import Bytes, unpack_subcodes
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.items import CodedItems, Items
from hashlgn.utils.storage import reason, sync_folder

__all__ = ["NAME", "Catalogue", "Exporter", "Part", "Query", "new_folder", "vector_column", "write_parquet"]

NAME = "hashlgn_items"  # of the table, or collection, that an export makes
_ROWS = 16_384  # items held in their exported form at a time


class Part(NamedTuple):
    """Some items of a catalogue, one after the other."""

    attributes: pa.Table  # columns number, id and, where the model knows them, title and genres
    items: Items  # the same items' codes or vectors

    @property
    def codes(self) -> Bytes:
        """Packed codes, ``(n, bits / 8)``."""
        assert isinstance(self.items, CodedItems)
        return self.items.packed

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Where a flattened table is read, ``16 m + k_m``: ``(n, M)``."""
        subcodes = unpack_subcodes(self.codes)
        return subcodes + 16 * np.arange(subcodes.shape[1])

    @property
    def scales(self) -> Floats:
        """Scales as float32, ``(n,)``; 1 where items have none."""
        scale = self.items.scale if isinstance(self.items, CodedItems) else None
        return np.ones(len(self.items), np.float32) if scale is None else scale.astype(np.float32)


class Catalogue:
    """The items of a model with their ids and attributes.

    Args:
        model: a trained model.
    """

    def __init__(self, model: ServedModel) -> None:
        self.model, self.items = model, model.items

    def __len__(self) -> int:
        return len(self.items)

    @property
    def bits(self) -> int:
        """Length of a code.

        Raises:
            ArgumentError: items are float vectors.
        """
        if not isinstance(self.items, CodedItems):
            raise ArgumentError(
                "to must name an export of vectors for this model, whose items are floats: parquet, faiss-flat, "
                "faiss-fp16, pgvector-halfvec, qdrant-dense, milvus or lancedb"
            )
        return self.items.decoder.bits

    @cached_property
    def length(self) -> float:
        """A length that one item in a hundred exceeds."""
        lengths = [np.linalg.norm(part.items.decode(), axis=1) for part in self.parts()]
        return float(np.quantile(np.concatenate(lengths), 0.99)) if len(self) else 0.0

    def parts(self) -> Iterator[Part]:
        """All items but removed ones in the order of their numbers, some at a time."""
        ids, titles, genres = self.model.item_ids.to_arrow(), self.model.titles, self.model.genres
        for start in range(0, max(len(self), 1), _ROWS):
            numbers = np.arange(start, min(start + _ROWS, len(self)))
            if self.model.removed is not None:
                numbers = numbers[~self.model.removed[numbers]]
            columns = {"number": pa.array(numbers), "id": ids.take(pa.array(numbers))}
            if titles is not None:
                columns["title"] = pa.array([titles[i] for i in numbers.tolist()], pa.string())
            if genres is not None:
                columns["genres"] = pa.array([list(genres[i]) for i in numbers.tolist()], pa.list_(pa.string()))
            yield Part(pa.table(columns), self.items.take(numbers))


class Query(NamedTuple):
    """What a user, or a history, asks."""

    vector: Floats  # ``q_u``, ``(width,)`` float32
    table: Floats | None  # ``T_u``, ``(M, 16)`` float32, where items are codes
    seen: npt.NDArray[np.int64]  # numbers of the items that are left out

    @property
    def flat(self) -> Floats:
        """The table as one row, ``(16 M,)``.

        Raises:
            ArgumentError: the items of this model are float vectors.
        """
        if self.table is None:
            raise ArgumentError("to must name an export of vectors for this model, whose items are floats")
        return self.table.ravel()


@dataclass(frozen=True)
class Exporter:
    """One form in one engine."""

    write: Callable[[Catalogue, Path], None]  # writes a catalogue into an empty folder
    query: Callable[[Query, int], Any]  # what the engine takes to answer a query with k items
    # Writes a catalogue through a client of the engine, where it has such
    fill: Callable[[Catalogue, Any], None] | None = None


@contextlib.contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """Give an empty folder to write to; at the end it takes its name, and where the body raises it is removed.

    Raises:
        ArgumentError: there is something under that name already, or it cannot be written.
    """
    try:
        target = Path(os.path.realpath(Path(out).expanduser()))
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise ArgumentError(
                f"out must be a folder that does not exist yet, or an empty one (got {shown(str(out))})"
            )
        temporary = target.with_name(f".{target.name[:40]}.writing-{os.getpid()}-{secrets.token_hex(4)}")
        temporary.mkdir(parents=True)
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"out must be a folder to write (got {shown(str(out))}: {reason(error)})") from error
    try:
        yield temporary
        if target.exists():  # empty: not every system replaces it
            target.rmdir()
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise ArgumentError(f"out must be writable (got {shown(str(out))}: {reason(error)})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_parquet(folder: Path, tables: Iterable[pa.Table]) -> None:
    """Write tables of one form, one or more, to ``items.parquet``."""
    import pyarrow.parquet as pq

    writer: Any = None
    for table in tables:
        writer = writer or pq.ParquetWriter(folder / "items.parquet", table.schema, compression="zstd")
        writer.write_table(table)
    writer.close()


def vector_column(vectors: Floats) -> pa.Array:
    """Vectors ``(n, width)`` as an Arrow column of lists of one length."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
