"""Titles and genres of items, from a table of items or from columns beside the interactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hashlgn.data.ids import Ids
from hashlgn.data.interactions import Interactions

__all__ = ["NO_GENRE", "Items", "with_items"]

NO_GENRE = {"unknown", "(no genres listed)", ""}


@dataclass(frozen=True)
class Items:
    """What a table of items says."""

    ids: Ids  # external ids
    titles: Sequence[str] | None  # one per item, empty where there is none, or None
    genres: Sequence[tuple[str, ...]] | None  # one tuple per item, or None
    notes: tuple[str, ...] = ()  # what reading did without being asked, one sentence each


def with_items(data: Interactions, items: Items) -> Interactions:
    """The same interactions with titles and genres, empty for items that ``items`` does not name."""
    places = items.ids.encode(data.item_ids, on_unknown="mark").tolist()
    titles = None if items.titles is None else [items.titles[i] if i >= 0 else "" for i in places]
    genres = None if items.genres is None else [items.genres[i] if i >= 0 else () for i in places]
    return replace(data, titles=titles or data.titles, genres=genres or data.genres)
