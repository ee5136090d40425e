"""The command ``hashlgn serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hashlgn.cli.options import Threads
from hashlgn.errors import ArgumentError
from hashlgn.serve.limits import Limits


def serve(
    models: Annotated[
        list[Path] | None, typer.Argument(metavar="[MODEL]...", help="Saved models; the first one answers.")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="File of the events; without it histories are those of the training.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; any free one where 0.")] = 8765,
    keys: Annotated[Path | None, typer.Option(help="File of the keys; without it everybody may do everything.")] = None,
    watch: Annotated[Path | None, typer.Option(help="Folder whose newest model is activated by itself.")] = None,
    split: Annotated[
        str, typer.Option(help="Shares of the traffic by names of models, as a=0.9,b=0.1; needs a journal to compare.")
    ] = "",
    demo: Annotated[bool, typer.Option("--demo", help="Serve a model of movies; trained where there is none.")] = False,
    threads: Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No line of JSON per request.")] = False,
    telemetry: Annotated[
        bool,
        typer.Option("--telemetry", envvar="HASHLGN_TELEMETRY", help="Send spans of OpenTelemetry, by OTLP over HTTP."),
    ] = False,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a body.")] = Limits.body,
    max_head: Annotated[int, typer.Option(min=64, help="Bytes of address and headers.")] = Limits.head,
    max_k: Annotated[int, typer.Option(min=1, help="Items of an answer.")] = Limits.k,
    max_batch: Annotated[int, typer.Option(min=1, help="Members of a batch.")] = Limits.batch,
    max_list: Annotated[int, typer.Option(min=1, help="Items of a history or list that is sent.")] = Limits.list,
    max_events: Annotated[int, typer.Option(min=1, help="Events of one request.")] = Limits.events,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that wait to be answered.")] = Limits.waiting,
    max_wait: Annotated[float, typer.Option(min=0.01, help="Seconds that a request waits.")] = Limits.wait,
    max_send: Annotated[float, typer.Option(min=0.1, help="Seconds to send a request in.")] = Limits.send,
    max_idle: Annotated[
        float,
        typer.Option(
            min=0.1, help="Seconds before an idle connection, or one that does not read its answer, is closed."
        ),
    ] = Limits.idle,
    max_connections: Annotated[int, typer.Option(min=1, help="Open connections.")] = Limits.connections,
) -> None:
    """Serve models over HTTP, with a page at /; SIGTERM finishes what was begun."""
    limits = Limits(**{name[4:]: value for name, value in locals().items() if name.startswith("max_")})
    from hashlgn.serve.server import serve

    if watch is not None and not watch.is_dir():
        raise ArgumentError(f"watch must be a folder (got {str(watch)!r})")
    found = list(models or [])
    if demo:
        from hashlgn.experiments.demo import demo_model

        found.append(demo_model(Path("hashlgn-demo"), threads=threads))
    serve(
        found,
        host=host,
        port=port,
        journal=journal,
        keys=keys,
        watch=watch,
        split=_shares(split),
        threads=threads,
        limits=limits,
        log=not quiet,
        telemetry=telemetry,
    )


def _shares(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, share = part.partition("=")
        try:
            found[name.strip()] = float(share)
        except ValueError:
            found[name.strip()] = -1.0
        if not 0 < found[name.strip()] < 1e9:
            raise ArgumentError(f"split must be shares such as a=0.9,b=0.1 (got {part!r})")
    return found
