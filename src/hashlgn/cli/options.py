"""What a person types: the options that several commands have, and the lists and columns in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashlgn.errors import ArgumentError

if TYPE_CHECKING:
    from hashlgn.data import Interactions

__all__ = [
    "Columns",
    "Config",
    "Data",
    "Device",
    "Format",
    "Json",
    "KCore",
    "MinRating",
    "Preset",
    "Quiet",
    "Set",
    "Threads",
    "column_options",
    "numbers",
    "read_data",
]

Data = Annotated[Path, typer.Argument(metavar="DATA", help="File or folder of interactions.", exists=True)]
Format = Annotated[str | None, typer.Option(help="lightgcn, movielens, recbole, csv or parquet; found out by default.")]
Columns = Annotated[str | None, typer.Option(help="Names or positions of columns, as user=who,item=what,rating=2.")]
MinRating = Annotated[float | None, typer.Option(help="Leave out interactions rated lower.")]
KCore = Annotated[int | None, typer.Option(help="Keep users and items with this many interactions.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads; all by default.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the results to this file.")]
Preset = Annotated[
    str | None, typer.Option(help="paper: the paper's own recipe; hashgnn: HashGNN. What else is given goes before it.")
]
Config = Annotated[Path | None, typer.Option(help="TOML file with [model] and [train].")]
Set = Annotated[list[str], typer.Option("--set", help="Any setting, as train.lr=0.01; may be repeated.")]


def numbers(name: str, text: str, kind: type) -> list[Any]:
    """Numbers separated by commas, as typed for option ``name``.

    Raises:
        ArgumentError: one is no number of that kind.
    """
    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ArgumentError(f"{name} must be numbers separated by commas (got {text!r})") from None


def column_options(text: str | None) -> dict[str, Any]:
    """Columns typed as ``user=who,item=2``, as ``read_interactions`` takes them.

    Raises:
        ArgumentError: it is not of that form.
    """
    pairs = [part.partition("=")[::2] for part in text.split(",")] if text else []
    if not all(role in ("user", "item", "rating", "time") and name for role, name in pairs):
        raise ArgumentError(f"columns must be user=…,item=…,rating=…,time=… or some of these (got {text!r})")
    return {role: int(name) if name.isdecimal() else name for role, name in pairs}


def read_data(path: Path, columns: str | None, **options: Any) -> Interactions:
    """Interactions, with columns as typed."""
    from hashlgn.data import read_interactions

    return read_interactions(path, **column_options(columns), **options)
