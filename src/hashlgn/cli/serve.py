"""The command ``hashlgn serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hashlgn.cli.options import Threads
from hashlgn.errors import ArgumentError

__all__ = ["serve"]


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
) -> None:
    """Serve models over HTTP, with a page at /; SIGTERM finishes what was begun."""
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
        log=not quiet,
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
