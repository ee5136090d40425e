"""Where the answers of an evaluation come from: a model of this project, another object, or a table."""

from __future__ import annotations

import errno
import inspect
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hashlgn.data import Ids, Interactions
from hashlgn.data.columns import Request, find_columns
from hashlgn.data.strengths import strengths_of
from hashlgn.data.text import quoting
from hashlgn.errors import ArgumentError, DataError, shown
from hashlgn.evaluation.metrics.beyond import Features
from hashlgn.inference.recommender import Recommender, load
from hashlgn.scoring.calibration import Calibration
from hashlgn.scoring.codes import unpack_subcodes
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import FloatItems, Items
from hashlgn.scoring.rows import rows_of
from hashlgn.search import Hits
from hashlgn.utils.storage import reason

__all__ = ["FILES", "Answers", "answers_of"]

Ints = npt.NDArray[np.int64]
FILES = (".csv", ".tsv", ".parquet", ".jsonl", ".json")


class Answers(Protocol):
    """Ranked answers to users by internal number.

    Attributes:
        known: what the users have seen, with the catalogues whose numbers are used. Test users without any interaction
            here are left out.
        masked: whether ``known`` is training data; where it is not, it stands for the catalogues alone.
        counts: users of each item in training, ``(n_items,)``; None where that is not known.
        n_users: users with a training interaction.
        features: what tells items apart, see ``metrics.Recommended``.
        calibration: the map from scores to probabilities, or None.
    """

    known: Interactions
    masked: bool
    counts: Ints | None
    n_users: int
    features: Features | None
    calibration: Calibration | None

    def search(self, users: Ints, k: int | None, threshold: float | None) -> tuple[Hits, float]:
        """The k best items of each user, or all over a threshold, and the seconds that it took."""


def answers_of(
    model: Any, test: Interactions, train: Interactions | None, history: Interactions | None, k: int | None
) -> Answers:
    """The answers of whatever is evaluated.

    Args:
        model: a ``Recommender``; an object with ``recommend(users=…, k=…)`` that returns a table; a table or a mapping
            of columns; or the path of a saved model or of a file of answers.
        test: what it is evaluated on.
        train: what the users have seen, where ``model`` does not know it.
        history: what a ``Recommender`` answers in place of the stored histories.
        k: the largest cutoff, None where there is none.

    Raises:
        ArgumentError: it is nothing of these, or ``train`` is given beside a model that has its own.
        DataError: a table or a file cannot be read as answers.
        ArtifactError: a path is neither a file of answers nor a saved model.
    """
    if isinstance(model, str | Path) and Path(model).suffix not in FILES:
        model = load(model)
    if isinstance(model, Recommender):
        if train is not None:
            raise ArgumentError("train must be left out for a model that knows what it was trained on (got it)")
        return _OfModel(model, history)
    if history is not None:
        raise ArgumentError("history needs a model of this project, which answers histories (got something else)")
    known = train if train is not None else test
    if isinstance(model, str | Path):
        return _OfTable(_read(Path(model).expanduser(), known), str(model), known, train is not None)
    if hasattr(model, "recommend"):
        return _asked(model, test, known, train is not None, k)
    return _OfTable(_arrow(model, "model"), f"the {type(model).__name__} given", known, train is not None)


class _OfModel:
    """What a model of this project answers to stored or given histories, asked batch by batch."""

    counts: Ints | None
    features: Features | None
    calibration: Calibration | None

    def __init__(self, model: Recommender, history: Interactions | None) -> None:
        served = model.model
        indptr, indices = served.seen
        self.known, self.masked = Interactions(served.user_ids, served.item_ids, indptr, indices), True
        self.counts = np.bincount(indices, minlength=len(served.item_ids))
        self.n_users = int(np.count_nonzero(np.diff(indptr)))
        self.features, self.calibration = _features(served.items), served.calibration
        self._given: tuple[npt.NDArray[np.float32] | None] | None = None
        if history is not None:
            self.known = _with_items(history, served.item_ids)
            settings = served.config.get("model", {}) if served.strengths is not None else {}
            rule = settings.get("strength") or ("one" if served.strengths is None else "weight")
            self._given = (strengths_of(self.known, rule, settings.get("half_life")),)
        self._model, _ = model, model.searcher  # built before the clock runs

    def search(self, users: Ints, k: int | None, threshold: float | None) -> tuple[Hits, float]:
        seen = rows_of((self.known.indptr, self.known.indices), users)
        exclude = Exclusion.build(self.known.n_items, seen=seen).also(self._model.model.removed)
        queries = self._queries(users, seen)
        searcher, began = self._model.searcher, time.perf_counter()
        if k is not None:
            hits = searcher.search(queries, k, exclude)
        else:
            assert threshold is not None  # one of the two is given
            hits = searcher.search_above(queries, threshold, exclude)
        return hits, time.perf_counter() - began

    def _queries(self, users: Ints, seen: tuple[Ints, Ints]) -> npt.NDArray[np.float32]:
        if self._given is None:
            return self._model.queries(users)
        (strengths,) = self._given
        if strengths is not None:
            strengths = strengths[rows_of((self.known.indptr, np.arange(len(self.known))), users)[1]]
        return self._model.model.queries(*seen, strengths)


def _with_items(data: Interactions, item_ids: Ids) -> Interactions:
    """Interactions with the item numbers of another catalogue; items that it does not know are left out."""
    items = item_ids.encode(data.item_ids, on_unknown="mark")
    known = items[data.indices] >= 0
    return Interactions.from_codes(
        data.user_ids,
        item_ids,
        data.rows[known],
        items[data.indices[known]],
        None,
        None if data.times is None else data.times[known],
        weights=None if data.weights is None else data.weights[known],
    )


def _features(items: Items) -> Features:
    """Sub-codes of codes with codewords, bits of other codes, and directions of vectors."""

    def of(numbers: Ints) -> npt.NDArray[Any]:
        if isinstance(items, FloatItems):
            vectors = items.vectors[numbers]
            return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
        packed = items.packed[numbers]
        if isinstance(items.decoder, CodebookDecoder):
            return unpack_subcodes(packed)
        return np.unpackbits(packed, axis=1, bitorder="little")

    return of


class _OfTable:
    """Answers in a table: a row per user and item, by rank, else by score, else in the order of the rows."""

    counts: Ints | None
    features: Features | None = None
    calibration: Calibration | None = None

    def __init__(self, table: pa.Table, where: str, known: Interactions, masked: bool, seconds: float = 0.0) -> None:
        self.known, self.masked, self._seconds = known, masked, seconds
        self.counts = np.bincount(known.indices, minlength=known.n_items) if masked else None
        self.n_users = int(np.count_nonzero(np.diff(known.indptr)))
        columns = find_columns(table.column_names, Request(), where)
        users = known.user_ids.encode(table.column(columns["user"]), name="user", on_unknown="mark")
        items = _numbers(known.item_ids, table.column(columns["item"]))
        names = [name.lower() for name in table.column_names]
        self._scores, order = None, None
        if "rating" in columns:  # a column called score is one
            self._scores = order = _floats(table, columns["rating"], where)
            order = -order
        if "rank" in names:
            order = _floats(table, names.index("rank"), where)
        rows = np.lexsort((users,) if order is None else (order, users))
        rows = rows[users[rows] >= 0]
        self._items = items[rows]
        self._scores = None if self._scores is None else self._scores[rows]
        self._indptr = np.searchsorted(users[rows], np.arange(known.n_users + 1)).astype(np.int64)
        pairs = np.stack((users[rows], self._items), axis=1)
        if len(np.unique(pairs, axis=0)) < len(pairs):
            raise DataError(f"{where}: a user must have each item at most once")

    def search(self, users: Ints, k: int | None, threshold: float | None) -> tuple[Hits, float]:
        indptr, places = rows_of((self._indptr, np.arange(len(self._items))), users)
        rows = np.repeat(np.arange(len(users)), np.diff(indptr))
        if k is not None:
            keep = np.arange(len(places)) - indptr[rows] < k
        elif self._scores is None or threshold is None:
            raise ArgumentError("threshold needs answers with a column score (got none)")
        else:
            keep = self._scores[places] > threshold
        places, rows = places[keep], rows[keep]
        bounds = np.searchsorted(rows, np.arange(len(users) + 1)).astype(np.int64)
        scores = np.zeros(len(places)) if self._scores is None else self._scores[places]
        seconds, self._seconds = self._seconds, 0.0  # all answers were asked for at once
        return Hits(bounds, self._items[places], scores.astype(np.float32)), seconds


def _asked(model: Any, test: Interactions, known: Interactions, masked: bool, k: int | None) -> Answers:
    """What another object recommends to the users of the test."""
    recommend: Callable[..., Any] = model.recommend
    if k is None:
        raise ArgumentError("threshold needs a model of this project, or a table with scores (got another object)")
    users = test.user_ids.decode(np.flatnonzero(np.diff(test.indptr)))
    try:
        inspect.signature(recommend).bind(users=users, k=k)
    except TypeError as error:
        raise ArgumentError(f"model.recommend must take users= and k= ({error}; got {shown(model)})") from None
    except ValueError:  # a function without a signature, as of a compiled module
        pass
    began = time.perf_counter()
    table = _arrow(recommend(users=users, k=k), "what model.recommend returns")
    seconds = time.perf_counter() - began
    return _OfTable(table, f"what {type(model).__name__}.recommend returned", known, masked, seconds)


def _arrow(table: Any, name: str) -> pa.Table:
    try:
        if isinstance(table, Mapping):
            return pa.table({str(key): pa.array(column) for key, column in table.items()})
        if hasattr(table, "__arrow_c_stream__") or isinstance(table, pa.RecordBatch):
            return pa.table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{name} cannot be read as a table of answers: {' '.join(str(error).split())}") from error
    raise ArgumentError(
        f"{name} must be a model, an object with recommend, a table with columns user and item, or a path "
        f"(got {shown(table)})"
    )


def _read(path: Path, known: Interactions) -> pa.Table:
    """A file of answers: delimited text, Parquet or JSON lines. Ids that are strings are read as they are written."""
    try:
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such file")
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path)
        if path.suffix in (".jsonl", ".json"):
            from pyarrow import json

            return json.read_json(path)
        from pyarrow import csv

        delimiter, quoted = quoting(path, Request())
        parse = csv.ParseOptions(delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted)
        with csv.open_csv(path, parse_options=parse) as reader:
            names = reader.schema.names
        columns = find_columns(names, Request(), str(path))
        strings = {"user": known.user_ids, "item": known.item_ids}
        types = {names[columns[role]]: pa.string() for role, ids in strings.items() if ids.values.dtype == np.object_}
        return csv.read_csv(path, parse_options=parse, convert_options=csv.ConvertOptions(column_types=types))
    except (OSError, pa.ArrowException, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{shown(str(path))} cannot be read as answers: {' '.join(reason(error).split())}") from error


def _numbers(ids: Ids, column: pa.ChunkedArray) -> Ints:
    """Item numbers; items that the catalogue does not know get numbers behind it, one each."""
    codes = ids.encode(column, name="item", on_unknown="mark")
    unknown = np.flatnonzero(codes < 0)
    if len(unknown):
        codes[unknown] = len(ids) + Ids.from_values(column.take(pa.array(unknown)), name="item")[1]
    return codes


def _floats(table: pa.Table, place: int, where: str) -> npt.NDArray[np.float64]:
    column, name = table.column(place), table.column_names[place]
    if column.null_count or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DataError(f"{where}: the column {name!r} must hold numbers, none missing (got {column.type})")
    values: npt.NDArray[np.float64] = column.to_numpy().astype(np.float64)
    if np.isnan(values).any():
        raise DataError(
            f"{where}: the column {name!r} must hold numbers (row {int(np.flatnonzero(np.isnan(values))[0])} is NaN)"
        )
    return values
