"""Answers as columns: NumPy arrays with a way out to pandas, Polars and Arrow, and a writer that streams to a file."""

from __future__ import annotations

import contextlib
import html
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hashlgn.errors import ArgumentError, UnknownColumnError, counted, need, shown
from hashlgn.utils.storage import reason, replaced_file

__all__ = ["WRITERS", "RowWriter", "Table"]

Column = npt.NDArray[Any]
_ROWS = 10  # that are printed


class Table(Mapping[str, npt.NDArray[Any]]):
    """Named columns of one length, in order: a mapping from names to NumPy arrays.

    Iteration and ``in`` are over names of columns; ``len`` is the number of rows, as of a data frame. Columns of ids
    are int64 where all ids are integers, else arrays of objects.

    Args:
        columns: arrays ``(n,)`` by name.

    Raises:
        ArgumentError: there is no column, or their lengths differ.
    """

    def __init__(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ArgumentError(f"columns must have one length (got {lengths})")
        self._columns: dict[str, Column | Callable[[str], Column]] = dict(columns)

    @classmethod
    def deferred(cls, columns: dict[str, Column | Callable[[str], Column]]) -> Table:
        """A table of arrays, and of what makes a column from its name when it is first asked for.

        Args:
            columns: which is kept: a caller may still put arrays in place of what makes them. At least one is an array
                by the time when the table is read.
        """
        table = cls.__new__(cls)
        table._columns = columns
        return table

    @classmethod
    def concatenate(cls, tables: Sequence[Table]) -> Table:
        """One table of all rows, in order.

        Raises:
            ArgumentError: there is no table, or their columns differ.
        """
        names = {table.names for table in tables}
        if len(names) != 1:
            raise ArgumentError(f"tables must have the same columns (got {sorted(names)})")
        if len(tables) == 1:
            return tables[0]
        (only,) = names
        return cls({name: np.concatenate([table[name] for table in tables]) for name in only})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self._columns)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        try:
            column = self._columns[name]
        except (KeyError, TypeError):
            raise UnknownColumnError(
                f"column must be one of {', '.join(map(repr, self._columns))} (got {shown(name)})"
            ) from None
        if not isinstance(column, np.ndarray):
            column = self._columns[name] = column(name)
        return column

    def __getstate__(self) -> dict[str, Any]:
        """All columns, made."""
        return {"_columns": dict(self.items())}

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._columns  # that of a mapping makes the column, or an error

    def __len__(self) -> int:
        return next(len(column) for column in self._columns.values() if isinstance(column, np.ndarray))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Table):
            return NotImplemented
        return self.names == other.names and all(np.array_equal(self[name], other[name]) for name in self)

    def __repr__(self) -> str:
        rows = self._shown()
        widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
        lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([*lines, *(["…"] if len(self) > _ROWS else []), f"[{counted(len(self), 'row')}]"])

    def _repr_html_(self) -> str:
        head, *rows = ([html.escape(text) for text in row] for row in self._shown())
        lines = [
            f"<tr><th>{'</th><th>'.join(head)}</th></tr>",
            *(f"<tr><td>{'</td><td>'.join(r)}</td></tr>" for r in rows),
        ]
        more = f", of which {_ROWS} are shown" if len(self) > _ROWS else ""
        return f"<table>{''.join(lines)}</table><p>{counted(len(self), 'row')}{more}</p>"

    def _shown(self) -> list[tuple[str, ...]]:
        """Names and the first rows, as text."""
        columns = [
            [f"{value:.6g}" if isinstance(value, float) else str(value) for value in column[:_ROWS].tolist()]
            for column in self.values()
        ]
        return [self.names, *zip(*columns, strict=True)]

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_arrow(self) -> pa.Table:
        """An Arrow table; a column of objects becomes integers or strings.

        Raises:
            ArgumentError: a column mixes integers and strings, which Arrow cannot tell apart in one column.
        """
        return pa.table({name: _arrow(name, column) for name, column in self.items()})

    def to_pandas(self) -> Any:
        """A pandas data frame.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return need("pandas", "pandas", "to_pandas").DataFrame(dict(self.items()))

    def to_polars(self) -> Any:
        """A Polars data frame.

        Raises:
            MissingExtraError: Polars is not installed.
            ArgumentError: as ``to_arrow``.
        """
        return need("polars", "polars", "to_polars").from_arrow(self.to_arrow())


class RowWriter:
    """Writes tables to one file, one after the other; the file takes its name when all is written, or never.

    Args:
        path: the file; its suffix says how: ``.parquet``, ``.csv`` or ``.jsonl``.

    Raises:
        ArgumentError: another suffix, a folder that does not exist, a table of other columns than the first, or a file
            that cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if self.path.suffix not in WRITERS:
            raise ArgumentError(f"out must end in {', '.join(WRITERS)} (got {shown(str(path))})")
        try:
            parent, folder = self.path.parent.is_dir(), self.path.is_dir()
        except (OSError, ValueError) as error:  # too long, not to be read, with a zero byte
            raise ArgumentError(f"out must be a path to write to (got {shown(str(path))}: {reason(error)})") from error
        if not parent:
            raise ArgumentError(f"out must lie in a folder that exists (got {shown(str(path))})")
        if folder:
            raise ArgumentError(f"out must be a file (got the folder {shown(str(path))})")
        self._stack = contextlib.ExitStack()
        self._sink: Any = None
        self._schema: pa.Schema | None = None  # of the first rows; until there are any, of the last empty table

    def __enter__(self) -> Self:
        try:
            self._temporary = self._stack.enter_context(replaced_file(self.path))
        except (OSError, ValueError) as error:
            raise ArgumentError(f"out must be writable (got {shown(str(self.path))}: {reason(error)})") from error
        return self

    def write(self, table: Table) -> None:
        """Append the rows of a table."""
        rows = table.to_arrow()
        if self._schema is not None and rows.column_names != self._schema.names:
            raise ArgumentError(f"tables must have the columns {self._schema.names} (got {rows.column_names})")
        if self._sink is None:
            self._schema = rows.schema
        if not len(rows):  # a column of no ids has no type of its own
            return
        if rows.schema != self._schema:
            raise ArgumentError(
                f"out must hold columns of one type throughout (got {', '.join(map(str, rows.schema))} after others: "
                "ids that mix integers and strings cannot be written to one column)"
            )
        try:
            self._open().write_table(rows)
        except OSError as error:
            raise ArgumentError(f"out must be writable (got {str(self.path)!r}: {reason(error)})") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with contextlib.suppress(OSError):  # a full disk refuses once more when the file is closed
                self._stack.__exit__(kind, error, trace)
            return
        try:
            with self._stack:
                if self._schema is None:
                    raise ArgumentError("rows must be written before the file is closed (got no table)")
                self._open()
        except OSError as failure:
            raise ArgumentError(f"out must be writable (got {str(self.path)!r}: {reason(failure)})") from failure

    def _open(self) -> Any:
        if self._sink is None:
            self._sink = self._stack.enter_context(WRITERS[self.path.suffix](self._temporary, self._schema))
        return self._sink


class _Csv:
    """Comma-separated text with a header; strings are quoted where they must be."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        from pyarrow import csv

        self._file = path.open("wb")
        self._file.write((",".join(schema.names) + "\n").encode())
        self._writer = csv.CSVWriter(
            self._file, schema, write_options=csv.WriteOptions(include_header=False, quoting_style="needed")
        )

    def __enter__(self) -> Self:
        return self

    def write_table(self, rows: pa.Table) -> None:
        self._writer.write_table(rows)

    def __exit__(self, *error: object) -> None:
        with self._file:
            self._writer.close()


class _JsonLines:
    """One JSON object per line."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def write_table(self, rows: pa.Table) -> None:
        import pyarrow.compute as pc

        for batch in rows.to_batches(max_chunksize=_LINES):
            parts: list[Any] = []
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                parts += [f"{', ' if parts else '{'}{json.dumps(name)}: ", _json_column(name, column)]
            lines = pc.binary_join_element_wise(
                *(pa.scalar(p) if isinstance(p, str) else p for p in [*parts, "}\n"]), ""
            )
            _, offsets, text = lines.buffers()
            self._file.write(text[: np.frombuffer(offsets, np.int32)[len(lines)]])

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _parquet(path: Path, schema: pa.Schema) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(path, schema, compression="zstd")


_LINES = 1 << 16  # lines made at once

WRITERS: dict[str, Any] = {".parquet": _parquet, ".csv": _Csv, ".jsonl": _JsonLines}


def _json_column(name: str, column: pa.Array) -> pa.Array:
    """Each value as JSON text; each distinct string is escaped once."""
    import pyarrow.compute as pc

    if pa.types.is_string(column.type):
        held = column.dictionary_encode()
        escaped = pa.array([json.dumps(text) for text in held.dictionary.to_pylist()], pa.string())
        return pc.fill_null(escaped.take(held.indices), "null")
    if pa.types.is_floating(column.type) and not np.isfinite(column.to_numpy(zero_copy_only=False)).all():
        raise ArgumentError(f"{name} must be finite, since JSON has no other numbers")
    return column.cast(pa.string())


def _arrow(name: str, column: npt.NDArray[Any]) -> pa.Array:
    if column.dtype != np.object_:
        return pa.array(column)
    kinds = {type(value) for value in column.tolist()}
    if kinds <= {str, type(None)}:
        return pa.array(column, pa.string())
    if kinds == {int}:
        return pa.array(column, pa.int64())
    raise ArgumentError(
        f"{name} must hold only integers or only strings to become one Arrow column "
        f"(got {' and '.join(sorted(kind.__name__ for kind in kinds))}: the NumPy arrays keep them apart)"
    )
