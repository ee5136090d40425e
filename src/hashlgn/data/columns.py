"""Columns of interactions on their way in: which column is what, and their gathering chunk by chunk."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hashlgn.data.arrays import Arrivals, decoded, pages
from hashlgn.data.ids import Ids
from hashlgn.data.interactions import Interactions
from hashlgn.data.values import canonical_integers, parsed_integers
from hashlgn.errors import DataError

__all__ = ["ALIASES", "ROLES", "Gather", "Request", "find_columns", "has_alias"]

# Names without case, punctuation and type suffix: "userId" and "user_id:token" become "userid".
ALIASES = {
    "user": {
        "user",
        "userid",
        "uid",
        "users",
        "username",
        "customer",
        "customerid",
        "visitorid",
        "reviewerid",
    },
    "item": {
        *(
            "item",
            "itemid",
            "iid",
            "items",
            "movie",
            "movieid",
            "product",
            "productid",
            "book",
            "bookid",
            "asin",
        ),
        *("track", "trackid", "song", "songid", "artist", "artistid", "business", "businessid", "article"),
        "articleid",
    },
    "rating": {"rating", "ratings", "stars", "score"},
    "time": {"timestamp", "time", "ts", "datetime", "date"},
}
ROLES = tuple(ALIASES)


@dataclass(frozen=True)
class Request:
    """What the caller of ``read_interactions`` asked for, beside the source."""

    part: str = "train"
    user: str | int | None = None
    item: str | int | None = None
    rating: str | int | None = None
    time: str | int | None = None
    min_rating: float | None = None
    duplicates: str = "first"
    id_type: str = "auto"
    delimiter: str | None = None

    def names(self) -> dict[str, str | int]:
        """The columns that were named, by role."""
        given = {role: getattr(self, role) for role in ROLES}
        return {role: name for role, name in given.items() if name is not None}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.split(":")[0].lower())


def has_alias(names: Sequence[str]) -> bool:
    """Whether any of the names is one that a column of users or items usually has."""
    return any(_plain(name) in ALIASES["user"] | ALIASES["item"] for name in names)


def find_columns(names: Sequence[str], request: Request, where: str) -> dict[str, int]:
    """Positions of the columns by role: those that were named, then those with a usual name.

    Raises:
        DataError: users or items have no column, a named column does not exist, or several columns fit one
            role.
    """
    found: dict[str, int] = {}
    listed = ", ".join(map(repr, names))
    for role in ROLES:
        wanted = getattr(request, role)
        if isinstance(wanted, int):
            if not 0 <= wanted < len(names):
                raise DataError(f"{where}: {role}={wanted} must be a position in 0 … {len(names) - 1}")
            found[role] = wanted
            continue
        fits = [i for i, name in enumerate(names) if name == wanted] if wanted is not None else []
        if wanted is None:
            fits = [i for i, name in enumerate(names) if _plain(name) in ALIASES[role]]
        if len(fits) > 1:
            several = ", ".join(repr(names[i]) for i in fits)
            raise DataError(f"{where}: several columns may be the {role} ({several}); name one with {role}=")
        if not fits and (wanted is not None or role in ("user", "item")):
            asked = "no column" if wanted is None else f"no column {wanted!r}"
            raise DataError(f"{where}: {asked} for the {role} (columns: {listed}); name it with {role}=")
        if fits:
            found[role] = fits[0]
    if len(set(found.values())) < len(found):
        raise DataError(f"{where}: one column is named for two roles ({found}, columns: {listed})")
    return found


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
    chunks: dict[str, list[npt.NDArray[Any]]] = field(default_factory=lambda: {"rating": [], "time": []})
    ids: dict[str, Arrivals] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def add(self, batch: Mapping[str, pa.Array]) -> None:
        """Take one chunk: arrays of one length by role.

        Raises:
            DataError: a value is missing, no id, no finite number.
        """
        columns = {role: self._column(role, array) for role, array in batch.items()}
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
        self.rows += len(batch["user"])
        if self.request.min_rating is not None and "rating" not in columns:
            raise DataError(f"{self.where}: min_rating needs a column of ratings (name it with rating=)")
        for role, column in columns.items():
            if isinstance(column, pa.DictionaryArray):
                self.ids.setdefault(role, Arrivals(column.type.value_type)).add(column)
            else:
                self.chunks[role].append(pages(len(column), column.dtype))
                self.chunks[role][-1][:] = column

    def finish(self) -> Interactions:
        """The interactions of all chunks; frees the chunks on the way.

        Raises:
            DataError: there are none.
        """
        if not self.rows:
            raise DataError(f"{self.where}: no interactions (only a header, or nothing at all)")
        user_ids, users = self._numbered("user")
        item_ids, items = self._numbered("item")
        pa.default_memory_pool().release_unused()  # Arrow keeps what it read with, many blocks of it
        keys, start = np.empty(self.rows, np.int64), 0
        while users:
            part = keys[start : start + len(users[0])]
            np.multiply(users.pop(0), max(len(item_ids), 1), out=part, dtype=np.int64)
            part += items.pop(0)
            start += len(part)
        columns = {"keys": keys, "ratings": _joined(self.chunks["rating"]), "times": _joined(self.chunks["time"])}
        del keys, part
        data = Interactions.from_keys(user_ids, item_ids, columns, duplicates=self.request.duplicates)
        return data if self.request.min_rating is None else data.rated_at_least(self.request.min_rating, self.where)

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

    def _column(self, role: str, array: pa.Array) -> Any:
        if pa.types.is_dictionary(array.type) and array.type != pa.dictionary(pa.int32(), pa.string()):
            array = decoded(array)
        if array.null_count:
            row = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
            raise DataError(f"{self.where}: the {role} is missing ({self.place(self.rows + row)})")
        if role == "rating":
            return self._ratings(array)
        if role == "time":
            return self._times(array)
        return self._ids(role, array)

    def _ids(self, role: str, array: pa.Array) -> Any:
        kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        if pa.types.is_floating(kind):
            self._refuse(role, array, pc.invert(pc.equal(pc.floor(array), array)), "an integer or a string")
            self._refuse(role, array, pc.greater(pc.abs(array), 2.0**53), "at most 2^53, as a float")
            array, kind = array.cast(pa.int64()), pa.int64()
        if pa.types.is_integer(kind):
            if kind == pa.uint64():
                too_large = pc.greater_equal(array, pa.scalar(2**63, pa.uint64()))
                self._refuse(role, array, too_large, "an integer of 64 signed bits")
            return array.cast(pa.int64()).dictionary_encode()
        if not _is_text(kind):
            raise DataError(f"{self.where}: the {role} must be an integer or a string (got {kind})")
        return array if pa.types.is_dictionary(array.type) else array.cast(pa.string()).dictionary_encode()

    def _ratings(self, array: pa.Array) -> npt.NDArray[np.float32]:
        if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
            raise DataError(f"{self.where}: the rating must be a number (got {array.type})")
        self._refuse("rating", array, pc.invert(pc.is_finite(array)), "finite")
        return np.asarray(array.to_numpy(zero_copy_only=False).astype(np.float32))

    def _times(self, array: pa.Array) -> npt.NDArray[np.int64]:
        if pa.types.is_date(array.type) or pa.types.is_timestamp(array.type):
            array = array.cast(pa.timestamp("us", getattr(array.type, "tz", None)), safe=False).cast(pa.int64())
        if pa.types.is_floating(array.type):
            self._refuse("time", array, pc.invert(pc.is_finite(array)), "finite")
            array = pc.floor(array).cast(pa.int64(), safe=False)
        if not pa.types.is_integer(array.type):
            raise DataError(f"{self.where}: the time must be a number or a date (got {array.type})")
        return np.asarray(array.to_numpy(zero_copy_only=False).astype(np.int64))

    def _refuse(self, role: str, array: pa.Array, wrong: Any, rule: str) -> None:
        """Raise for the first row where ``wrong`` is true."""
        rows = np.flatnonzero(pc.fill_null(wrong, True).to_numpy(zero_copy_only=False))
        if len(rows):
            row = int(rows[0])
            value = array[row].as_py()
            raise DataError(f"{self.where}: the {role} must be {rule} (got {value!r}, {self.place(self.rows + row)})")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view())


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
