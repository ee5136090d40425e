"""Columns of interactions on their way in: which column is what, and their gathering chunk by chunk."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hashlgn.data.arrays import Arrivals, decoded, pages
from hashlgn.data.convert import is_text, numbers, texts, times
from hashlgn.data.ids import Ids
from hashlgn.data.interactions import Interactions
from hashlgn.data.titles import NO_GENRE, Items
from hashlgn.data.values import canonical_integers, parsed_integers
from hashlgn.errors import DataError, choose

__all__ = ["ROLES", "Gather", "Request", "UnusableError", "find_columns"]

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
_CHOICES = {
    "part": ("train", "test", "all"),
    "duplicates": ("first", "last"),
    "id_type": ("auto", "int", "str"),
    "decimal": (".", ","),
    "on_bad": ("raise", "skip"),
    "on_missing": ("raise", "skip"),
}
_OF_ITEMS = ("item", "title", "genres")  # the columns of a table of items
_SEPARATORS = ("|", ";", ",")  # of genres in text: the first that occurs
_SHOWN = 3  # rows that a message names


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

    def changed(self, changes: Mapping[str, Any]) -> Request:
        """The same request with other fields."""
        return replace(self, **changes)

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


def _one(role: str, fits: Sequence[int], names: Sequence[str], where: str, none: str) -> int:
    """The one column that fits a role."""
    if len(fits) > 1:
        several = ", ".join(repr(names[i]) for i in fits)
        raise DataError(f"{where}: several columns may be the {role} ({several}); name one with {role}=")
    if not fits:
        listed = ", ".join(map(repr, names))
        raise DataError(f"{where}: {none} for the {role} (columns: {listed}); name it with {role}=")
    return fits[0]


class UnusableError(Exception):
    """A column that nobody asked for cannot be read; reading goes on without it."""

    def __init__(self, role: str, why: str) -> None:
        """Name the column by its role."""
        super().__init__(why)
        self.role = role


@dataclass
class Gather:
    """Collects chunks of columns, checked and narrowed, and makes interactions of them.

    Attributes:
        request: what was asked for.
        where: the source, for errors.
        place: names the place of a row (counted from 0 over all chunks) in errors.
        written: whether ids come as text, so that their spelling decides whether they are integers.
    """

    request: Request
    where: str
    place: Callable[[int], str]
    written: bool = False
    rows: int = 0
    kept: int = 0
    chunks: dict[str, list[npt.NDArray[Any]]] = field(default_factory=lambda: {"rating": [], "time": [], "weight": []})
    faults: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=lambda: {"missing": 0, "bad": 0})
    notes: list[str] = field(default_factory=list)
    ids: dict[str, Arrivals] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def add(self, batch: Mapping[str, pa.Array]) -> None:
        """Take one chunk: arrays of one length by role.

        Raises:
            DataError: a value is missing, no id, no finite number.
        """
        size = len(batch["item"])
        keep = np.ones(size, np.bool_)
        for role, array in batch.items():  # what is missing, of all columns, before anything is converted
            keep &= self._present(role, array) if role not in ("title", "genres") else True
        self.skipped["missing"] += int(size - keep.sum())
        columns: dict[str, Any] = {}
        for role, array in batch.items():
            columns[role], wrong, rule = self._converted(role, array)
            self._refuse(role, array, wrong & keep, rule)
            self.skipped["bad"] += int((wrong & keep).sum())
            keep &= ~wrong
        kinds = {
            role: str(c.type.value_type) if isinstance(c, pa.DictionaryArray) else "number"
            for role, c in columns.items()
        }
        if self.rows and kinds != self.kinds:
            raise DataError(
                f"{self.where}: all parts must have the same columns (got {kinds} after {self.kinds}, "
                f"{self.place(self.rows)})"
            )
        self.kinds = kinds
        self.rows += size
        self.kept += int(keep.sum())
        whole = bool(keep.all())
        for role, column in columns.items():
            if isinstance(column, pa.DictionaryArray):
                part = column if whole else decoded(column).filter(pa.array(keep)).dictionary_encode()
                self.ids.setdefault(role, Arrivals(column.type.value_type)).add(part)
            else:
                self.chunks[role].append(pages(self.kept - sum(map(len, self.chunks[role])), column.dtype))
                self.chunks[role][-1][:] = column if whole else column[keep]

    def _check_rows(self) -> None:
        """Report all rows that were left out, or refuse them.

        Raises:
            DataError: values are missing, or no row is left.
        """
        if not self.rows:
            raise DataError(f"{self.where}: no interactions (only a header, or nothing at all)")
        missing = [fault for role in ROLES for fault in self.faults.get(role, [])]
        if missing and self.request.on_missing == "raise":
            raise DataError(f"{self.where}: {'; '.join(missing)}; on_missing='skip' leaves such rows out")
        self.notes += [f"{self.skipped['missing']:,} rows with missing values were left out"] * bool(missing)
        if self.skipped["bad"]:
            shown = "; ".join(self.faults["bad"])
            self.notes.append(f"{self.skipped['bad']:,} rows that cannot be read were left out ({shown})")
        if not self.kept:
            raise DataError(f"{self.where}: no interactions (every row was left out: {'; '.join(self.notes)})")

    def items(self) -> Items:
        """The table of items that was read, one row per item.

        Raises:
            DataError: there are no rows.
        """
        self._check_rows()
        ids, codes = self._numbered("item")
        return Items(ids, *self._described(codes, len(ids)), tuple(self.notes))

    def interactions(self) -> Interactions:
        """The interactions of all chunks; frees the chunks on the way.

        Raises:
            DataError: there are none.
        """
        self._check_rows()
        user_ids, users = self._numbered("user")
        item_ids, items = self._numbered("item")
        titles, genres = self._described(items, len(item_ids))
        pa.default_memory_pool().release_unused()  # Arrow keeps what it read with, many blocks of it
        keys, start = np.empty(self.kept, np.int64), 0
        while users:
            part = keys[start : start + len(users[0])]
            np.multiply(users.pop(0), max(len(item_ids), 1), out=part, dtype=np.int64)
            part += items.pop(0)
            start += len(part)
        columns = {"keys": keys} | {f"{role}s": _joined(chunks) for role, chunks in self.chunks.items()}
        del keys, part
        data = Interactions.from_keys(user_ids, item_ids, columns, duplicates=self.request.duplicates)
        return replace(data, titles=titles, genres=genres, notes=tuple(self.notes))

    def _described(
        self, items: list[npt.NDArray[np.int32]], n: int
    ) -> tuple[list[str] | None, list[tuple[str, ...]] | None]:
        """Titles and genres of the items: of several rows of an item, the first that has any."""
        texts: dict[str, list[str] | None] = {"title": None, "genres": None}
        for role in texts:
            if role in self.ids:
                words, chunks = self.ids.pop(role).finish()
                filled = pc.not_equal(words, "").to_numpy(zero_copy_only=False)
                chosen = np.full(n, -1, np.int64)
                for item, code in zip(reversed(items), reversed(chunks), strict=True):
                    told = filled[code]
                    chosen[item[told][::-1]] = code[told][::-1]  # the first row is written last
                listed = words.to_pylist()
                texts[role] = [listed[code] if code >= 0 else "" for code in chosen.tolist()]
        told_genres = texts["genres"]
        if told_genres is None:
            return texts["title"], None
        separator = next((s for s in _SEPARATORS if any(s in text for text in told_genres)), "|")
        split = [[part.strip() for part in text.split(separator)] for text in told_genres]
        return texts["title"], [tuple(part for part in parts if part not in NO_GENRE) for parts in split]

    def _numbered(self, role: str) -> tuple[Ids, list[npt.NDArray[np.int32]]]:
        words, codes = self.ids.pop(role).finish()
        id_type, numbers = self.request.id_type, None
        if words.type == pa.string():
            words = words.cast(pa.large_string())
            if id_type == "int":
                numbers, valid = parsed_integers(words)
                if not valid.all():
                    self._no_integer(role, words, codes, int(np.flatnonzero(~valid)[0]))
            elif id_type == "auto" and self.written:
                numbers = canonical_integers(words)
        elif id_type == "str":
            words = words.cast(pa.large_string())
        if numbers is None:
            return Ids.from_arrow(words), codes
        encoded = pa.array(numbers).dictionary_encode()
        if len(encoded.dictionary) < len(numbers):  # "1" and "1.0" are one id
            number = encoded.indices.to_numpy()
            for chunk in codes:
                chunk[:] = number[chunk]
        return Ids.from_arrow(encoded.dictionary), codes

    def _no_integer(self, role: str, words: pa.Array, codes: list[npt.NDArray[np.int32]], word: int) -> None:
        row = int(np.flatnonzero(np.concatenate(codes) == word)[0])
        raise DataError(
            f"{self.where}: {self.place(row)}: the {role} must be an integer of 64 bits, as id_type='int' says "
            f"(got {words[word].as_py()!r})"
        )

    def _present(self, role: str, array: pa.Array) -> npt.NDArray[np.bool_]:
        """Rows with a value; the first few without are remembered."""
        absent = array.is_null().to_numpy(zero_copy_only=False)
        if pa.types.is_floating(array.type) and (role in ("user", "item") or self.request.on_missing == "skip"):
            absent = absent | pc.fill_null(pc.is_nan(array), True).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(absent)
        if len(rows):
            if self.request.may_leave(role):
                raise UnusableError(role, f"{self.place(self.rows + int(rows[0]))} has no value")
            places = [self.place(self.rows + int(row)) for row in rows[:_SHOWN]]
            more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
            if role not in self.faults:
                self.faults[role] = [f"the {role} is missing ({', '.join(places)}{more})"]
        return np.asarray(~absent)

    def _converted(self, role: str, array: pa.Array) -> tuple[Any, npt.NDArray[np.bool_], str]:
        if role in ("user", "item"):
            return self._ids(role, array)
        if role in ("title", "genres"):
            return texts(array), np.zeros(len(array), np.bool_), "text"
        column = times(array) if role == "time" else numbers(array, self.request.decimal)
        if role == "weight":
            return column.values, column.wrong | ~(column.values > 0), "positive and finite"
        return column.values, column.wrong, column.rule

    def _ids(self, role: str, array: pa.Array) -> tuple[Any, npt.NDArray[np.bool_], str]:
        if pa.types.is_dictionary(array.type) and array.type != pa.dictionary(pa.int32(), pa.string()):
            array = decoded(array)
        kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        wrong, rule = np.zeros(len(array), np.bool_), "an integer or a string"
        if pa.types.is_floating(kind):
            floats = pc.fill_null(array.cast(pa.float64()), 0).to_numpy(zero_copy_only=False)
            wrong = ~((np.floor(floats) == floats) & (np.abs(floats) <= 2**53)) & array.is_valid().to_numpy(False)
            array = pa.array(np.where(wrong | ~np.isfinite(floats), 0, floats).astype(np.int64))
        elif kind == pa.uint64() and self.request.id_type != "str":
            large = pc.fill_null(array, 0).to_numpy(zero_copy_only=False)
            wrong, rule = large >= 2**63, "an integer of 64 signed bits"
            array = pa.array(large.astype(np.int64), mask=array.is_null().to_numpy(zero_copy_only=False))
        elif pa.types.is_dictionary(array.type):
            return array, wrong, rule
        elif is_text(kind):
            return array.cast(pa.string()).dictionary_encode(), wrong, rule
        elif not (pa.types.is_integer(kind) or pa.types.is_null(kind)):
            raise DataError(f"{self.where}: the {role} must be an integer or a string (got {kind})")
        return array.cast(pa.int64()).dictionary_encode(), wrong, rule

    def _refuse(self, role: str, array: pa.Array, wrong: npt.NDArray[np.bool_], rule: str) -> None:
        """Raise for the first row that is wrong, or remember the first few."""
        for row in np.flatnonzero(wrong)[:_SHOWN]:
            value = array[int(row)].as_py()
            place = self.place(self.rows + int(row))
            if rule.startswith("a number"):
                fault = f"{place}: the {role} must be {rule} (got {value!r})"
            else:
                fault = f"the {role} must be {rule} (got {value}, {place})"
            if self.request.may_leave(role):
                raise UnusableError(role, fault)
            if self.request.on_bad == "raise":
                raise DataError(f"{self.where}: {fault}")
            self.bad(fault)

    def bad(self, fault: str) -> None:
        """Remember one of the first few broken rows."""
        held = self.faults.setdefault("bad", [])
        if len(held) < _SHOWN:
            held.append(fault)


def _joined(chunks: list[npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    """One array of all chunks, which are dropped as they are copied."""
    if not chunks:
        return None
    joined, start = np.empty(sum(map(len, chunks)), chunks[0].dtype), 0
    while chunks:
        chunk = chunks.pop(0)
        joined[start : start + len(chunk)] = chunk
        start += len(chunk)
    return joined
