"""Pages and figures: one HTML file that needs nothing else, with its plots drawn into it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from hashlgn.errors import need
from hashlgn.experiments.common.tables import write_text

__all__ = ["drawn", "new_figure", "write_page"]


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> None:
    """Fill a template of ``experiments/common/templates``, and write it.

    Raises:
        MissingExtraError: Jinja is not installed.
    """
    jinja = need("jinja2", "report", "the page")
    sources = files("hashlgn.experiments.common").joinpath("templates")
    names = ("base.html", template)
    loader = jinja.DictLoader({name: sources.joinpath(name).read_text("utf-8") for name in names})
    write_text(path, jinja.Environment(loader=loader, autoescape=True).get_template(template).render(**values))


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """A figure and the list of its axes, without frames above and to the right.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    need("matplotlib", "report", "the plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def drawn(figure: Any) -> str:
    """The figure as a data address for an image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
