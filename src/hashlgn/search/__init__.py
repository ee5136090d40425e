"""Searchers: exact answers over one catalogue. ``SEARCHERS`` is the table of choices."""

from __future__ import annotations

import warnings

from hashlgn.errors import choose
from hashlgn.scoring import CodedItems, Items
from hashlgn.search.base import Hits, Searcher
from hashlgn.search.exact import Exact
from hashlgn.search.fastscan import MOST_BITS, FastScan
from hashlgn.search.flat import Decoded, Flat
from hashlgn.search.kernel import LONGEST_CODE, Kernel

__all__ = ["SEARCHERS", "Decoded", "Exact", "FastScan", "Flat", "Hits", "Kernel", "Searcher", "build_searcher"]

SEARCHERS: dict[str, type[Exact] | type[Flat] | type[Decoded] | type[FastScan] | type[Kernel]] = {
    "exact": Exact,
    "kernel": Kernel,
    "flat": Flat,
    "decoded": Decoded,
    "fastscan": FastScan,
}


def build_searcher(items: Items, name: str = "auto", threads: int | None = None) -> Searcher:
    """Build a searcher over a catalogue.

    Args:
        items: float vectors or codes.
        name: a key of ``SEARCHERS``, or ``auto``: ``flat`` for floats, ``kernel`` for codes; where the kernel could not
            be compiled, or codes are too long for it, ``fastscan``, and ``exact`` where they are too long for that.
        threads: processor threads; all where None.

    Raises:
        ArgumentError: an unknown name, or a searcher that does not take such items.
    """
    if name == "auto":
        name = _best(items.decoder.bits) if isinstance(items, CodedItems) else "flat"
    searcher: Searcher = choose("engine", name, {"auto": None, **SEARCHERS})(items, threads)
    return searcher


def _best(bits: int) -> str:
    if not Kernel.instruction_sets():
        warnings.warn(
            "the search kernel was not compiled when HashLGN was installed: Faiss takes its place, exact but slower",
            RuntimeWarning,
            stacklevel=3,
        )
    elif bits <= LONGEST_CODE:
        return "kernel"
    return "fastscan" if bits <= MOST_BITS else "exact"
