"""Mixtures of teachers as text."""

from __future__ import annotations

import math
import re

from hashlgn.errors import ArgumentError, shown

__all__ = ["shares_of"]

_PART = re.compile(r"\s*(?:((?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)\s*\*?)?\s*([A-Za-z][\w-]*)\s*")


def shares_of(teacher: str) -> dict[str, float]:
    """Teachers and their shares, which add up to 1: ``0.5 labels + 0.3 lightgcn + 0.2 ease``. A teacher without a
    number counts 1.

    Raises:
        ArgumentError: the text is no such sum, names a teacher twice, or leaves no share.
    """
    parts = [_PART.fullmatch(part) for part in teacher.split("+")]
    rule = "must be 'auto' alone, or teachers with their shares, such as '0.8 labels + 0.2 ease'"
    shares: dict[str, float] = {}
    for part in parts:
        if part is None or part[2] in shares or part[2] == "auto":
            raise ArgumentError(f"student.teacher {rule}, each once (got {shown(teacher)})")
        shares[part[2]] = float(part[1] or 1)
    total = sum(shares.values())
    if not 0 < total < math.inf:
        raise ArgumentError(f"student.teacher {rule}, whose sum is positive and finite (got {shown(teacher)})")
    return {name: share / total for name, share in shares.items() if share}
