"""Attributes of items that a service is told, and filters over them as bitmaps that join the scan's exclusion."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Ids
from hashlgn.errors import JournalError
from hashlgn.inference.model import ServedModel

__all__ = ["Attributes", "Filters", "key_of"]

Bits = npt.NDArray[np.bool_]
Values = Mapping[str, Any]
_Key = tuple[str, str]  # an attribute and one of its values
_BITMAPS = 64  # bitmaps that are kept, of a byte per item each
_GENRE = "genre"  # the attribute that a model's genres are


def key_of(value: Any) -> str:
    """A value as filters compare it: text, ``true`` and ``false``, numbers without needless digits."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


class Attributes:
    """What a service was told of items, kept in a small database.

    Args:
        path: the file; in memory alone where None.

    Raises:
        JournalError: the file cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(":memory:" if path is None else path, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("CREATE TABLE IF NOT EXISTS items(item TEXT PRIMARY KEY, attributes TEXT NOT NULL)")
            rows = self._db.execute("SELECT item, attributes FROM items").fetchall()
            self.items: dict[str, dict[str, Any]] = {item: json.loads(held) for item, held in rows}
        except (sqlite3.Error, ValueError) as error:
            raise JournalError(f"{path}: attributes of items cannot be read ({error})") from error

    def put(self, item: Any, values: Values) -> None:
        """Replace the attributes of an item; they are on the disk when this returns.

        Raises:
            JournalError: they cannot be written.
        """
        held = dict(values)
        with self._lock:
            try:
                with self._db:
                    text = json.dumps(held, ensure_ascii=False)
                    self._db.execute("INSERT OR REPLACE INTO items VALUES (?, ?)", (str(item), text))
            except sqlite3.Error as error:
                raise JournalError(f"attributes of items cannot be written ({error})") from error
            self.items[str(item)] = held

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class Filters:
    """Which items have which attributes, in the numbers of one model. The bitmaps that were asked for last are kept.

    Args:
        model: whose items they are; its genres are the attribute ``genre`` of items of which the service was told no
            other.
        attributes: what the service was told.
    """

    def __init__(self, model: ServedModel, attributes: Attributes) -> None:
        self._ids: Ids = model.item_ids
        self._genres, self._size = model.genres, len(model.item_ids)
        self._names = {_GENRE} if model.genres is not None else set()
        self._items: dict[_Key, set[int]] = {}
        self._held: dict[int, Values] = {}
        self._bits: dict[_Key, Bits] = {}
        self._lock = threading.Lock()
        for item, values in list(attributes.items.items()):
            self.put(item, values)

    def names(self) -> set[str]:
        """Names of the attributes that can be filtered by."""
        return set(self._names)

    def put(self, item: Any, values: Values) -> None:
        """Take the attributes of an item, which may be unknown to this model."""
        number = self._ids.find(_typed(item, self._ids.id_type))
        if number < 0:
            return
        with self._lock:
            before = self._held.get(number, {})
            self._names |= values.keys()
            for key in _keys(before):
                self._items[key].discard(number)
                if not self._items[key]:
                    del self._items[key]
            for key in _keys(values):
                self._items.setdefault(key, set()).add(number)
            for key in (*_keys(before), *_keys(values)):
                if key in self._bits:
                    self._bits[key][number] = number in self._items.get(key, ())
            if self._genres is not None and _GENRE in {*before, *values}:  # those of the model go or come back
                self._bits = {key: bits for key, bits in self._bits.items() if key[0] != _GENRE}
            self._held[number] = values

    def banned(self, filters: Sequence[tuple[str, tuple[str, ...]]]) -> Bits:
        """What no filter lets through: of each attribute one of the values is needed, ``(n_items,)``."""
        kept = np.ones(self._size, np.bool_)
        with self._lock:
            for name, values in filters:
                kept &= np.logical_or.reduce([self._map((name, value)) for value in values]) if values else False
        return ~kept

    def _map(self, key: _Key) -> Bits:
        bits = self._bits.pop(key, None)
        if bits is None:
            bits = np.zeros(self._size, np.bool_)
            if key[0] == _GENRE and self._genres is not None:
                bits[:] = [key[1] in genres for genres in self._genres]
                bits[[number for number, values in self._held.items() if _GENRE in values]] = False
            bits[list(self._items.get(key, ()))] = True
        self._bits[key] = bits  # as the last one
        if len(self._bits) > _BITMAPS:
            del self._bits[next(iter(self._bits))]
        return bits


def _keys(values: Values) -> set[_Key]:
    """Names and values of an item's attributes, as filters compare them."""
    return {
        (name, key_of(one)) for name, held in values.items() for one in (held if isinstance(held, list) else [held])
    }


def _typed(item: Any, id_type: str) -> Any:
    if id_type == "str":
        return str(item)
    try:
        return int(item)
    except ValueError:
        return 2**63  # no id
