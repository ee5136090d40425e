"""The command line. Exit code 0 for done, 1 for failed work, 2 for bad usage; an error is one line."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from hashlgn.cli.bench import bench_app
from hashlgn.cli.data import data_app
from hashlgn.cli.doctor import doctor
from hashlgn.cli.export import export
from hashlgn.cli.journal import events_app, keys_app, report_split
from hashlgn.cli.options import (
    Json,
    Quiet,
    Seed,
    Threads,
    load_installed_plugins,
    load_plugin,
    names,
    numbers,
    read_data,
    reads_data,
)
from hashlgn.cli.serve import serve
from hashlgn.cli.studies import experiment_app, reproduce, tune
from hashlgn.cli.train import refit, train
from hashlgn.errors import ArgumentError, counted, k_or_threshold, shown
from hashlgn.utils.console import exit_code, named, output, say, write_json
from hashlgn.utils.storage import reason

app = typer.Typer(
    name="hashlgn",
    help="Recommendations from bits: train, evaluate, recommend, measure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.add_typer(experiment_app, name="experiment")
app.add_typer(events_app, name="events")
app.add_typer(keys_app, name="keys")
for _command in (train, refit, tune):
    app.command()(_command)

_BITS = {"bits": "", "history_bits": " in histories"}
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model.")]


@app.command()
@reads_data
def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A saved model, or a file of answers: .csv, .tsv, .parquet, .jsonl.")
    ],
    test: Annotated[str, typer.Option(help="Held-out interactions; of a folder, its test.txt.")],
    train: Annotated[str | None, typer.Option(help="For a file of answers: what the users had seen.")] = None,
    k: Annotated[str, typer.Option(help="Cutoffs, separated by commas.")] = "20,50,100",
    threshold: Annotated[str, typer.Option(help="Thresholds for threshold search, separated by commas.")] = "",
    metrics: Annotated[
        str, typer.Option(help="Names separated by commas, as recall,ndcg,novelty; those of accuracy by default.")
    ] = "",
    history: Annotated[
        str | None, typer.Option(help="What the test's users are answered by, in place of the stored histories.")
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Also by group of users and of items, and the reliability table.")
    ] = False,
    json_: Json = None,
    engine: Annotated[str, typer.Option(help="auto, kernel, ivf, fastscan, decoded, flat or exact.")] = "auto",
    threads: Threads = None,
    *,
    reading: dict[str, Any],
) -> None:
    """Rank the whole catalogue for every test user, what they have in training masked, and evaluate the answers."""
    from hashlgn.evaluation.answers import FILES
    from hashlgn.evaluation.full_ranking import QUALITY, evaluate
    from hashlgn.evaluation.tables import text_table
    from hashlgn.inference.recommender import load
    from hashlgn.utils.provenance import provenance

    cutoffs, thresholds = numbers("k", k, int), numbers("threshold", threshold, float)
    answers: Any = model if model.suffix in FILES else load(model, engine=engine, threads=threads)
    held_out = read_data(test, test=True, **reading)
    seen, given = (None if source is None else read_data(source, **reading) for source in (train, history))
    chosen = names(metrics) or QUALITY
    result = evaluate(answers, held_out, cutoffs, threshold=thresholds, metrics=chosen, train=seen, history=given)
    typer.echo(str(result))
    if details:
        typer.echo("\n" + text_table(result.group_rows()))
        if result.reliability is not None:
            typer.echo(f"\n{result.reliability}")
    for count, what in (
        (result.dropped.interactions, "have a user or item that the training does not know"),
        (result.seen, "are in the training too"),
    ):
        if count:
            output.print(f"left out: {count:,} test interactions {what}")
    if isinstance(answers, Path) and result.no_hit():
        output.print("no answer is in the test part: are these the right files?")
    if json_ is not None:
        about = str(model) if isinstance(answers, Path) else answers.info()
        answer = {"model": about, "test": {"fingerprint": held_out.fingerprint()}}
        write_json(json_, answer | result.to_dict() | provenance(threads=threads))


@app.command()
def recommend(
    model: Model,
    out: Annotated[
        Path | None, typer.Option(help="File to write: .parquet, .csv or .jsonl. One that is there is replaced.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Print the answer of this one user, in place of a file.")] = None,
    history: Annotated[
        str | None, typer.Option(help="The same of somebody new who has these items, with commas between their ids.")
    ] = None,
    k: Annotated[
        int | None, typer.Option(help="Number of items per user.  [default: 100 in a file, 10 in print]")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Instead: every item with a greater score.")] = None,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Write a column of probabilities; the threshold is one of them.")
    ] = False,
    users: Annotated[Path | None, typer.Option(help="File with one user id per line; all by default.")] = None,
    on_unknown: Annotated[str, typer.Option(help="Ids that the model does not know: raise or skip.")] = "raise",
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Do not leave out what users have seen.")] = False,
    titles: Annotated[
        bool, typer.Option("--titles", help="Write a column of titles, where the model has them.")
    ] = False,
    engine: Annotated[str, typer.Option(help="auto, kernel, ivf, fastscan, decoded, flat or exact.")] = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Write the best items of every user, or print those of one user or of one history.

    A file has columns user, item, score, rank and source, and what else is asked for.
    """
    from hashlgn.inference.recommender import load
    from hashlgn.inference.tables import RowWriter

    given = [name for name, value in (("--out", out), ("--user", user), ("--history", history)) if value is not None]
    if len(given) != 1:
        raise ArgumentError(f"recommend needs one of --out, --user and --history (got {' and '.join(given) or 'none'})")
    if users is not None and out is None:
        raise ArgumentError(f"users must come with --out, not with {given[0]} (got {shown(str(users))})")
    bounds = k_or_threshold(k, threshold, default=100 if out is not None else 10)
    recommender = load(model, engine=engine, threads=threads)
    if out is None:  # titles are printed wherever there are any
        found = recommender.recommend(
            None if user is None else [user],
            bounds[0],
            history=None if history is None else history.split(","),
            threshold=bounds[1],
            filter_seen=not keep_seen,
            on_unknown=on_unknown,
            calibrated=calibrated,
            titles=False,
        )
        _listed(recommender, found, "item", "probability" if calibrated else "score")
        if not len(found):
            say(quiet, "no recommendation: the model knows nothing of whom it was asked for, or no item passes")
        elif "popular" in found["source"].tolist():
            say(quiet, "these are what most users have, by their number: the model knows no item of the history")
        return
    wanted = None if users is None else _ids(users)
    began, rows = time.perf_counter(), 0
    batches = recommender.recommend_batches(
        wanted,
        bounds[0],
        threshold=bounds[1],
        filter_seen=not keep_seen,
        on_unknown=on_unknown,
        calibrated=calibrated,
        titles=titles,
    )
    with RowWriter(out) as writer:
        for table in batches:
            writer.write(table)
            rows += len(table)
    unknown = sum(recommender.model.user_ids.encode(wanted or [], on_unknown="mark") < 0)
    left_out = f"; left out {counted(unknown, 'user')} whom the model does not know" if unknown else ""
    say(quiet, f"wrote {counted(rows, 'recommendation')} to {out} in {time.perf_counter() - began:.1f} s{left_out}")


@app.command()
def similar(
    model: Model,
    item: Annotated[str, typer.Option(help="Id of an item.")],
    k: Annotated[int | None, typer.Option(help="Number of neighbours.  [default: 10]")] = None,
    threshold: Annotated[float | None, typer.Option(help="Instead: every item with a greater cosine.")] = None,
) -> None:
    """Print the items most similar to one item."""
    from hashlgn.inference.recommender import load

    recommender = load(model)
    ids = recommender.model.item_ids
    found = recommender.similar_items([item], k, threshold=threshold)
    typer.echo(f"similar to {named(recommender, int(ids.encode([item], name='item')[0]))}")
    _listed(recommender, found, "similar", "score")


def _listed(recommender: Any, found: Any, items: str, value: str) -> None:
    """Print an answer: rank, score or probability, item."""
    numbers = recommender.model.item_ids.encode(found[items]).tolist()
    for rank, each, number in zip(found["rank"].tolist(), found[value].tolist(), numbers, strict=True):
        typer.echo(f"{rank:4d}  {each:7.4f}  {named(recommender, number)}")


@app.command()
def info(
    model: Model,
    verify: Annotated[bool, typer.Option("--verify", help="Read the whole file and compare its checksums.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, as JSON.")] = False,
) -> None:
    """Describe a saved model: what it is, and what its bytes are spent on."""
    from hashlgn.inference.recommender import load

    about = load(model, verify=verify).info()
    if as_json:
        typer.echo(json.dumps(about, indent=2))
        return
    origin, spent = about["provenance"], about["bytes"]
    bits = [f"{about[name]} bits{where}" for name, where in _BITS.items() if about[name]]
    lines = {
        "model": ", ".join([about["kind"], *bits]),
        "users": f"{about['users']:,}",
        "items": f"{about['items']:,}",
        "interactions": f"{about['interactions']:,}",
        "bytes per item": f"{spent['per_item']:.1f}: {_per_item(about)}",
        "bytes per user": f"{spent['per_user']:g}",
        "bytes in total": f"{spent['total']:,}: {_in_total(spent)}",
        "checksums": "compared, and right" if verify else "not compared (--verify does)",
        "validation": ", ".join(f"{n} {v:.4f}" for n, v in about["metrics"].get("validation", {}).items()) or "none",
        "teacher": origin.get("teacher") or "none",
        "trained": f"{origin.get('created', '?')} by hashlgn {origin.get('version', '?')}",
        "seed": str(origin.get("seed", "?")),
        "data": str(origin.get("data", {}).get("fingerprint", "?")),
    }
    for name, value in lines.items():
        typer.echo(f"{name:>14}  {value}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for models, results and the page.")] = Path("hashlgn-demo"),
    seed: Seed = 0,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Train float and hashed models on MovieLens 1M and compare them: quality, memory, search time."""
    from hashlgn.experiments.demo import demo

    demo(out, seed=seed, threads=threads, quiet=quiet)


for _command in (reproduce, export, serve, report_split, doctor):
    app.command()(_command)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    plugin: Annotated[
        list[str],
        typer.Option(help="Module or .py file to import first: own encoders, losses, … ; may be repeated, anywhere."),
    ] = [],  # noqa: B006
) -> None:
    if version:
        import hashlgn

        typer.echo(hashlgn.__version__)
        raise typer.Exit()
    load_installed_plugins()
    for name in plugin:
        load_plugin(name)


def main() -> None:
    """Run the command line of this process."""
    # Threads that wait for one another sleep instead of spinning: beside other work that halves the time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):  # titles and names of files may hold what a terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(exit_code(app, sys.argv[1:]))


def _ids(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").split("\n")  # read_text has made every line end one
    except (OSError, ValueError) as error:
        raise ArgumentError(f"users must be a readable text file (got {shown(str(path))}: {reason(error)})") from error
    return [line for line in lines if line.strip()]


def _per_item(about: dict[str, Any]) -> str:
    """Bytes per item by what they hold."""
    sides = {"": about["bytes"]["items"], "history ": about["bytes"]["histories"]}
    return ", ".join(
        f"{side}{what} {size / max(about['items'], 1):.1f}"
        for side, held in sides.items()
        for what, size in held.items()
    )


def _in_total(spent: dict[str, Any]) -> str:
    """Bytes of all parts of a model that has them."""
    sums = {name: sum(size.values()) if isinstance(size, dict) else size for name, size in spent.items()}
    return ", ".join(f"{n} {s:,}" for n, s in sums.items() if s and n not in ("total", "per_item", "per_user"))
