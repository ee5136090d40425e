"""What ``hashlgn bench search`` found, for people: tables as text, and the plot that the field draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hashlgn.experiments.common.page import new_figure, write_figure
from hashlgn.experiments.common.tables import table

Rows = Sequence[dict[str, Any]]
_GROUP = ("data", "items", "k")


def tables(rows: Rows) -> str:
    """One table a catalogue and k, as plain text; columns without any value are left out."""
    return "\n\n".join(f"{title}\n{table(part)}" for title, part in _grouped(rows))


def draw(path: Path, rows: Rows) -> None:
    """Draw quality, where there is one, else agreement with the exact answer, against queries a second on a log scale.

    A panel per catalogue and k; operating points of one index are joined by a line.
    """
    groups = _groups(rows)
    figure, axes = new_figure(len(groups), 1, (9, 4.8 * len(groups)))
    for axis, (key, part) in zip(axes, groups.items(), strict=True):
        evaluated = any(row["recall"] is not None for row in part)
        lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for row in part:
            agreement = row["float agreement"] if row["float agreement"] is not None else row["decoded agreement"]
            speed, quality = (row["seen qps"], row["recall"]) if evaluated else (row["qps"], agreement)
            if speed is not None and quality is not None:
                lines.setdefault((row["method"].partition(", ")[0], row["over"]), []).append((quality, speed))
        for number, ((method, over), points) in enumerate(lines.items()):
            points.sort()
            style = {"color": f"C{number % 10}", "marker": "os^Dv<>P"[number // 10 % 8], "markersize": 4}
            axis.plot(*zip(*points, strict=True), label=f"{method}, {over}", linewidth=1, **style)
        x = f"recall@{key[2]}" if evaluated else f"agreement with the exact answer at {key[2]}"
        y = "queries a second" + (", seen items left out" if evaluated else "")
        axis.set(yscale="log", xlabel=x, ylabel=y, title=_title(key))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    write_figure(path, figure)


def _groups(rows: Rows) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows by catalogue and k."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in _GROUP), []).append(row)
    return groups


def _grouped(rows: Rows) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for key, part in _groups(rows).items():
        kept = [name for name in part[0] if name not in _GROUP and any(row[name] is not None for row in part)]
        yield _title(key), [{name: row[name] for name in kept} for row in part]


def _title(key: tuple[Any, ...]) -> str:
    return f"{key[0]}, {key[1]:,} items, k = {key[2]}"
