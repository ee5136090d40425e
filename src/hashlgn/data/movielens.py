"""Titles and genres of MovieLens, in every layout in which GroupLens has published it."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hashlgn.data.columns import Request
from hashlgn.data.interactions import Interactions
from hashlgn.data.text import read_delimited
from hashlgn.errors import DataError

__all__ = ["RATINGS", "Movies", "read_movielens", "read_movies", "with_movies", "with_shifted_movies"]

RATINGS = {"ratings.dat": "::", "u.data": "\t", "ratings.csv": ","}  # file of ratings → its delimiter
# The order of the 19 flags at the end of a line of u.item.
_FLAGS = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *(
        "Fantasy",
        "Film-Noir",
        "Horror",
        "Musical",
        "Mystery",
        "Romance",
        "Sci-Fi",
        "Thriller",
        "War",
        "Western",
    ),
)
_NO_GENRE = {"unknown", "(no genres listed)", ""}


@dataclass(frozen=True)
class Movies:
    """Titles and genres by movie id: three columns of one length."""

    ids: npt.NDArray[np.int64]
    titles: list[str]
    genres: list[tuple[str, ...]]


def read_movielens(folder: Path, request: Request) -> Interactions:
    """Read a MovieLens folder: its ratings, and titles and genres where the folder has a file of movies.

    Raises:
        DataError: a file cannot be read.
    """
    name = next(name for name in RATINGS if (folder / name).is_file())
    data = read_delimited(folder / name, request)
    try:
        movies = read_movies(folder)
    except DataError as error:
        return replace(data, notes=(*data.notes, f"there are no titles ({error})"))
    return data if movies is None else with_movies(data, movies)


def read_movies(folder: Path) -> Movies | None:
    """Read ``movies.dat``, ``u.item`` or ``movies.csv``, whichever the folder has.

    Text is UTF-8 where it is valid UTF-8, else Latin-1: the older data sets are Latin-1.

    Raises:
        DataError: a line is malformed.
    """
    path = next((folder / n for n in ("movies.dat", "u.item", "movies.csv") if (folder / n).is_file()), None)
    if path is None:
        return None
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if path.name == "movies.csv":
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row][1:]
    else:
        delimiter = "::" if path.name == "movies.dat" else "|"
        # Not splitlines: in Latin-1, a title may hold a byte that Unicode takes for the end of a line.
        rows = [line.rstrip("\r").split(delimiter) for line in text.split("\n") if line.strip()]
    ids, titles, genres = [], [], []
    for number, row in enumerate(rows, 2 if path.name == "movies.csv" else 1):
        try:
            if path.name == "u.item":
                named: list[str] = [name for name, flag in zip(_FLAGS, row[-19:], strict=True) if flag == "1"]
            else:
                named = row[2].split("|")
            ids.append(int(row[0]))
        except (IndexError, ValueError) as error:
            raise DataError(f"{path}: line {number} is no movie (got {'::'.join(row)[:80]!r})") from error
        titles.append(row[1])
        genres.append(tuple(name for name in named if name not in _NO_GENRE))
    return Movies(np.array(ids, np.int64), titles, genres)


def with_movies(data: Interactions, movies: Movies) -> Interactions:
    """The same interactions with titles and genres, empty for items that ``movies`` does not name."""
    titles, genres = [""] * data.n_items, [()] * data.n_items  # type: list[str], list[tuple[str, ...]]
    for place, code in enumerate(data.item_ids.encode(movies.ids, on_unknown="mark").tolist()):
        if code >= 0:
            titles[code], genres[code] = movies.titles[place], movies.genres[place]
    return replace(data, titles=titles, genres=genres)


def with_shifted_movies(data: Interactions, movies: Movies, items: npt.NDArray[np.int64]) -> Interactions:
    """Titles and genres for ids that may have been shifted to start at 0, as published splits of MovieLens
    do.

    ``items`` are all item ids of the data set, whatever part ``data`` is. Where each is a movie id, ids are
    as published. Where 0 is among them, 0 is no movie, and each plus one is a movie id, movie = item + 1. In
    any other case the ids have been renumbered in an unknown way, and there are no titles: none is better
    than a wrong one.
    """
    if np.isin(items, movies.ids).all():
        return with_movies(data, movies)
    if items.min() == 0 and 0 not in movies.ids and np.isin(items + 1, movies.ids).all():
        return with_movies(data, replace(movies, ids=movies.ids - 1))
    return data
