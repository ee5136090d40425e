"""The page of ``hashlgn reproduce``: its tables and figures in one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hashlgn.experiments.common import page as common
from hashlgn.experiments.common.page import drawn, new_figure
from hashlgn.experiments.reproduction.rows import Row
from hashlgn.experiments.reproduction.tables import F1_NOTE, NDCG_NOTE

_COLOURS = {
    "HashGNN": "#7a5195",
    "LightGCN": "#5b6472",
    "HashLGN": "#1f6f8b",
    "baseline": "#c9772b",
    "quantizer": "#8a9a5b",
}
_METRICS = ("precision", "recall", "f1", "ndcg")

Results = Mapping[str, Mapping[str, Any]]  # the first seed's, by row


def write_page(path: Path, result: Mapping[str, Any], rows: Sequence[Row], results: Results) -> None:
    """Write the page of what ``reproduce`` returns; ``results`` are those of the first seed, by row."""
    rows = [row for row in rows if row.name in results]
    cut = next(iter(next(iter(results.values()))["mips"]))
    figures = [
        (f"{title}: metrics against threshold, {method}", _against_threshold(method, rows, results))
        for title, method in (("Figure 3", "HashGNN"), ("Figure 4", "HashLGN"))
        if any(row.sweep and row.method == method for row in rows)
    ]
    figures += [
        ("Figure 5: search time against threshold", _times(result["times"], rows)),
        (f"Quality {cut} against bits per item", _quality(rows, results, cut, "bytes")),
        (f"Quality {cut} against queries per second", _quality(rows, results, cut, "speed")),
    ]
    values = {**result, "figures": figures, "note": NDCG_NOTE, "f1_note": F1_NOTE}
    common.write_page(path, "reproduction.html", values)


def _against_threshold(method: str, rows: Sequence[Row], results: Results) -> str:
    names = [row.name for row in rows if row.sweep and row.method == method]
    figure, axes = new_figure(1, len(names) + 1, (4.2 * (len(names) + 1), 3.4))
    for axis, name in zip(axes, names, strict=False):
        sweep = results[name]["sweep"]
        for metric in _METRICS:
            axis.plot([p["threshold"] for p in sweep], [p[metric] for p in sweep], marker=".", label=metric)
        axis.axvline(results[name]["tips"]["threshold"], color="black", linewidth=0.8, linestyle=":")
        axis.set_title(name, fontsize=8)
        axis.set(xlabel="threshold (dotted: chosen)")
        axes[-1].plot([p["answer_size"] for p in sweep], [p["f1"] for p in sweep], marker=".", label=name[:34])
    axes[0].legend(frameon=False, fontsize=8)
    axes[-1].set_title("F1 against mean size of the answers", fontsize=8)
    axes[-1].set(xlabel="items per user")
    axes[-1].legend(frameon=False, fontsize=7)
    return drawn(figure)


def _times(times: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Milliseconds per user; thresholds of different models are brought together by the size of their answers."""
    figure, axes = new_figure(1, 2, (12, 4))
    for axis, way, title in zip(axes, ("paper", "ours"), ("the paper's procedure", "our search"), strict=True):
        for row in rows:
            line = [point for point in times["tips"] if point["row"] == row.name]
            if line and row.method in ("LightGCN", "HashLGN", "HashGNN"):
                style = "--" if row.how == "paper" else "-"
                axis.plot(
                    [point["mean size"] for point in line],
                    [1000 * point[f"{way} seconds"] / times["users"] for point in line],
                    style,
                    marker=".",
                    color=_COLOURS[row.method],
                    label=row.name,
                )
        axis.set(yscale="log", title=title, xlabel="mean size of the answers at the threshold", ylabel="ms per user")
    axes[1].legend(frameon=False, fontsize=7)
    return drawn(figure)


def _quality(rows: Sequence[Row], results: Results, cut: str, against: str) -> str:
    figure, axes = new_figure(1, 2, (12, 4))
    last = list(next(iter(results.values()))["mips"])[-1]

    def place(one: Mapping[str, Any]) -> float:
        if against == "bytes":
            return float(8 * one["bytes_per_item"])
        return float(one["users"] / one["mips"][last]["search_seconds"])

    for axis, metric in zip(axes, ("recall", "ndcg"), strict=True):
        for method, colour in _COLOURS.items():
            for marker, ours in (("o", True), ("x", False)):
                found = [results[row.name] for row in rows if row.method == method and (row.how != "paper") == ours]
                points = [(place(one), one["mips"][cut][metric]) for one in found]
                label = method + ("" if ours else ", paper's recipe")
                if points:
                    axis.scatter(*zip(*points, strict=True), marker=marker, color=colour, label=label)
        axis.set_xscale("log", base=2 if against == "bytes" else 10)
        x = "bits per item" if against == "bytes" else f"users per second, top {last[1:]}"
        axis.set(xlabel=x, title=f"{metric}{cut}")
    axes[0].legend(frameon=False, fontsize=7)
    return drawn(figure)
