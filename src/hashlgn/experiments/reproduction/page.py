"""The page of ``hashlgn reproduce``: its tables and figures in one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from hashlgn.errors import need
from hashlgn.experiments.common.page import drawn, new_figure
from hashlgn.experiments.reproduction.rows import Row
from hashlgn.experiments.reproduction.tables import NDCG_NOTE
from hashlgn.utils.storage import replaced_file

__all__ = ["write_page"]

_COLOURS = {
    "HashGNN": "#7a5195",
    "LightGCN": "#5b6472",
    "HashLGN": "#1f6f8b",
    "reference": "#c9772b",
    "quantiser": "#8a9a5b",
}
_METRICS = ("precision", "recall", "f1", "ndcg")

Cells = Mapping[str, Mapping[str, Any]]  # the first seed's, by row


def write_page(path: Path, result: Mapping[str, Any], rows: Mapping[str, Row], cells: Cells) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        result: what ``reproduce`` returns.
        rows: what was compared.
        cells: of the first seed.

    Raises:
        MissingExtraError: matplotlib or Jinja is not installed.
    """
    jinja = need("jinja2", "report", "the page")
    source = files("hashlgn.experiments.reproduction").joinpath("page.html").read_text("utf-8")
    first = next(iter(cells.values()))
    cut = next(iter(first["mips"]))
    figures = [
        (f"{title}: metrics against threshold, {method}", _against_threshold(method, rows, cells))
        for title, method in (("Figure 3", "HashGNN"), ("Figure 4", "HashLGN"))
        if any(row.sweep and row.method == method for row in rows.values())
    ]
    figures += [
        ("Figure 5: search time against threshold", _times(result["times"], rows)),
        (f"Quality {cut} against bits an item", _quality(rows, cells, cut, "bytes")),
        (f"Quality {cut} against queries a second", _quality(rows, cells, cut, "speed")),
    ]
    text = jinja.Environment(autoescape=True).from_string(source).render(**result, figures=figures, note=NDCG_NOTE)
    with replaced_file(path) as temporary:
        temporary.write_text(text, "utf-8")


def _against_threshold(method: str, rows: Mapping[str, Row], cells: Cells) -> str:
    names = [name for name, row in rows.items() if row.sweep and row.method == method]
    figure, axes = new_figure(1, len(names) + 1, (4.2 * (len(names) + 1), 3.4))
    for axis, name in zip(axes, names, strict=False):
        sweep = cells[name]["sweep"]
        for metric in _METRICS:
            axis.plot([p["threshold"] for p in sweep], [p[metric] for p in sweep], marker=".", label=metric)
        axis.axvline(cells[name]["tips"]["threshold"], color="black", linewidth=0.8, linestyle=":")
        axis.set_title(name, fontsize=8)
        axis.set_xlabel("threshold (dotted: chosen)")
        axes[-1].plot([p["answer_size"] for p in sweep], [p["f1"] for p in sweep], marker=".", label=name[:34])
    axes[0].legend(frameon=False, fontsize=8)
    axes[-1].set_title("F1 against mean size of the answers", fontsize=8)
    axes[-1].set_xlabel("items a user")
    axes[-1].legend(frameon=False, fontsize=7)
    return drawn(figure)


def _times(times: Mapping[str, Any], rows: Mapping[str, Row]) -> str:
    """Milliseconds a user; thresholds of different models are brought together by the size of their answers."""
    figure, axes = new_figure(1, 2, (12, 4))
    for axis, way, title in zip(axes, ("paper", "ours"), ("the paper's procedure", "our search"), strict=True):
        for name, row in rows.items():
            line = [point for point in times["tips"] if point["row"] == name]
            if line and row.method in ("LightGCN", "HashLGN", "HashGNN"):
                style = "--" if row.how == "paper" else "-"
                axis.plot(
                    [point["mean size"] for point in line],
                    [1000 * point[f"{way} seconds"] / times["users"] for point in line],
                    style,
                    marker=".",
                    color=_COLOURS[row.method],
                    label=name,
                )
        axis.set_yscale("log")
        axis.set_title(title)
        axis.set_xlabel("mean size of the answers at the threshold")
        axis.set_ylabel("ms a user")
    axes[1].legend(frameon=False, fontsize=7)
    return drawn(figure)


def _quality(rows: Mapping[str, Row], cells: Cells, cut: str, against: str) -> str:
    figure, axes = new_figure(1, 2, (12, 4))
    last = list(next(iter(cells.values()))["mips"])[-1]
    for axis, metric in zip(axes, ("recall", "ndcg"), strict=True):
        for method, colour in _COLOURS.items():
            for marker, ours in (("o", True), ("x", False)):
                points = [
                    (8 * cells[name]["bytes_per_item"], cells[name]["mips"][cut][metric])
                    if against == "bytes"
                    else (
                        cells[name]["users"] / cells[name]["mips"][last]["search_seconds"],
                        cells[name]["mips"][cut][metric],
                    )
                    for name, row in rows.items()
                    if row.method == method and (row.how != "paper") == ours
                ]
                label = method + ("" if ours else ", paper's recipe")
                if points:
                    axis.scatter(*zip(*points, strict=True), marker=marker, color=colour, label=label)
        axis.set_xscale("log", base=2 if against == "bytes" else 10)
        axis.set_xlabel("bits an item" if against == "bytes" else f"users a second, top {last[1:]}")
        axis.set_title(f"{metric}{cut}")
    axes[0].legend(frameon=False, fontsize=7)
    return drawn(figure)
