"""Pages and figures: one HTML file that needs nothing else, with its plots drawn into it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from hashlgn.errors import ArgumentError, need
from hashlgn.evaluation.calibration import Reliability
from hashlgn.experiments.common.tables import write_text
from hashlgn.utils.storage import result_file


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> None:
    """Fill a template of ``experiments/common/templates``, and write it."""
    jinja = need("jinja2", "report", "the page")
    sources = files("hashlgn.experiments.common").joinpath("templates")
    names = ("base.html", template)
    loader = jinja.DictLoader({name: sources.joinpath(name).read_text("utf-8") for name in names})
    write_text(path, jinja.Environment(loader=loader, autoescape=True).get_template(template).render(**values))


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """A figure and the list of its axes, without frames above and to the right."""
    need("matplotlib", "report", "the plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def check_plot(path: Path | None) -> None:
    """Refuse a plot that cannot be drawn there, before the run that it is to show."""
    if path is not None:
        if path.suffix not in (".png", ".svg"):
            raise ArgumentError(f"plot must end in .png or .svg (got {str(path)!r})")
        need("matplotlib", "report", "the plot")


def write_figure(path: Path, figure: Any) -> None:
    """Write a figure as the name of the file says, whole or not at all."""
    metadata = {"Software": None} if path.suffix == ".png" else {"Date": None}
    with result_file("plot", path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120, metadata=metadata)


def drawn(figure: Any) -> str:
    """The figure as a data address for an image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def reliability_plot(chances: Reliability) -> str:
    """Observed against predicted; dots on the line are right."""
    figure, (axis,) = new_figure(1, 1, (4.5, 3.6))
    top = 1.05 * max(chances.predicted.max(), chances.observed.max())
    axis.plot([0, top], [0, top], color="#c3c9d1", linewidth=1)
    axis.plot(chances.predicted, chances.observed, marker="o", color="#1f6f8b")
    axis.set(xlabel="predicted probability", ylabel="share of test interactions")
    return drawn(figure)
