"""Searchers: exact answers over one catalogue. ``SEARCHERS`` is the table of choices."""

from __future__ import annotations

from hashlgn.errors import choose
from hashlgn.scoring import CodedItems, Items
from hashlgn.search.base import Hits, Searcher
from hashlgn.search.exact import Exact
from hashlgn.search.fastscan import MOST_BITS, FastScan
from hashlgn.search.flat import Decoded, Flat

__all__ = ["SEARCHERS", "Decoded", "Exact", "FastScan", "Flat", "Hits", "Searcher", "build_searcher"]

SEARCHERS: dict[str, type[Exact] | type[Flat] | type[Decoded] | type[FastScan]] = {
    "exact": Exact,
    "flat": Flat,
    "decoded": Decoded,
    "fastscan": FastScan,
}


def build_searcher(items: Items, name: str = "auto", threads: int | None = None) -> Searcher:
    """Build a searcher over a catalogue.

    Args:
        items: float vectors or codes.
        name: a key of ``SEARCHERS``, or ``auto``: ``flat`` for floats, ``fastscan`` for codes, ``exact`` where they are
            too long for it.
        threads: processor threads; all where None.

    Raises:
        ArgumentError: an unknown name, or a searcher that does not take such items.
    """
    if name == "auto":
        name = ("fastscan" if items.decoder.bits <= MOST_BITS else "exact") if isinstance(items, CodedItems) else "flat"
    searcher: Searcher = choose("engine", name, {"auto": None, **SEARCHERS})(items, threads)
    return searcher
