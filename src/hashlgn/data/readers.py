"""Reading interactions: from files and folders in the usual formats, from data frames, from sparse
matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from scipy import sparse

from hashlgn.data.columns import ROLES, Request
from hashlgn.data.interactions import Interactions
from hashlgn.data.movielens import RATINGS, read_movielens, read_movies, with_shifted_movies
from hashlgn.data.ragged import is_ragged, read_ragged
from hashlgn.data.sources import resolved
from hashlgn.data.tables import is_table, read_parquet, read_sparse, read_table
from hashlgn.data.text import read_delimited
from hashlgn.data.titles import with_items
from hashlgn.errors import ArgumentError, DataError, choose, shown
from hashlgn.utils.storage import reason

__all__ = ["FORMATS", "Format", "read_interactions"]

_TEXT = (".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".gz", ".bz2", ".zst", ".lz4")
_STARS, _LIKED = (0.5, 5.0), 4.0  # a scale of stars, and the rating from which an item was liked
_ASKED = {one.name for one in fields(Request)}  # what a caller may say of columns and rows
_PARTS = {"train": ("train.txt",), "test": ("test.txt",), "all": ("train.txt", "test.txt")}


@dataclass(frozen=True)
class Format:
    """A way in which interactions lie on disk.

    Attributes:
        read: reads a file or folder of this format.
        fits: whether a file or folder looks like it.
        looks_for: what ``fits`` looks for, in words.
        general: whether a more special format goes before where both fit.
        stars: whether ratings that look like stars count from 4 on where the caller names no bound.
    """

    read: Callable[[Path, Request], Interactions]
    fits: Callable[[Path], bool]
    looks_for: str
    general: bool = False
    stars: bool = True


def read_interactions(
    source: Any,
    *,
    format: str | None = None,
    part: str = "train",
    user: str | int | None = None,
    item: str | int | None = None,
    rating: str | int | bool | None = None,
    time: str | int | bool | None = None,
    weight: str | int | bool | None = None,
    title: str | int | None = None,
    genres: str | int | None = None,
    items: Any = None,
    min_rating: float | None = None,
    duplicates: str = "first",
    k_core: int | tuple[int, int] | None = None,
    id_type: str = "auto",
    delimiter: str | None = None,
    encoding: str | None = None,
    decimal: str = ".",
    on_bad: str = "raise",
    on_missing: str = "raise",
) -> Interactions:
    """Read interactions.

    Columns are found by their usual names (``user``, ``user_id``, ``userId``, ``item``, ``movieId``, ``rating``,
    ``timestamp`` …), or are named by ``user``, ``item``, ``rating`` and ``time``. A delimited file has a header if its
    first line holds a usual name of users or items, or if a column is given by name. Otherwise, if the first line holds
    any number, it is data, and its 2 to 4 columns are user, item, rating, time. Columns given by position, from 0,
    also mean that there is no header.

    A column of ids is integers where every value is an integer (``007`` is then 7). Otherwise all of it is strings;
    ``id_type="str"`` keeps everything as written. Times are whole numbers in the file's own unit (fractions are cut
    off); dates become microseconds since 1970.

    Args:
        source: path of a file or folder; a pandas, Polars or Arrow table, or anything else with the Arrow interface; or
            a SciPy sparse matrix, ``(n_users, n_items)``, whose stored non-zero entries are interactions.
        format: a key of ``FORMATS``; found out where None.
        part: of a data set that is published as two files: ``"train"``, ``"test"`` or ``"all"``.
        user: the column of users, by name or position.
        item: the column of items.
        rating: the column of ratings; False reads none.
        time: the column of times; False reads none. Where users and items are named, ratings and times that are
            found by their usual name alone and cannot be read are left out, and ``notes`` of the data say so.
        weight: the column of weights, positive finite numbers; of a sparse matrix, True takes its entries.
        title: the column of the items' titles, in the source itself, or in ``items``. Of several rows of an item, the
            first that has a title counts.
        genres: the column of the items' genres: lists, or text separated by ``|``, ``;`` or ``,`` (the first of these
            that the column holds).
        items: a table of items: a file (delimited or Parquet) or a data frame with a column of item ids (``item=`` if
            it has one of that name, else a usual name or ``id``), and titles, genres or both.
        min_rating: only interactions rated at least so high count, after duplicates have been decided. Where None,
            ratings that look like stars (all from 0.5 to 5, not all alike, the highest at least 4) count from 4 on, and
            ``min_rating=0`` keeps all; other ratings, those of a MovieLens folder, of a sparse matrix, and those beside
            a ``weight`` all count as one interaction. ``notes`` say what was done.
        duplicates: which row stands for a repeated pair: the ``"first"`` or the ``"last"``, by time where there are
            times, and by row where these are equal or absent.
        k_core: keep the part in which every user and every item has this many interactions; or (users', items').
        id_type: ``"auto"``, ``"int"`` or ``"str"``.
        delimiter: of a delimited file, one character or ``"::"``; found out where None.
        encoding: of a delimited file; where None, UTF-8, or Latin-1 where it is no UTF-8 (``notes`` say so).
        decimal: the decimal mark of ratings and weights in text, ``"."`` or ``","``.
        on_bad: what is done with rows that cannot be read: ``"raise"``, or ``"skip"``, counted in ``notes``.
        on_missing: the same for rows without a value.

    Raises:
        DataError: the source cannot be read, or nothing is left; with file and line where they are known.
        ArgumentError: an argument breaks its rule.
    """
    asked = {name: value for name, value in locals().items() if name in _ASKED}
    _check_columns({role: asked[role] for role in ROLES}, matrix=sparse.issparse(source))
    request = Request(**asked | ({} if items is None else {"title": None, "genres": None}))
    data = _rated(*_read(source, format, request), request)
    if items is not None:
        data = _with_table(data, items, replace(request, title=title, genres=genres))
    if k_core is None:
        return data
    return data.k_core(*(k_core if isinstance(k_core, tuple) and len(k_core) == 2 else (k_core, k_core)))


def _check_columns(columns: dict[str, Any], *, matrix: bool) -> None:
    for role, column in columns.items():
        named = column is None or (isinstance(column, str | int) and not isinstance(column, bool))
        left_out = column is False and role in ("rating", "time")
        if not named and not left_out and not (column is True and role == "weight" and matrix):
            raise ArgumentError(f"{role} must be the name or the position of a column (got {shown(column)})")


def _read(source: Any, format: str | None, request: Request) -> tuple[Interactions, bool]:
    """The interactions of a source of any kind, and whether its ratings may be stars."""
    if isinstance(source, str | Path):
        return _read_path(resolved(source), format, request)
    if format is not None:
        raise ArgumentError(f"format is for files and folders (got {format!r} with a {type(source).__name__})")
    if sparse.issparse(source):
        return read_sparse(source, request), False
    if is_table(source):
        return read_table(source, request).interactions(), True
    raise ArgumentError(
        "source must be a path, a table with the Arrow interface (pandas 2.2, Polars, Arrow) such as "
        f"pyarrow.table({{'user': [42], 'item': [318]}}), or a sparse matrix (got {type(source).__name__})"
    )


def _rated(data: Interactions, stars: bool, request: Request) -> Interactions:
    """The interactions that are rated high enough, with a note about what was done with ratings that differ.

    Args:
        data: all interactions.
        request: what was asked for.
        stars: whether ratings that look like stars are bounded without being asked.
    """
    if request.min_rating is not None:
        data = data.rated_at_least(request.min_rating)
        note = f"only ratings of at least {request.min_rating:g} count (min_rating)"
        return replace(data, notes=(*data.notes, note))
    if data.ratings is None or not len(data):
        return data
    low, high = float(data.ratings.min()), float(data.ratings.max())
    if low == high:
        return data
    note = f"ratings from {low:g} to {high:g} were found, and "
    if stars and request.weight is None and low >= _STARS[0] and _LIKED <= high <= _STARS[1]:
        note += f"those of {_LIKED:g} and more count; min_rating=0 keeps all"
        data = data.rated_at_least(_LIKED)
    else:
        note += "each counts as one interaction; "
        scale = next((top for top in (1, 5, 10, 100) if low >= 0 and high <= top), None)
        share = "" if scale is None else f"{max(1, 0.8 * scale):g}"
        note += (
            f"min_rating={share} would keep those of {share} to {scale}" if scale else "min_rating= keeps the high ones"
        )
    return replace(data, notes=(*data.notes, note))


def _with_table(data: Interactions, source: Any, request: Request) -> Interactions:
    """The interactions with titles and genres from a table of items.

    Raises:
        DataError: the table cannot be read, or has neither titles nor genres.
    """
    request = Request.for_items(
        item=request.item if isinstance(request.item, str) else None,
        title=request.title,
        genres=request.genres,
        encoding=request.encoding,
        id_type="str" if data.item_ids.id_type == "str" else "auto",
        on_bad=request.on_bad,
        on_missing=request.on_missing,
    )
    try:
        if not isinstance(source, str | Path):
            if not is_table(source):
                raise ArgumentError(f"items must be a path or a table (got {type(source).__name__})")
            table = read_table(source, request).items()
        elif resolved(source).suffix == ".parquet":
            table = read_parquet(resolved(source), request).items()
        else:
            table = read_delimited(resolved(source), request).items()
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {reason(error)}") from error
    notes = [*data.notes, *table.notes]
    unknown = int((table.ids.encode(data.item_ids, on_unknown="mark") < 0).sum())
    if unknown:
        notes.append(f"{unknown:,} of {data.n_items:,} items are not in the table of items")
    return replace(with_items(data, table), notes=tuple(notes))


def _read_path(path: Path, format: str | None, request: Request) -> tuple[Interactions, bool]:
    """Interactions, and whether their ratings may be bounded by default."""
    try:
        name = _detect(path) if format is None else format
        chosen: Format = choose("format", name, FORMATS)
        if format is not None and path.is_dir() and not chosen.fits(path):
            raise DataError(f"{path}: no {format} data here; looked for {chosen.looks_for}")
        if request.part != "train" and name != "lightgcn":
            raise ArgumentError(f"part={request.part!r} needs the format 'lightgcn', published in parts (got {name!r})")
        return chosen.read(path, request), chosen.stars
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from error


def _detect(path: Path) -> str:
    fits = [name for name, format in FORMATS.items() if format.fits(path)]
    special = [name for name in fits if not FORMATS[name].general] or fits
    if len(special) == 1:
        if special[0] == "lightgcn" and path.is_dir():
            is_ragged(path / "train.txt", tabs=True)  # refuses what may be triples
        return special[0]
    if special:
        raise DataError(f"{path}: several formats fit ({', '.join(special)}); choose one with format=")
    looked = "; ".join(f"{name}: {format.looks_for}" for name, format in FORMATS.items())
    raise DataError(f"{path}: no known format. Looked for {looked}")


def _read_lightgcn(path: Path, request: Request) -> Interactions:
    if path.is_file():
        return read_ragged([path], request)
    paths = [path / name for name in _PARTS[request.part]]
    absent = [p.name for p in paths if not p.is_file()]
    if absent:
        raise DataError(f"{path}: part={request.part!r} needs {' and '.join(absent)} in the folder")
    data = read_ragged(paths, request)
    movies = read_movies(path)
    if movies is None:
        return data
    everything = [path / name for name in _PARTS["all"] if (path / name).is_file()]
    items = read_ragged(everything, replace(request, id_type="int")).item_ids.values
    return with_shifted_movies(data, movies, items)


def _files(path: Path, *suffixes: str) -> list[Path]:
    """The files with such names: the path itself, or those in the folder."""
    found = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    return [file for file in found if file.suffix in suffixes]


def _read_text(*suffixes: str) -> Callable[[Path, Request], Interactions]:
    """What reads a delimited file, or the one in a folder."""

    def read(path: Path, request: Request) -> Interactions:
        return read_delimited(path if path.is_file() else _files(path, *suffixes)[0], request).interactions()

    return read


FORMATS: dict[str, Format] = {
    "lightgcn": Format(
        _read_lightgcn,
        lambda path: (path / "train.txt").is_file() or (path.is_file() and path.suffix == ".txt" and is_ragged(path)),
        "train.txt (and test.txt), or a .txt file with lines of integers of different lengths",
    ),
    "movielens": Format(
        read_movielens,
        lambda path: any((path / name).is_file() for name in RATINGS),
        f"a folder with {', '.join(RATINGS)}",
        stars=False,  # as in published splits of MovieLens
    ),
    "recbole": Format(
        _read_text(".inter"),
        lambda path: len(_files(path, ".inter")) == 1,
        "one .inter file",
    ),
    "parquet": Format(
        lambda path, request: read_parquet(path, request).interactions(),
        lambda path: len(_files(path, ".parquet")) > 0,
        "a .parquet file, or a folder of them",
        general=True,
    ),
    "csv": Format(
        _read_text(".csv", ".tsv"),
        lambda path: len(_files(path, *(_TEXT if path.is_file() else (".csv", ".tsv")))) == 1,
        f"a delimited file ({', '.join(_TEXT)}), or a folder with one .csv or .tsv",
        general=True,
    ),
}
