"""Titles and genres of MovieLens, in every layout in which GroupLens has published it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hashlgn.data.columns import Request
from hashlgn.data.ids import Ids
from hashlgn.data.interactions import Interactions
from hashlgn.data.text import read_delimited
from hashlgn.data.titles import NO_GENRE, Items, with_items
from hashlgn.errors import DataError
from hashlgn.utils.storage import reason

__all__ = ["RATINGS", "read_movielens", "read_movies", "with_shifted_movies"]

RATINGS = {"ratings.dat": "::", "u.data": "\t", "ratings.csv": ","}  # file of ratings → its delimiter
# The order of the 19 flags at the end of a line of u.item.
_FLAGS = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def read_movielens(folder: Path, request: Request) -> Interactions:
    """Read a MovieLens folder: its ratings, and titles and genres where the folder has a file of movies.

    Raises:
        DataError: a file cannot be read.
    """
    name = next(name for name in RATINGS if (folder / name).is_file())
    data = read_delimited(folder / name, request).interactions()
    try:
        movies = read_movies(folder, data.item_ids.id_type)
    except DataError as error:
        return replace(data, notes=(*data.notes, f"there are no titles ({error})"))
    return data if movies is None else with_items(data, movies)


def read_movies(folder: Path, id_type: str = "int") -> Items | None:
    """Read ``movies.dat``, ``u.item`` or ``movies.csv``, whichever the folder has.

    Text is UTF-8 where it is valid UTF-8, else Latin-1: the older data sets are Latin-1.

    Raises:
        DataError: a line is malformed.
    """
    path = next((folder / n for n in ("movies.dat", "u.item", "movies.csv") if (folder / n).is_file()), None)
    if path is None:
        return None
    if path.name == "u.item":
        return _read_flags(path)
    table = Request.for_items(id_type=id_type, delimiter=RATINGS[f"ratings{path.suffix}"])
    if path.suffix == ".dat":
        table = replace(table, item=0, title=1, genres=2)
    return read_delimited(path, table).items()


def _read_flags(path: Path) -> Items:
    """Read ``u.item``, whose lines end in one flag per genre."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    movies: dict[int, tuple[str, tuple[str, ...]]] = {}
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: Latin-1 has bytes that it takes for line ends
        row = line.rstrip("\r").split("|")
        if not line.strip():
            continue
        try:
            flags = zip(_FLAGS, row[-len(_FLAGS) :], strict=True)
            genres = tuple(name for name, flag in flags if flag == "1" and name not in NO_GENRE)
            movies.setdefault(int(row[0]), (row[1], genres))
        except (IndexError, ValueError) as error:
            raise DataError(f"{path}: line {number} is no movie (got {line[:80]!r})") from error
    titles, genres_of = zip(*movies.values(), strict=True) if movies else ((), ())
    return Items(Ids(list(movies), "int"), titles, genres_of)


def with_shifted_movies(data: Interactions, movies: Items, items: npt.NDArray[np.int64]) -> Interactions:
    """Titles and genres for ids that may have been shifted to start at 0, as published splits of MovieLens
    do.

    ``items`` are all item ids of the data set, whatever part ``data`` is. Where each is a movie id, ids are
    as published. Where 0 is among them, 0 is no movie, and each plus one is a movie id, movie = item + 1. In
    any other case the ids have been renumbered in an unknown way, and there are no titles: none is better
    than a wrong one.
    """
    known = movies.ids.values
    if np.isin(items, known).all():
        return with_items(data, movies)
    if items.min() == 0 and 0 not in known and np.isin(items + 1, known).all():
        return with_items(data, replace(movies, ids=Ids(known - 1)))
    return data
