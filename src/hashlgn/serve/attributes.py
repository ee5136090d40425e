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
_GENRE = "genre"  # the attribute that a model's genres are


def key_of(value: Any) -> str:
    """A value as filters compare it: text, ``true`` and ``false``, numbers without needless digits."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


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
    """Bitmaps of attributes, in the numbers of one model.

    Args:
        model: whose items they are; its genres are the attribute ``genre`` where the service was told no other.
        attributes: what the service was told.
    """

    def __init__(self, model: ServedModel, attributes: Attributes) -> None:
        self._ids: Ids = model.item_ids
        self._genres, self._size = model.genres, len(model.item_ids)
        self._maps: dict[str, dict[str, Bits]] = {}
        self._held: dict[int, Values] = {}
        for item, values in list(attributes.items.items()):
            self.put(item, values)

    def names(self) -> set[str]:
        """Names of the attributes that can be filtered by."""
        return {*self._maps, *([_GENRE] if self._genres is not None else [])}

    def put(self, item: Any, values: Values) -> None:
        """Take the attributes of an item, which may be unknown to this model."""
        number = self._ids.find(_typed(item, self._ids.id_type))
        if number < 0:
            return
        if _GENRE in values and self._genres is not None:
            self._map(_GENRE)
        for name in self._held.get(number, {}):
            for bits in self._maps[name].values():
                bits[number] = False
        for name, value in values.items():
            for one in value if isinstance(value, list) else [value]:
                held = self._maps.setdefault(name, {})
                if key_of(one) not in held:
                    held[key_of(one)] = np.zeros(self._size, np.bool_)
                held[key_of(one)][number] = True
        self._held[number] = values

    def banned(self, filters: Sequence[tuple[str, tuple[str, ...]]]) -> Bits:
        """What no filter lets through: of each attribute one of the values is needed, ``(n_items,)``."""
        kept = np.ones(self._size, np.bool_)
        for name, values in filters:
            held = self._map(name)
            found = [held[value] for value in values if value in held]
            kept &= np.logical_or.reduce(found) if found else False
        return ~kept

    def _map(self, name: str) -> dict[str, Bits]:
        if name == _GENRE and self._genres is not None and _GENRE not in self._maps:
            genres: dict[str, list[int]] = {}
            for number, tags in enumerate(self._genres):
                for tag in tags:
                    genres.setdefault(tag, []).append(number)
            maps = {tag: np.zeros(self._size, np.bool_) for tag in genres}
            for tag, numbers in genres.items():
                maps[tag][numbers] = True
            self._maps[_GENRE] = maps
        return self._maps.get(name, {})


def _typed(item: Any, id_type: str) -> Any:
    if id_type == "str":
        return str(item)
    try:
        return int(item)
    except ValueError:
        return 2**63  # no id
