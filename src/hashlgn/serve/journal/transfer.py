"""Events in and out of a journal: Parquet files, interactions to train on, backups, the rest of a damaged file."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, DataError, JournalError
from hashlgn.serve.journal.events import Id, Outcome
from hashlgn.serve.journal.journal import Journal
from hashlgn.serve.journal.live import microseconds
from hashlgn.serve.journal.pairs import read_pairs
from hashlgn.serve.journal.store import Store, failure
from hashlgn.utils.storage import reason, replaced_file

__all__ = ["backup", "export_events", "import_events", "read_journal", "recover"]

_COLUMNS = ("event_id", "user", "item", "type", "weight", "time")
_KINDS = {"int": pa.int64(), "str": pa.string()}
_SHOWN = 3  # rejected rows that a message names


def export_events(journal: Path, out: Path) -> int:
    """Write all events to a Parquet file, as they arrived; a service may go on writing.

    Columns are ``event_id``, ``user``, ``item``, ``type``, ``weight`` and ``time`` (timestamps in UTC).
    ``read_interactions`` reads such a file.

    Returns:
        The number of events.

    Raises:
        JournalError: the journal cannot be read.
        OSError: the file cannot be written.
    """
    count = 0
    with Store.read(journal) as store:
        users, items = (_KINDS[kind] for kind in store.types)
        kinds = (pa.string(), users, items, pa.string(), pa.float64(), pa.timestamp("us", "UTC"))
        schema = pa.schema(list(zip(_COLUMNS, kinds, strict=True)))
        with (
            replaced_file(out) as temporary,
            pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            for rows in store.rows_after(0, *_COLUMNS):
                columns = [pa.array(c, k) for c, k in zip(zip(*rows, strict=True), kinds, strict=True)]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                count += len(rows)
    return count


def import_events(journal: Path, source: Path) -> Outcome:
    """Add the events of a Parquet file to a journal, which is made where it is missing.

    The file has columns ``user`` and ``item``, and may have ``event_id``, ``type``, ``weight`` and ``time``:
    timestamps, or seconds since 1970. Without ``event_id``, an event is named after the file's contents and its row, so
    that a second import of the same file changes nothing.

    Returns:
        How many events were accepted and how many were there before; position in the file and reason of the first
        rejected ones.

    Raises:
        DataError: the file cannot be read, or lacks a column.
        JournalError: the journal cannot be written.
    """
    accepted, duplicates, rejected, start = 0, 0, list[tuple[int, str]](), 0
    try:
        with pyarrow.parquet.ParquetFile(source) as file:
            names = [name for name in _COLUMNS if name in file.schema_arrow.names]
            if not {"user", "item"} <= {*names}:
                raise DataError(f"{source}: columns user and item are needed (columns: {file.schema_arrow.names})")
            kinds = [file.schema_arrow.field(name).type for name in ("user", "item")]
            types = "int" if pa.types.is_integer(kinds[0]) else "str", "int" if pa.types.is_integer(kinds[1]) else "str"
            digest = "" if "event_id" in names else _digest(source)
            with Journal.open(journal, None if journal.exists() else types) as target:
                for batch in file.iter_batches(10_000, columns=names):
                    events = batch.to_pylist()
                    for row, event in enumerate(events if digest else ()):
                        event["event_id"] = f"import-{digest}-{start + row}"
                    outcome = target.append([{k: v for k, v in e.items() if v is not None} for e in events])
                    accepted, duplicates = accepted + outcome.accepted, duplicates + outcome.duplicates
                    rejected += [(start + row, why) for row, why in outcome.rejected]
                    start += len(events)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{source}: cannot be read ({reason(error)})") from error
    return Outcome(accepted, duplicates, rejected)


def _digest(source: Path) -> str:
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_journal(journal: Path, data: Interactions | None = None) -> Interactions:
    """The interactions of a journal, to train on: every pair once, with weight and time of its newest event.

    Args:
        journal: the file; a service may go on writing.
        data: older interactions. What was deleted from the journal is left out of them, and the journal's pairs go
            before theirs. Without times in them, all times are left out.

    Returns:
        Times are microseconds since 1970. There are no weights where all are 1.

    Raises:
        JournalError: the journal cannot be read.
        DataError: nothing is left to train on, or ids are of another type than those of the data.
    """
    with Store.read(journal) as store:
        pairs, removals, _ = read_pairs(store)
    if data is None:
        data = Interactions.from_pairs([], [])
        users, items = pairs.user_ids, pairs.item_ids
        number, code = np.arange(len(users)), np.arange(len(items))
    else:
        types = (pairs.user_ids.id_type, pairs.item_ids.id_type)
        if len(pairs) and (data.user_ids.id_type, data.item_ids.id_type) != types:
            raise DataError(f"{journal}: ids are {types[0]} and {types[1]}, and of another type in the data")
        data = _without(data, removals)
        users, number = data.user_ids.add(pairs.user_ids)
        items, code = data.item_ids.add(pairs.item_ids)
    if not len(data) + len(pairs):
        raise DataError(f"{journal}: no events to train on")
    old, new = len(data), len(pairs)
    weights = np.concatenate([_or_ones(data.weights, old), pairs.weights])
    times = None
    if data.times is not None or not old:
        before = np.empty(0, np.int64) if data.times is None else microseconds(data.times)
        times = np.concatenate([before, pairs.times])
    made = Interactions.from_codes(
        users,
        items,
        np.concatenate([data.rows, number[pairs.users]]),
        np.concatenate([data.indices, code[pairs.items]]),
        times=times,
        weights=None if (weights == 1).all() else weights,
        duplicates="last",
    )
    titles = None if data.titles is None else [*data.titles, *[""] * (len(items) - data.n_items)]
    genres = None if data.genres is None else [*data.genres, *[()] * (len(items) - data.n_items)]
    notes = (*data.notes, f"{journal}: {new:,} pairs of {len(pairs.user_ids):,} users, beside {old:,} interactions")
    return replace(made, titles=titles, genres=genres, notes=notes)


def _or_ones(weights: npt.NDArray[np.float32] | None, count: int) -> npt.NDArray[np.float32]:
    return np.ones(count, np.float32) if weights is None else weights


def _without(data: Interactions, removals: list[tuple[Id, Id | None]]) -> Interactions:
    """The interactions without those that were deleted from a journal, and without users of whom nothing is left."""
    if not removals:
        return data
    users = data.user_ids.encode([user for user, _ in removals], on_unknown="mark")
    known = [item for _, item in removals if item is not None]
    items = data.item_ids.encode(known, on_unknown="mark") if known else np.empty(0, np.int64)
    whole = np.array([item is None for _, item in removals])
    pairs = users[~whole] * data.n_items + items
    gone = np.isin(data.rows, users[whole])
    gone |= np.isin(data.rows * data.n_items + data.indices, pairs[(users[~whole] >= 0) & (items >= 0)])
    return data.select(~gone).without_empty() if gone.any() else data


def backup(journal: Path, out: Path) -> None:
    """Copy a journal, whole and as of one moment; a service may go on writing.

    Raises:
        JournalError: the journal cannot be read.
        OSError: the copy cannot be written.
    """
    try:
        with (
            contextlib.closing(Store(journal)) as store,
            replaced_file(out) as temporary,
            contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as copy,
        ):
            store.db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file
    except sqlite3.Error as error:
        raise failure(journal, error) from error


def recover(damaged: Path, out: Path) -> tuple[int, int]:
    """Copy every event and removal that can still be read to a new journal.

    Returns:
        How many events were read, and how many rows could not be.

    Raises:
        JournalError: nothing can be read.
        ArgumentError: the new journal exists.
    """
    if out.exists():
        raise ArgumentError(f"out must be a new file (got {str(out)!r})")
    lost: list[int] = []
    try:
        with contextlib.closing(Store(damaged)) as store:
            last, _ = store.marks()
            with Journal.open(out, store.types, check=False) as target:
                count = 0
                for rows in _readable(store, 1, last, lost):
                    count += target.restore("events", _COLUMNS, rows)
                for table, columns in (("deleted", ("event_id", "user")), ("removals", ("user", "item"))):
                    try:
                        rows = store.db.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
                    except sqlite3.Error as error:
                        why = f"the list of what was deleted cannot be read ({error})"
                        raise JournalError(f"{damaged}: {why}") from error
                    target.restore(table, columns, rows)
    except sqlite3.Error as error:
        raise failure(damaged, error) from error
    return count, len(lost)


def _readable(store: Store, first: int, last: int, lost: list[int]) -> Iterator[list[tuple[Any, ...]]]:
    """Events that can be read: of a range that cannot, its halves."""
    if first > last:
        return
    query = f"SELECT {', '.join(_COLUMNS)} FROM events NOT INDEXED WHERE row BETWEEN ? AND ?"
    if last - first < 10_000:
        try:
            yield store.db.execute(query, (first, last)).fetchall()
            return
        except sqlite3.Error:
            if first == last:
                lost.append(first)
                return
    middle = (first + last) // 2
    yield from _readable(store, first, middle, lost)
    yield from _readable(store, middle + 1, last, lost)
