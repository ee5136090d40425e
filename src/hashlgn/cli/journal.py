"""The commands of ``hashlgn events`` and ``hashlgn keys``, and ``hashlgn report-split``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hashlgn.cli.options import Json, Seed
from hashlgn.errors import DataError, counted
from hashlgn.utils.console import say, write_json

events_app = typer.Typer(help="Events of a service: in, out, and to a safe place.", no_args_is_help=True)
keys_app = typer.Typer(help="Keys that let clients of a service in.", no_args_is_help=True)

Journal = Annotated[Path, typer.Argument(metavar="JOURNAL", help="The journal of a service.")]
Keys = Annotated[Path, typer.Option(help="The file of keys.")]
_SHOWN = 3  # rejected rows that a message names


@events_app.command("export")
def events_export(
    journal: Journal,
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
) -> None:
    """Write all events to a Parquet file; the service may go on."""
    from hashlgn.serve.journal.transfer import export_events

    say(False, f"wrote {counted(export_events(journal, out), 'event')} to {out}")


@events_app.command("import")
def events_import(
    journal: Journal,
    source: Annotated[
        Path, typer.Argument(metavar="EVENTS", help="Parquet file: user, item; event_id, type, weight, time.")
    ],
) -> None:
    """Add the events of a Parquet file to a journal, which no service has open; a second time changes nothing."""
    from hashlgn.serve.journal.transfer import import_events

    outcome = import_events(journal, source)
    say(False, f"added {counted(outcome.accepted, 'event')} to {journal}; {outcome.duplicates:,} were there")
    if outcome.rejected:
        listed = "; ".join(f"row {row}: {why}" for row, why in outcome.rejected[:_SHOWN])
        raise DataError(f"{source}: {counted(len(outcome.rejected), 'row')} cannot be read as events ({listed})")


@events_app.command("backup")
def events_backup(
    journal: Journal,
    out: Annotated[Path, typer.Option(help="File to write; one that is there is replaced.")],
) -> None:
    """Copy a journal as of one moment; the service may go on."""
    from hashlgn.serve.journal.transfer import backup

    backup(journal, out)
    say(False, f"wrote a copy of {journal} to {out}")


@events_app.command("recover")
def events_recover(
    journal: Journal,
    out: Annotated[Path, typer.Option(help="The new journal.")],
) -> None:
    """Copy what can still be read of a damaged journal to a new one."""
    from hashlgn.serve.journal.transfer import recover

    count, lost = recover(journal, out)
    unread = counted(lost, "row")
    say(False, f"copied {counted(count, 'event')} to {out}; {unread} could not be read or had been deleted")


@keys_app.command("create")
def keys_create(
    file: Keys,
    scope: Annotated[str, typer.Option(help="What it allows: read; write, and read; or admin, everything.")],
    name: Annotated[
        str | None, typer.Option(help="What it is called.  [default: scope and a part of the hash]")
    ] = None,
) -> None:
    """Make a key, add its hash to a file, and print the key: this once."""
    from hashlgn.serve.keys import create_key

    secret, key = create_key(file, scope, name)
    typer.echo(secret)
    say(False, f"{key.name} is in {file}; the key is nowhere else")


@keys_app.command("list")
def keys_list(file: Keys) -> None:
    """Print name, scope and time of each key."""
    from hashlgn.serve.keys import read_keys

    for key in read_keys(file):
        typer.echo(f"{key.name}\t{key.scope}\t{key.created}")


@keys_app.command("revoke")
def keys_revoke(
    file: Keys,
    name: Annotated[str, typer.Option(help="Name of the key.")],
) -> None:
    """Take a key out of a file; a service lets it in no more."""
    from hashlgn.serve.keys import revoke_key

    revoke_key(file, name)
    say(False, f"{name} is no longer in {file}")


def report_split(
    journal: Journal,
    window: Annotated[float, typer.Option(help="Seconds after an answer in which an event counts for it.")] = 86_400,
    samples: Annotated[int, typer.Option(min=1, help="Resamples of the bootstrap.")] = 1000,
    seed: Seed = 0,
    json_: Json = None,
) -> None:
    """Compare the models of a split: how often users acted on an item that they had been shown."""
    from hashlgn.serve.splits import report_split as report

    result = report(journal, window=window, samples=samples, seed=seed)
    typer.echo(f"{'arm':>12}  {'users':>8}  {'answers':>9}  hit rate (95%)             difference (95%)")
    for arm, found in result["arms"].items():
        line = f"{arm:>12}  {found['users']:8,}  {found['answers']:9,}  {_with_interval(found, 'hit_rate', 'interval')}"
        if "difference" in found:
            line += f"  {_with_interval(found, 'difference', 'difference_interval')}"
        typer.echo(line)
    if json_ is not None:
        write_json(json_, result)


def _with_interval(found: dict[str, Any], value: str, interval: str) -> str:
    low, high = found[interval]
    return f"{found[value]:7.4f} ({low:7.4f} … {high:7.4f})"
