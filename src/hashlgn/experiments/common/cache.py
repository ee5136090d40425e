"""Tables that are made a cell at a time: a finished cell is a file, and is never run again while it is there."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from hashlgn.utils.console import write_json
from hashlgn.utils.provenance import provenance

__all__ = ["digest", "interval", "kept", "markdown"]


def digest(value: Any) -> str:
    """A short name for a JSON-able value: equal values have equal names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def kept(
    folder: Path, identity: Mapping[str, Any], run: Callable[[], Mapping[str, Any]], **more: Any
) -> tuple[dict[str, Any], bool]:
    """A cell: read from its file, else run and written whole or not at all.

    Args:
        folder: of the cells.
        identity: all that the cell's result depends on, JSON-able; the version of the package is added.
        run: computes the result.
        more: for the provenance, such as seed and threads.

    Returns:
        Identity, result and provenance together, and whether it was run just now.
    """
    whole = {**identity, "version": provenance()["version"]}
    place = folder / f"{digest(whole)}.json"
    fresh = not place.exists()
    if fresh:
        found = {**whole, **run(), **provenance(**more)}
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, found)
    read: dict[str, Any] = json.loads(place.read_text("utf-8"))
    return read, fresh


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95% interval by Student's t: ``t_{0.975, n−1} s / √n``; None for one value."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, None
    error = statistics.stdev(values) / len(values) ** 0.5
    return mean, float(stats.t.ppf(0.975, len(values) - 1)) * error


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table, None as a dash."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names)]
    lines += [["-" if row[name] is None else str(row[name]) for name in names] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
