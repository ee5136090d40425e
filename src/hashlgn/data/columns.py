"""Columns of interactions: what the caller asked for, and which column is what."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hashlgn.errors import ArgumentError, DataError, choose, shown

__all__ = ["ROLES", "Request", "find_columns", "left_out"]

# Usual names without case, punctuation and type suffix: "userId" and "user_id:token" become "userid".
_USUAL = {
    "user": r"users?|userid|uid|username|customer|customerid|visitorid|reviewerid",
    "item": r"items?|iid|asin|(item|movie|product|book|track|song|artist|business|article)id|"
    r"movie|product|book|track|song|artist|business|article",
    "rating": r"ratings?|stars|score",
    "time": r"timestamp|time|ts|datetime|date",
    "weight": r"(?!)",  # only where it is named
    "title": r"titles?|name|(movie|book)title|(product|item|track|artist)name",
    "genres": r"genres?|category|categories|class|tags",
}
ROLES = tuple(_USUAL)
# Words of a column's name by which it may be a weight or a time that was not read
_LIKE = {"time": {"time", "timestamp", "datetime", "date", "when", "at"}, "weight": {"weight", "weights", "strength"}}
_CHOICES = {
    "part": ("train", "test", "all"),
    "duplicates": ("first", "last"),
    "id_type": ("auto", "int", "str"),
    "decimal": (".", ","),
    "on_bad": ("raise", "skip"),
    "on_missing": ("raise", "skip"),
}
_OF_ITEMS = ("item", "title", "genres")  # the columns of a table of items


@dataclass(frozen=True)
class Request:
    """What the caller of ``read_interactions`` asked for, beside the source."""

    part: str = "train"
    user: str | int | bool | None = None
    item: str | int | None = None
    rating: str | int | bool | None = None
    time: str | int | bool | None = None
    weight: str | int | bool | None = None
    title: str | int | None = None
    genres: str | int | None = None
    min_rating: float | None = None
    duplicates: str = "first"
    id_type: str = "auto"
    delimiter: str | None = None
    encoding: str | None = None
    decimal: str = "."
    on_bad: str = "raise"
    on_missing: str = "raise"
    of_items: bool = False  # the source is a table of items, with their titles and genres

    def __post_init__(self) -> None:
        for name, values in _CHOICES.items():
            choose(name, getattr(self, name), dict.fromkeys(values))
        if self.min_rating is not None:
            object.__setattr__(self, "min_rating", _finite("min_rating", self.min_rating))
        if self.delimiter is not None:
            _check_delimiter(self.delimiter)
        if self.encoding is not None:
            _check_encoding(self.encoding)

    @classmethod
    def for_items(cls, **fields: Any) -> Request:
        """For a table of items."""
        return cls(user=False, rating=False, time=False, weight=False, of_items=True, **fields)

    def names(self) -> dict[str, str | int]:
        """The columns that were named, by role."""
        given = {role: getattr(self, role) for role in ROLES}
        return {role: name for role, name in given.items() if name is not None and name is not False}

    @property
    def needed(self) -> tuple[str, ...]:
        """Roles that must have a column."""
        return ("item",) if self.of_items else ("user", "item")

    def usual(self, name: str, role: str) -> bool:
        """Whether a name is one that a column of this role usually has."""
        if (self.of_items and role not in _OF_ITEMS) or (not self.of_items and role in ("title", "genres")):
            return False
        plain = _plain(name)
        return bool(re.fullmatch(_USUAL[role], plain)) or (self.of_items and role == "item" and plain == "id")

    def has_header(self, fields: Sequence[str]) -> bool:
        """Whether any of the fields is a usual name of a column of users or items."""
        return any(self.usual(field, role) for field in fields for role in ("user", "item"))

    def may_leave(self, role: str) -> bool:
        """Whether a column was found by its usual name alone, by a caller who named the columns that they want."""
        named = self.user is not None and self.item is not None
        needed = role == "rating" and self.min_rating is not None
        return named and role in ("rating", "time") and getattr(self, role) is None and not needed


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.split(":")[0].lower())


def find_columns(names: Sequence[str], request: Request, where: str) -> dict[str, int]:
    """Positions of the columns by role: those that were named, then those with a usual name.

    Raises:
        DataError: users or items have no column, a named column does not exist, or several columns fit one
            role.
    """
    found: dict[str, int] = {}
    listed = ", ".join(map(repr, names))
    for role, wanted in request.names().items():
        fits = [i for i, name in enumerate(names) if name == wanted]
        if isinstance(wanted, int):
            if not 0 <= wanted < len(names):
                raise DataError(f"{where}: {role}={wanted} must be a position in 0 … {len(names) - 1}")
            fits = [wanted]
        found[role] = _one(role, fits, names, where, f"no column {wanted!r}")
    given = set(found.values())
    for role in ROLES:
        if role in found or getattr(request, role) is False:
            continue
        fits = [i for i, name in enumerate(names) if i not in given and request.usual(name, role)]
        if len(fits) > 1 and request.of_items:  # a column "id" only where there is no better one
            fits = [i for i in fits if _plain(names[i]) != "id"]
        if fits or role in request.needed:
            found[role] = _one(role, fits, names, where, "no column")
    if request.of_items and not found.keys() & {"title", "genres"}:
        raise DataError(f"{where}: no column of titles or genres (columns: {listed}); name it with title= or genres=")
    if len(set(found.values())) < len(found):
        raise DataError(f"{where}: one column is named for two roles ({found}, columns: {listed})")
    return found


def left_out(names: Sequence[str], found: Mapping[str, int], request: Request) -> list[str]:
    """What to say of columns whose names look like weights or times, and which are not read, one sentence each."""
    notes = []
    for role, words in _LIKE.items():
        if role in found or getattr(request, role) is False:
            continue
        like = [n for i, n in enumerate(names) if i not in found.values() and words & {*_words(n)}]
        if like:
            notes.append(f"the column {like[0]!r} was not read; name it with {role}= where it is the {role}")
    return notes


def _words(name: str) -> list[str]:
    """The words of a name such as ``createdAt`` or ``event_time``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", re.sub(r"[\W_]", " ", name.split(":")[0])).lower().split()


def _one(role: str, fits: Sequence[int], names: Sequence[str], where: str, none: str) -> int:
    """The one column that fits a role."""
    if len(fits) > 1:
        several = ", ".join(repr(names[i]) for i in fits)
        raise DataError(f"{where}: several columns may be the {role} ({several}); name one with {role}=")
    if not fits:
        listed = ", ".join(map(repr, names))
        raise DataError(f"{where}: {none} for the {role} (columns: {listed}); name it with {role}=")
    return fits[0]


def _check_delimiter(value: Any) -> None:
    one = isinstance(value, str) and len(value) == 1 and value.isascii() and value not in '"\r\n'
    if not one and value != "::":
        raise ArgumentError(f"delimiter must be one ASCII character, or '::' (got {shown(value)})")


def _check_encoding(value: Any) -> None:
    try:
        if not isinstance(value, str):  # None would be the system's own
            raise TypeError
        io.TextIOWrapper(io.BytesIO(), encoding=value)
    except (LookupError, TypeError, ValueError) as error:
        raise ArgumentError(f"encoding must be one that Python knows, of text (got {shown(value)})") from error


def _finite(name: str, value: Any) -> float:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    try:
        if number and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer beyond all floats
        pass
    raise ArgumentError(f"{name} must be a finite number (got {shown(value)})")
