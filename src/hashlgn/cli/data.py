"""The commands of ``hashlgn data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from hashlgn.cli.options import Data, Json, Seed, read_data, reads_data
from hashlgn.errors import ArgumentError, choose, counted, shown
from hashlgn.utils.console import write_json
from hashlgn.utils.storage import reason

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


@data_app.command("split")
@reads_data
def data_split(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder to write: train.parquet and test.parquet.")],
    how: Annotated[
        str,
        typer.Option(
            help="ratio: a share of each user; leave-last: the latest of each user; time: the latest of all; "
            "users: users who are left out of training, and part of their histories (given.parquet too)."
        ),
    ] = "ratio",
    share: Annotated[float | None, typer.Option(help="Of interactions or users.  [default: 0.2, users 0.1]")] = None,
    seed: Seed = 0,
    *,
    reading: dict[str, Any],
) -> None:
    """Split interactions into files: training and test, or training, given histories and test; titles of items, where
    there are any, into items.parquet, for --items.
    """
    from hashlgn.data import global_time, leave_last, leave_users, random_ratio
    from hashlgn.inference.tables import RowWriter, Table

    ways = {
        "ratio": lambda whole: random_ratio(whole, 0.2 if share is None else share, seed=seed),
        "leave-last": lambda whole: leave_last(whole, share=share),
        "time": lambda whole: global_time(whole, 0.2 if share is None else share),
        "users": lambda whole: leave_users(whole, 0.1 if share is None else share, seed=seed),
    }
    split = choose("how", how, ways)
    whole = read_data(data, quiet=False, **reading)
    parts = split(whole)
    names = ("train", "given", "test") if len(parts) == 3 else ("train", "test")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"out must be a folder to write to (got {shown(str(out))}: {reason(error)})") from error
    for name, part in zip(names, parts, strict=True):
        columns = part.to_arrow()
        if "rating" in columns.column_names:  # who reads the file is not to filter by it again
            columns = columns.drop_columns(["rating"])
        with RowWriter(out / f"{name}.parquet") as writer:
            writer.write(Table({column: columns[column].to_numpy() for column in columns.column_names}))
    lengths = ", ".join(f"{len(part):,} to {name}" for name, part in zip(names, parts, strict=True))
    typer.echo(f"wrote interactions: {lengths}, in {out}")
    if whole.titles is not None:
        about: dict[str, Any] = {
            "item": whole.item_ids.decode(np.arange(whole.n_items)),
            "title": np.array(whole.titles),
        }
        if whole.genres is not None:
            about["genres"] = np.array(["|".join(genres) for genres in whole.genres])
        with RowWriter(out / "items.parquet") as writer:
            writer.write(Table(about))
        typer.echo(f"wrote titles of {whole.n_items:,} items: --items {out / 'items.parquet'} reads them")


@data_app.command("synth")
def data_synth(
    users: Annotated[int, typer.Option(min=1, help="Number of users.")],
    items: Annotated[int, typer.Option(min=1, help="Number of items.")],
    interactions: Annotated[int, typer.Option(min=1, help="Number of interactions.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    seed: Seed = 0,
) -> None:
    """Make a catalogue with planted clusters and power-law popularity, split 80/20 per user."""
    from hashlgn.data import random_ratio
    from hashlgn.data.synthetic import synthetic, write_lightgcn

    parts = random_ratio(synthetic(users, items, interactions, seed=seed), seed=seed)
    write_lightgcn(out, *parts)
    typer.echo(f"wrote {parts[0].sizes} to train, {counted(len(parts[1]), 'interaction')} to test, in {out}")
