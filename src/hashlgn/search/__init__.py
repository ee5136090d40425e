"""Searchers: answers over one catalogue, exact but for ``ivf``. ``SEARCHERS`` is the table of choices."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

from hashlgn.errors import choose
from hashlgn.scoring.items import CodedItems, Items
from hashlgn.search.base import Hits, Searcher
from hashlgn.search.exact import Exact
from hashlgn.search.fastscan import MOST_BITS, FastScan
from hashlgn.search.flat import Decoded, Flat
from hashlgn.search.ivf import InvertedFile
from hashlgn.search.kernel import LONGEST_CODE, Kernel

__all__ = [
    "SEARCHERS",
    "Decoded",
    "Exact",
    "FastScan",
    "Flat",
    "Hits",
    "InvertedFile",
    "Kernel",
    "Searcher",
    "build_searcher",
]

SEARCHERS: dict[str, Callable[[Items, int | None], Searcher]] = {
    "exact": Exact,
    "kernel": Kernel,
    "ivf": InvertedFile,
    "flat": Flat,
    "decoded": Decoded,
    "fastscan": FastScan,
}
_LONG = 600_000_000  # sub-codes of all codes: the scan of so many takes about 2 ms a query, 8 where one asks alone


def build_searcher(items: Items, name: str = "auto", threads: int | None = None) -> Searcher:
    """Build a searcher over a catalogue.

    Args:
        items: float vectors or codes.
        name: a key of ``SEARCHERS``, or ``auto``: ``flat`` for floats, ``kernel`` for codes. Where a scan would
            take about 2 ms a query in a batch and 8 alone (from 36 million items of 64 bits, 18 million of
            128), ``ivf``, which is approximate: a warning says so. Where the kernel could not be compiled, or
            codes are too long for it, ``fastscan``, and ``exact`` where they are too long for that.
        threads: processor threads; all where None.

    Raises:
        ArgumentError: an unknown name, or a searcher that does not take such items.
    """
    if name == "auto":
        name = _best(items) if isinstance(items, CodedItems) else "flat"
    searcher: Searcher = choose("engine", name, {"auto": Exact, **SEARCHERS})(items, threads)
    return searcher


def _best(items: CodedItems) -> str:
    bits = items.decoder.bits
    if not Kernel.instruction_sets():
        _warn_once(
            "the search kernel was not compiled when HashLGN was installed: Faiss takes its place, exact but slower "
            "(hashlgn doctor says more)"
        )
    elif len(items) * bits // 4 >= _LONG:
        _warn(f"{len(items):,} items: top-k answers are approximate (engine 'ivf'); 'kernel' gives exact ones, slower")
        return "ivf"
    elif bits <= LONGEST_CODE:
        return "kernel"
    return "fastscan" if bits <= MOST_BITS else "exact"


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)
