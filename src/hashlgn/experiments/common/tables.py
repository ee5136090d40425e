"""Tables: as plain text for a terminal, as Markdown, and means with their intervals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hashlgn.utils.storage import result_file

Rows = Sequence[Mapping[str, Any]]


def table(rows: Rows) -> str:
    """Rows with the same keys as plain text, aligned by column; numbers to the right, and None as a dash."""
    names = list(rows[0]) if rows else []
    texts = [[_shown(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in texts)) for i, name in enumerate(names)]
    numeric = [all(row[name] is None or isinstance(row[name], int | float) for row in rows) for name in names]

    def line(values: Sequence[str]) -> str:
        aligned = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(values, widths, numeric, strict=True)
        )
        return "  ".join(aligned).rstrip()

    return "\n".join(map(line, [names, *texts]))


def markdown(rows: Rows) -> str:
    """Rows with the same keys as a Markdown table, None as a dash."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_shown(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95% interval by Student's t: ``t_{0.975, n−1} s / √n``; None for one value."""
    from scipy import stats

    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, None
    error = statistics.stdev(values) / len(values) ** 0.5
    return mean, float(stats.t.ppf(0.975, len(values) - 1)) * error


def spread(values: Sequence[float]) -> str:
    """Mean ± half the width of its interval, as text."""
    mean, half = interval(values)
    return f"{mean:.4f}" + ("" if half is None else f" ± {half:.4f}")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with result_file(path.suffix[1:], path) as temporary:
        temporary.write_text(text, "utf-8")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
