"""The commands of ``hashlgn bench``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from hashlgn.cli.options import Device, Json, Seed, Set, Threads, names, numbers, read_data, reads_data
from hashlgn.config import override_changes
from hashlgn.experiments.common.tables import table
from hashlgn.utils.console import say, write_json

bench_app = typer.Typer(help="Measure training, search and the service on this machine.", no_args_is_help=True)


@bench_app.command("call")
def bench_call(
    items: Annotated[int, typer.Option(min=100, help="Items of the made catalogue.")] = 1_000_000,
    users: Annotated[int, typer.Option(min=100, help="Users with a stored history.")] = 20_000,
    length: Annotated[int, typer.Option(min=1, help="Items of a history.")] = 50,
    k: Annotated[int, typer.Option(min=1, help="Items asked for.")] = 10,
    seconds: Annotated[float, typer.Option(help="How long each call is repeated.")] = 1.0,
    json_: Json = None,
) -> None:
    """Microseconds of one call from Python, beside the scan that it needs."""
    _run("call", locals())


@bench_app.command("gpu")
def bench_gpu(
    made: Annotated[int, typer.Option(min=1000, help="Made interactions to train on as well.")] = 10_000_000,
    seed: Seed = 0,
    json_: Json = None,
) -> None:
    """The default training on a GPU, beside the processor."""
    _run("gpu", locals() | {"say": _tell})


@bench_app.command("serve")
def bench_serve(
    items: Annotated[int, typer.Option(min=100, help="Items of the catalogue.")] = 1_000_000,
    users: Annotated[int, typer.Option(min=1, help="Users with stored histories.")] = 100_000,
    length: Annotated[int, typer.Option(min=1, help="Items per history.")] = 50,
    k: Annotated[int, typer.Option(min=1, help="Items asked for.")] = 10,
    seconds: Annotated[float, typer.Option(help="Length of each measurement.")] = 5.0,
    connections: Annotated[int, typer.Option(min=1, help="Connections that are kept open.")] = 64,
    baselines: Annotated[
        str,
        typer.Option(
            help="Of fastapi-implicit, cornac, uvicorn, granian; or none.  [default: fastapi-implicit,cornac]"
        ),
    ] = "",
    threads: Threads = 1,
    json_: Json = None,
) -> None:
    """The service under load from a second process, beside FastAPI with implicit's ALS, and Cornac's server."""
    _run("serve", locals() | {"threads": threads or 1}, lists=("baselines",))


@bench_app.command("train")
def bench_train(
    data: Annotated[Path | None, typer.Option(help="Interactions; made ones by default.")] = None,
    sizes: Annotated[
        str, typer.Option("--synthetic", help="Numbers of interactions to make, separated by commas.")
    ] = "1000000",
    variants: Annotated[
        str,
        typer.Option(help="What to measure, separated by commas; reference is LightGCN's own.  [default: all ours]"),
    ] = "",
    seconds: Annotated[float, typer.Option(help="How long to run each.")] = 20.0,
    set_: Set = [],  # noqa: B006
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "auto",
    json_: Json = None,
) -> None:
    """Time and memory of training by size; each measurement in a process of its own."""
    _run("train", locals() | {"say": _tell}, lists=("variants",), integers={"sizes": "synthetic"})


@bench_app.command("stream")
@reads_data
def bench_stream(
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="Interactions with times; made ones by default.")
    ] = None,
    interactions: Annotated[int, typer.Option(min=100, help="Number of made interactions.")] = 100_000,
    methods: Annotated[
        str,
        typer.Option(
            help="never, users, users and items, refit, train anew, ALS, popular; separated by commas.  [default: all]"
        ),
    ] = "",
    start: Annotated[float, typer.Option(help="Share of the interactions that is trained on.")] = 0.5,
    periods: Annotated[int, typer.Option(min=1, help="Parts of the rest.")] = 5,
    k: Annotated[int, typer.Option(min=1, help="Items of an answer.")] = 20,
    set_: Set = [],  # noqa: B006
    seed: Seed = 0,
    threads: Threads = None,
    json_: Json = None,
    plot: Annotated[Path | None, typer.Option(help="Draw recall by period: .png or .svg.")] = None,
    *,
    reading: dict[str, Any],
) -> None:
    """Replay interactions by time: answer, then learn; a model that changes beside refits and baselines."""
    typed = locals()
    from hashlgn.experiments.benchmarks.stream import draw
    from hashlgn.experiments.common.page import check_plot

    check_plot(plot)
    result = _run("stream", typed | {"say": _tell}, lists=("methods",))
    if plot is not None:
        draw(plot, result)


@bench_app.command("held-back")
@reads_data
def bench_held_back(
    data: Annotated[str, typer.Argument(help="Interactions.")],
    counts: Annotated[
        str, typer.Option(help="Interactions of an added item, separated by commas; 0: it starts by its genres.")
    ] = "1,2,5,10,20,50",
    share: Annotated[float, typer.Option(help="Share of the items that is held back.")] = 0.05,
    k: Annotated[int, typer.Option(min=1, help="Items of an answer.")] = 50,
    set_: Set = [],  # noqa: B006
    seed: Seed = 0,
    threads: Threads = None,
    json_: Json = None,
    *,
    reading: dict[str, Any],
) -> None:
    """Recall for items that are added to a trained model, beside a training that knew them."""
    _run("held_back", locals() | {"say": _tell}, integers={"counts": "counts"})


@bench_app.command("search")
def bench_search(
    items: Annotated[str, typer.Option(help="Sizes of the catalogues, separated by commas.")] = "20000",
    bits: Annotated[str, typer.Option(help="Lengths of code, separated by commas.")] = "64,128",
    dims: Annotated[str, typer.Option(help="Lengths of float vectors; ratios are to the shortest.")] = "64",
    ks: Annotated[str, typer.Option("--k", help="Numbers of items a query, separated by commas.")] = "10,100",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Queries a batch.  [default: 256; all users of saved models]")
    ] = None,
    singles: Annotated[int, typer.Option(min=1, help="Queries asked one a call.")] = 50,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds, of which the median counts.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads, of everything that is measured.")] = 1,
    searchers: Annotated[str, typer.Option(help="Our searchers, separated by commas.  [default: all but exact]")] = "",
    baselines: Annotated[
        str, typer.Option(help="Others' indexes, separated by commas, or none.  [default: all installed]")
    ] = "",
    trained: Annotated[
        bool, typer.Option("--trained", help="Search catalogues trained on made-up interactions, not random ones.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder where trained catalogues are kept.")] = None,
    models: Annotated[
        list[Path], typer.Option("--model", help="Folder of a saved model, searched instead; may be repeated.")
    ] = [],  # noqa: B006
    test: Annotated[Path | None, typer.Option("--data", help="Held-out interactions for the saved models.")] = None,
    seed: Seed = 0,
    json_: Json = None,
    plot: Annotated[Path | None, typer.Option(help="Draw agreement or quality against speed: .png or .svg.")] = None,
) -> None:
    """Time and evaluate our searchers and others' indexes, over codes and floats, in one run."""
    typed = locals()
    from hashlgn.experiments.benchmarks.search.report import draw, tables
    from hashlgn.experiments.common.page import check_plot

    check_plot(plot)
    integers = {"items": "items", "bits": "bits", "dims": "dims", "ks": "k"}
    lists = ("searchers", "baselines")
    result = _run("search.bench", typed | {"say": _tell}, lists=lists, integers=integers, text=tables)
    if plot is not None:
        draw(plot, result["rows"])


def _run(
    name: str,
    typed: Mapping[str, Any],
    *,
    lists: Sequence[str] = (),
    integers: Mapping[str, str] = MappingProxyType({}),
    text: Callable[[Any], str] = table,
) -> dict[str, Any]:
    """Call ``bench_NAME`` of the module NAME with what was typed, print its table, and write its results.

    ``lists`` are options that hold names: nothing typed means all, and ``none`` means none of them. ``integers`` are
    options that hold numbers, and what they are called on the command line.
    """
    given = {key: value for key, value in typed.items() if key not in ("json_", "plot", "reading", "set_")}
    given |= {key: [] if given[key] == "none" else names(given[key]) or None for key in lists}
    given |= {key: numbers(option, given[key], int) for key, option in integers.items()}
    if "set_" in typed:
        given["changes"] = override_changes(typed["set_"])
    if "reading" in typed and given["data"] is not None:
        given["data"] = read_data(given["data"], **typed["reading"])
    module = importlib.import_module(f"hashlgn.experiments.benchmarks.{name}")
    result: dict[str, Any] = getattr(module, f"bench_{name.partition('.')[0]}")(**given)
    if "rows" in result:
        typer.echo(text(result["rows"]))
    if typed["json_"] is not None:
        write_json(typed["json_"], result)
    return result


def _tell(line: str) -> None:
    say(False, line)
