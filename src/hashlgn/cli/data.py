"""The commands of ``hashlgn data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hashlgn.cli.options import Data, Json, read_data, reads_data
from hashlgn.utils.console import write_json

__all__ = ["counts", "data_app"]

data_app = typer.Typer(help="Get, describe or make data.", no_args_is_help=True)


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a published data set, such as ml-1m.")],
) -> None:
    """Download a published data set into the cache folder, its checksum verified."""
    from hashlgn.data.download import download

    typer.echo(str(download(name)))


@data_app.command("stats")
@reads_data
def data_stats(data: Data, json_: Json = None, *, reading: dict[str, Any]) -> None:
    """Count users, items and interactions."""
    interactions = read_data(data, quiet=False, **reading)
    stats = interactions.stats() | {"fingerprint": interactions.fingerprint()}
    for name, value in stats.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {number:,.4g}" for key, number in value.items())
        elif isinstance(value, float):
            value = f"{value:.4g}"
        typer.echo(f"{name:>16}  {value:,}" if isinstance(value, int) else f"{name:>16}  {value}")
    if json_ is not None:
        write_json(json_, stats)


@data_app.command("synth")
def data_synth(
    users: Annotated[int, typer.Option(min=1, help="Number of users.")],
    items: Annotated[int, typer.Option(min=1, help="Number of items.")],
    interactions: Annotated[int, typer.Option(min=1, help="Number of interactions.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    seed: Annotated[int, typer.Option(help="Fixes every draw.")] = 0,
) -> None:
    """Make a catalogue with planted clusters and power-law popularity, split 80/20 per user."""
    from hashlgn.data import random_ratio
    from hashlgn.data.synthetic import synthetic, write_lightgcn

    parts = random_ratio(synthetic(users, items, interactions, seed=seed), seed=seed)
    write_lightgcn(out, *parts)
    typer.echo(f"wrote {counts(parts[0])} to train, {len(parts[1]):,} interactions to test, in {out}")


def counts(data: Any) -> str:
    """How much there is, in words."""
    return f"{data.n_users:,} users, {data.n_items:,} items, {len(data):,} interactions"
