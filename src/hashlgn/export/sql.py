"""Codes, scores and questions as SQL, for DuckDB and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Callable

from hashlgn.export.base import NAME, Query
from hashlgn.scoring.decoders import Floats

__all__ = ["numbers", "score", "select"]


def numbers(values: Floats) -> str:
    """Float32 numbers as decimal text that float64 reads back without a change, separated by commas."""
    return ", ".join(map(repr, values.tolist()))


def score(bits: int, low: Callable[[int], str], high: Callable[[int], str]) -> str:
    """``scale · Σ_m t[16 m + k_m]``, as SQL: float64 sums in the order of the sub-codes, float32 once.

    ``+ 0`` makes +0 of −0, as everywhere in this library.

    Args:
        bits: length of a code.
        low: how the lower half of byte i is read.
        high: how its upper half is read.
    """
    terms = []
    for byte in range(bits // 8):
        terms += [f"t[{32 * byte + 1} + {low(byte)}]", f"t[{32 * byte + 17} + {high(byte)}]"]
    return f"CAST(CAST(scale AS DOUBLE PRECISION) * ({' + '.join(terms)}) AS REAL) + CAST(0 AS REAL)"


def select(query: Query, k: int, expression: str) -> str:
    """The k items of the highest score that the user has not seen, best first, ties by number."""
    seen = f"WHERE number NOT IN ({', '.join(map(str, query.seen.tolist()))})\n" if len(query.seen) else ""
    return f"SELECT number, id, {expression} AS score\nFROM {NAME}\n{seen}ORDER BY score DESC, number LIMIT {k};\n"
