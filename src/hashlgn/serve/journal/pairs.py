"""The pairs of a journal as arrays, and the file in which they are kept so that a start need not read every event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Ids
from hashlgn.errors import ArgumentError, ArtifactError, DataError
from hashlgn.serve.journal.events import Id
from hashlgn.serve.journal.store import Store
from hashlgn.utils.tensors import MALFORMED, Arrays, Part, read_tensors, write_tensors

__all__ = ["Pairs", "read_pairs", "snapshot_file"]

FORMAT = "hashlgn-journal-pairs"
Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Pairs:
    """The distinct (user, item) pairs of a journal, each with its newest event, by user and item.

    Attributes:
        user_ids: ids of the users in order of arrival.
        item_ids: ids of the items in order of arrival.
        users: user number of each pair, ``(n,)`` int32.
        items: item number of each pair, ``(n,)`` int32.
        weights: of the newest event, float32.
        times: of the newest event, int64, microseconds since 1970.
        marks: the last row of the events and of the removals that are in here.
        last: the name of the event in that row, by which a file of another journal is told.
    """

    user_ids: Ids
    item_ids: Ids
    users: Int32s
    items: Int32s
    weights: npt.NDArray[np.float32]
    times: npt.NDArray[np.int64]
    marks: tuple[int, int]
    last: str | None

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def none(cls, types: tuple[str, str]) -> Pairs:
        """Of an empty journal."""
        numbers = np.empty(0, np.int32)
        columns = numbers, numbers, np.empty(0, np.float32), np.empty(0, np.int64)
        return cls(Ids([], types[0]), Ids([], types[1]), *columns, (0, 0), None)

    def used(self) -> Pairs:
        """The same without ids that no pair has."""
        users, items = np.unique(self.users).astype(np.int64), np.unique(self.items).astype(np.int64)
        return replace(
            self,
            user_ids=self.user_ids.take(users),
            item_ids=self.item_ids.take(items),
            users=np.searchsorted(users, self.users).astype(np.int32),
            items=np.searchsorted(items, self.items).astype(np.int32),
        )

    def save(self, path: Path) -> None:
        """Write to a file, all or nothing.

        Raises:
            ArtifactError: it cannot be written.
        """
        columns: Arrays = {"users": self.users, "items": self.items, "weights": self.weights, "times": self.times}
        parts: dict[str, Part] = {"pairs": (columns, {})}
        parts |= {"user_ids": (self.user_ids.arrays(), {}), "item_ids": (self.item_ids.arrays(), {})}
        write_tensors(path, FORMAT, {"marks": list(self.marks), "last": self.last}, parts)

    @classmethod
    def load(cls, path: Path) -> Pairs | None:
        """What was saved; None where there is nothing, or it is damaged."""
        try:
            held = read_tensors(path, FORMAT, verify=True)
            parts = {name: arrays for name, (arrays, _) in held.parts().items()}
            users, items = (Ids.from_arrays(parts[name]) for name in ("user_ids", "item_ids"))
            columns = parts["pairs"]
            numbers = columns["users"], columns["items"], columns["weights"], columns["times"]
            events, removals = held.manifest["marks"]
            return cls(users, items, *numbers, (int(events), int(removals)), held.manifest["last"])
        except (ArtifactError, DataError, ArgumentError, *MALFORMED):
            return None


def snapshot_file(journal: Path) -> Path:
    """Where the pairs of a journal are kept."""
    return journal.with_name(f"{journal.name}.pairs.safetensors")


def read_pairs(store: Store) -> tuple[Pairs, list[tuple[Id, Id | None]], bool]:
    """The pairs of a journal, and its removals: what was kept, brought up to date; inside ``store.reading()``.

    Returns:
        Pairs; users and items of all removals; and whether the file holds what was deleted since.
    """
    marks, types = store.marks(), store.types
    kept = Pairs.load(snapshot_file(store.path))
    if (
        kept is None
        or (kept.user_ids.id_type, kept.item_ids.id_type) != types
        or not store.holds(kept.marks, kept.last)
    ):
        kept = Pairs.none(types)
    changed = {user for user, _ in store.removals_after(kept.marks[1])} if kept.marks[0] else set()
    gather = _Gather(kept, changed)
    for rows in store.rows_after(kept.marks[0], "user", "item", "weight", "time"):
        gather.add(rows)
    for user in changed:
        gather.add([(user, *row) for row in store.pairs_of(user)])
    pairs = gather.pairs(marks, store.event_in(marks[0]))
    return pairs.used() if changed else pairs, store.removals_after(0), bool(changed)


class _Gather:
    """Pairs on their way in: those that are known, without the users who changed, then others."""

    parts: list[tuple[Int32s, Int32s, npt.NDArray[np.float32], npt.NDArray[np.int64]]]

    def __init__(self, kept: Pairs, changed: set[Id]) -> None:
        self.user_ids, self.item_ids, self.changed = kept.user_ids, kept.item_ids, changed
        users = self.user_ids.encode(list(changed), on_unknown="mark") if changed else np.empty(0, np.int64)
        mask = ~np.isin(kept.users, users)
        columns = kept.users, kept.items, kept.weights, kept.times
        if not mask.all():
            columns = kept.users[mask], kept.items[mask], kept.weights[mask], kept.times[mask]
        self.parts = [columns]

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows:
            return
        users, items, weights, times = zip(*rows, strict=True)
        self.user_ids, user = self.user_ids.add(list(users))
        self.item_ids, item = self.item_ids.add(list(items))
        columns = (np.array(weights, np.float32), np.array(times, np.int64))
        self.parts.append((user.astype(np.int32), item.astype(np.int32), *columns))

    def pairs(self, marks: tuple[int, int], last: str | None) -> Pairs:
        """All pairs: the others are sorted and put among those that are known, which is linear in these."""
        known, *parts = self.parts
        if not parts:
            return Pairs(self.user_ids, self.item_ids, *known, marks, last)
        users, items, weights, times = (np.concatenate(column) for column in zip(*parts, strict=True))
        width = max(len(self.item_ids), 1)
        keys = users.astype(np.int64) * width + items
        order = np.lexsort((times, keys))
        newest = order[np.append(keys[order[1:]] != keys[order[:-1]], True)]
        keys, users, items, weights, times = (column[newest] for column in (keys, users, items, weights, times))
        before = known[0].astype(np.int64) * width + known[1]
        place = np.searchsorted(before, keys)
        there = np.flatnonzero(place < len(before))
        there = there[before[place[there]] == keys[there]]
        newer = there[times[there] >= known[3][place[there]]]
        older_weights, older_times = known[2].copy(), known[3].copy()
        older_weights[place[newer]], older_times[place[newer]] = weights[newer], times[newer]
        new = np.ones(len(keys), np.bool_)
        new[there] = False
        columns = (
            np.insert(known[0], place[new], users[new]),
            np.insert(known[1], place[new], items[new]),
            np.insert(older_weights, place[new], weights[new]),
            np.insert(older_times, place[new], times[new]),
        )
        return Pairs(self.user_ids, self.item_ids, *columns, marks, last)
