"""The commands of ``hashlgn bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hashlgn.console import say, write_json
from hashlgn.experiments import table
from hashlgn.options import Json, Set, Threads, numbers

__all__ = ["bench_app"]

bench_app = typer.Typer(help="Measure reading, training and search on this machine.", no_args_is_help=True)


@bench_app.command("read")
def bench_read(
    rows: Annotated[int, typer.Option(min=1, help="Interactions to read in each format.")] = 5_000_000,
    json_: Json = None,
) -> None:
    """Rows a second and memory of reading, by format."""
    from hashlgn.experiments.bench_read import bench_read

    _show(bench_read(rows=rows), json_)


@bench_app.command("train")
def bench_train(
    data: Annotated[Path | None, typer.Option(help="Interactions; made ones by default.", exists=True)] = None,
    synthetic: Annotated[str, typer.Option(help="Numbers of interactions to make, separated by commas.")] = "1000000",
    sides: Annotated[
        str,
        typer.Option(help="What to measure, separated by commas; reference and pyg are others'.  [default: all ours]"),
    ] = "",
    seconds: Annotated[float, typer.Option(help="How long to run each.")] = 20.0,
    target: Annotated[
        float | None, typer.Option(help="Instead of timing steps: run until this Recall@20 on validation.")
    ] = None,
    set_: Set = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Fixes every draw.")] = 0,
    threads: Threads = None,
    json_: Json = None,
) -> None:
    """Time and memory of training by size, or time to a quality; each measurement in a process of its own."""
    from hashlgn.config import override_changes
    from hashlgn.experiments.bench_train import SIDES, bench_train

    result = bench_train(
        data,
        sizes=numbers("synthetic", synthetic, int),
        sides=[side.strip() for side in sides.split(",") if side.strip()] or tuple(SIDES),
        seconds=seconds,
        target=target,
        threads=threads,
        seed=seed,
        changes=override_changes(set_),
        say=lambda line: say(False, line),
    )
    _show(result, json_)


@bench_app.command("search")
def bench_search(
    items: Annotated[int, typer.Option(min=16, help="Size of the catalogue.")] = 100_000,
    queries: Annotated[int, typer.Option(min=1, help="Queries a batch.")] = 1000,
    bits: Annotated[int, typer.Option(help="Length of a code.")] = 128,
    dim: Annotated[int, typer.Option(min=1, help="Length of a float vector.")] = 64,
    k: Annotated[int, typer.Option(min=1, help="Number of items a query.")] = 100,
    repeats: Annotated[int, typer.Option(min=1, help="Runs, of which the median counts.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
    json_: Json = None,
) -> None:
    """Time a query of every searcher, codes against float vectors, exclusion included."""
    from hashlgn.experiments.bench_search import bench_search

    _show(bench_search(items=items, queries=queries, bits=bits, dim=dim, k=k, repeats=repeats, threads=threads), json_)


def _show(result: dict[str, Any], json_: Path | None) -> None:
    typer.echo(table(result["rows"]))
    if json_ is not None:
        write_json(json_, result)
