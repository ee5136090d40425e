"""Columns of interactions, gathered chunk by chunk: values are checked and narrowed, ids are numbered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hashlgn.data.arrays import WEIGHT_RULE, Arrivals, decoded, is_weight, pages
from hashlgn.data.columns import ROLES, Request
from hashlgn.data.convert import is_text, numbers, texts, times
from hashlgn.data.ids import Ids
from hashlgn.data.interactions import Interactions
from hashlgn.data.titles import NO_GENRE, Items
from hashlgn.data.values import canonical_integers, parsed_integers, whole_numbers
from hashlgn.errors import DataError, counted

__all__ = ["Gather", "usable"]

_SEPARATORS = ("|", ";", ",")  # of genres in text: the first that occurs
_SHOWN = 3  # rows that a message names


class UnusableError(Exception):
    """A column that nobody asked for cannot be read; reading goes on without it."""

    def __init__(self, role: str, why: str) -> None:
        """Name the column by its role."""
        super().__init__(why)
        self.role = role


def usable(read: Callable[[Request], Gather], request: Request) -> Gather:
    """What a source gives, without columns that nobody asked for and that cannot be read; notes say which."""
    notes: list[str] = []
    while True:
        try:
            gather = read(request)
            gather.notes[:0] = notes
            return gather
        except UnusableError as unusable:
            notes.append(f"the column of {unusable.role}s was not read ({unusable})")
            left: dict[str, Any] = {unusable.role: False}
            request = replace(request, **left)


@dataclass
class Gather:
    """Collects chunks of columns, checked and narrowed, and makes interactions of them."""

    request: Request  # what was asked for
    where: str  # the source, for errors
    place: Callable[[int], str]  # names the place of a row (counted from 0 over all chunks) in errors
    written: bool = False  # whether ids come as text, so that their spelling decides whether they are integers
    rows: int = 0
    kept: int = 0
    chunks: dict[str, list[npt.NDArray[Any]]] = field(default_factory=lambda: {"rating": [], "time": [], "weight": []})
    faults: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=lambda: {"missing": 0, "bad": 0})
    notes: list[str] = field(default_factory=list)
    ids: dict[str, Arrivals] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def add(self, batch: Mapping[str, pa.Array]) -> None:
        """Take one chunk: arrays of one length, by role.

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
        self.notes += [f"left out {counted(self.skipped['missing'], 'row')} with missing values"] * bool(missing)
        if self.skipped["bad"]:
            shown = "; ".join(self.faults["bad"])
            self.notes.append(f"left out {counted(self.skipped['bad'], 'row')} that cannot be read ({shown})")
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
        which = self.request.duplicates
        data = Interactions.from_keys(user_ids, item_ids, columns, duplicates=which)
        if repeated := self.kept - len(data):
            self.notes.append(f"of rows that name the same user and item the {which} counts: {repeated:,} left out")
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
            return column.values, column.wrong | ~is_weight(column.values), WEIGHT_RULE
        return column.values, column.wrong, column.rule

    def _ids(self, role: str, array: pa.Array) -> tuple[Any, npt.NDArray[np.bool_], str]:
        if pa.types.is_dictionary(array.type) and array.type != pa.dictionary(pa.int32(), pa.string()):
            array = decoded(array)
        kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        wrong, rule = np.zeros(len(array), np.bool_), "an integer or a string"
        if pa.types.is_floating(kind) or (kind == pa.uint64() and self.request.id_type != "str"):
            found, valid = whole_numbers(array)
            array, wrong = pa.array(found), ~valid
            rule = "an integer of 64 signed bits" if kind == pa.uint64() else rule
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
