"""The demonstration as one HTML file that needs nothing else: plots and bit patterns are drawn into it."""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from pathlib import Path
from typing import Any

from hashlgn.errors import need
from hashlgn.utils.storage import replaced_file

__all__ = ["drawn", "new_figure", "write_page"]

_FLOAT, _PAPER, _CODEBOOK = "#5b6472", "#c9772b", "#1f6f8b"


def write_page(path: Path, results: dict[str, Any], codes: list[dict[str, Any]]) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        results: what ``demo`` collected.
        codes: items with title, bits, and whether a group of similar items begins there.

    Raises:
        MissingExtraError: matplotlib or Jinja is not installed.
    """
    jinja = need("jinja2", "report", "the page")
    source = files("hashlgn.experiments.common").joinpath("page.html").read_text("utf-8")
    rows = results["models"]
    text = (
        jinja.Environment(autoescape=True)
        .from_string(source)
        .render(
            **results,
            columns=list(rows[0]),
            quality=_quality(rows),
            times=_times(rows),
            codes=_codes(codes),
        )
    )
    with replaced_file(path) as temporary:
        temporary.write_text(text, "utf-8")


def _quality(rows: list[dict[str, Any]]) -> str:
    """Recall and NDCG at 50 against bytes per item."""
    figure, axes = new_figure(1, 2, (9, 3.4))
    for axis, metric in zip(axes, ("recall@50", "ndcg@50"), strict=True):
        for kind, colour in (("floats", _FLOAT), ("paper", _PAPER), ("codebook", _CODEBOOK)):
            points = [(row["bytes/item"], row[metric]) for row in rows if kind in row["model"]]
            axis.plot(*zip(*points, strict=True), marker="o", color=colour, label=_label(kind))
        axis.set_xscale("log", base=2)
        sizes = sorted({row["bytes/item"] for row in rows})
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axis.minorticks_off()
        axis.set_xlabel("bytes per item")
        axis.set_title(metric.replace("recall", "Recall").replace("ndcg", "NDCG"))
    axes[0].legend(frameon=False)
    return drawn(figure)


def _times(rows: list[dict[str, Any]]) -> str:
    """Search time by model."""
    figure, axis = new_figure(1, 1, (9, 2.6))
    colours = [_FLOAT if "floats" in r["model"] else _PAPER if "paper" in r["model"] else _CODEBOOK for r in rows]
    bars = axis.barh([row["model"] for row in rows], [row["search ms"] for row in rows], color=colours)
    axis.bar_label(bars, fmt="%.0f ms", padding=3)
    axis.invert_yaxis()
    axis.set_xlabel("top 100 for all test users, ms")
    return drawn(figure)


def _codes(rows: list[dict[str, Any]]) -> str:
    """One line of bits an item; a popular item first, its nearest neighbours below it."""
    if not rows:
        return ""
    figure, axis = new_figure(1, 1, (11, 0.26 * len(rows) + 0.5))
    axis.imshow(
        [row["bits"] for row in rows], aspect="auto", cmap="Blues", interpolation="nearest", vmin=-0.3, vmax=1.2
    )
    labels = [(row["title"] or f"item {row['item']}")[:42] for row in rows]
    axis.set_yticks(range(len(rows)), labels, fontsize=8)
    for tick, row in zip(axis.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row["anchor"] else "normal")
    for place, row in enumerate(rows):
        if row["anchor"] and place:
            axis.axhline(place - 0.5, color="black", linewidth=1.2)
    axis.set_xticks(range(0, len(rows[0]["bits"]) + 1, 16))
    axis.set_xlabel("bit")
    axis.tick_params(length=0)
    return drawn(figure)


def _label(kind: str) -> str:
    return {"floats": "LightGCN, floats", "paper": "HashLGN, the paper's decoder"}.get(
        kind, "HashLGN, codebook decoder"
    )


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> Any:
    """A figure and its axes, without frames above and to the right.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    need("matplotlib", "report", "the page's plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns)
    for axis in [axes] if rows == columns == 1 else axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def drawn(figure: Any) -> str:
    """The figure as a data address for an image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
