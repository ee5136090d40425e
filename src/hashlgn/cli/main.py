"""The command line. Exit code 0 for done, 1 for failed work, 2 for bad usage; an error is one line."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from hashlgn.cli.bench import bench_app
from hashlgn.cli.options import (
    Columns,
    Config,
    Data,
    Device,
    Format,
    Json,
    KCore,
    MinRating,
    Preset,
    Quiet,
    Set,
    Threads,
    column_options,
    numbers,
    read_data,
)
from hashlgn.cli.studies import experiment_app, reproduce, tune
from hashlgn.errors import ArgumentError, choose, need
from hashlgn.utils.console import exit_code, json_lines, named, output, say, training_bar, write_json

app = typer.Typer(
    name="hashlgn",
    help="Recommendations from bits: train, evaluate, recommend, measure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Get, describe or make data.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.add_typer(experiment_app, name="experiment")

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of a trained model.", exists=True, file_okay=False)
]


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the trained model.")],
    model: Annotated[str | None, typer.Option(help="hashlgn, or float: the float model.  [default: hashlgn]")] = None,
    bits: Annotated[int | None, typer.Option(help="Length of an item's code.  [default: 128]")] = None,
    dim: Annotated[int | None, typer.Option(help="Length of an embedding.  [default: by encoder]")] = None,
    loss: Annotated[str | None, typer.Option(help="softmax, bpr, hashgnn or hashgnn-code.  [default: softmax]")] = None,
    pretrain_epochs: Annotated[
        int | None, typer.Option(help="Passes over the data with the encoder alone, at most.  [default: 60]")
    ] = None,
    joint_epochs: Annotated[
        int | None, typer.Option(help="Passes over the data with all parts, at most.  [default: 30]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes every draw.  [default: 0]")] = None,
    threads: Threads = None,
    device: Device = "auto",
    preset: Preset = None,
    config: Config = None,
    set_: Set = [],  # noqa: B006
    format: Format = None,
    columns: Columns = None,
    min_rating: MinRating = None,
    k_core: KCore = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from where a stopped training was.")] = False,
    log: Annotated[Path | None, typer.Option(help="Append one JSON line an epoch to this file.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on interactions and save it.

    Of a folder with train.txt and test.txt, train.txt alone is read.
    """
    from hashlgn.config import load_config
    from hashlgn.estimators import HashLGN, LightGCN
    from hashlgn.inference.artifact import FORMAT
    from hashlgn.utils.tensors import check_target

    need("torch", "train", "training")
    from hashlgn.training.checkpoint import Checkpoint
    from hashlgn.training.resolve import resolve

    flags = {"model.kind": model, "model.bits": bits, "model.dim": dim, "train.loss": loss}
    flags |= {"train.pretrain_epochs": pretrain_epochs, "train.joint_epochs": joint_epochs, "train.seed": seed}
    settings = load_config(config, flags, set_, preset)
    out = out.expanduser().resolve()
    check_target(out, FORMAT)
    resolve(settings)
    kinds = {"hashlgn": HashLGN, "float": LightGCN}
    estimator = choose("model.kind", settings.model.kind, kinds)(config=settings, device=device, threads=threads)
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    if checkpoint.exists() and not resume:
        raise ArgumentError(f"resume must be given, or the unfinished training deleted (found {checkpoint})")
    if resume and not checkpoint.exists():
        say(quiet, f"nothing to resume at {checkpoint}: starting anew")
    out.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    interactions = read_data(data, columns, format=format, min_rating=min_rating, k_core=k_core)
    say(quiet, f"read {data}: {_counts(interactions)} in {time.perf_counter() - began:.1f} s")
    monitor = f"{settings.train.monitor}@{settings.train.monitor_k}"
    with training_bar(monitor, quiet=quiet) as bar, json_lines(log, monitor) as line:

        def report(step: Any) -> None:
            bar(step)
            line(step)

        estimator.fit(interactions, checkpoint=checkpoint, report=report)
    estimator.save(out)
    Checkpoint(checkpoint).remove()
    info = estimator.info()
    best = info["metrics"]["validation"]
    if tried := info["provenance"].get("encoders"):
        values = ", ".join(f"{name} {value:.4f}" for name, value in tried.items())
        say(quiet, f"encoder {info['config']['model']['encoder']}, chosen on validation {monitor}: {values}")
    say(
        quiet,
        f"trained {info['kind']} in {info['provenance']['seconds']:.1f} s"
        + (f", validation {monitor} {list(best.values())[-1]:.4f}" if best else "")
        + f"; {info['bytes_per_item']:g} bytes an item; saved to {out}",
    )


app.command("tune")(tune)
app.command("reproduce")(reproduce)


@app.command()
def evaluate(
    model: Model,
    test: Annotated[Path, typer.Option(help="Held-out interactions; of a folder with test.txt, that.", exists=True)],
    k: Annotated[str, typer.Option(help="Cuts, separated by commas.")] = "20,50,100",
    threshold: Annotated[str, typer.Option(help="Thresholds for threshold search, separated by commas.")] = "",
    json_: Json = None,
    format: Format = None,
    columns: Columns = None,
    min_rating: MinRating = None,
    engine: Annotated[str, typer.Option(help="auto, kernel, ivf, fastscan, decoded, flat or exact.")] = "auto",
    threads: Threads = None,
) -> None:
    """Rank the whole catalogue for every test user, what they have in training masked, and judge the answers."""
    from hashlgn.evaluation.full_ranking import evaluate, read_test
    from hashlgn.inference.recommender import load
    from hashlgn.utils.provenance import provenance

    cuts, thresholds = numbers("k", k, int), numbers("threshold", threshold, float)
    recommender = load(model, engine=engine, threads=threads)
    held_out = read_test(test, **column_options(columns), format=format, min_rating=min_rating)
    result = evaluate(recommender, held_out, cuts, threshold=thresholds)
    typer.echo(str(result))
    for count, what in (
        (result.dropped.interactions, "have a user or item that the training does not know"),
        (result.seen, "are in the training too"),
    ):
        if count:
            output.print(f"left out: {count:,} test interactions {what}")
    if json_ is not None:
        answer = {"model": recommender.info(), "test": {"fingerprint": held_out.fingerprint()}}
        write_json(json_, answer | result.to_dict() | provenance(threads=threads))


@app.command()
def recommend(
    model: Model,
    out: Annotated[Path, typer.Option(help="File to write: .parquet, .csv or .jsonl.")],
    k: Annotated[int | None, typer.Option(help="Number of items a user.  [default: 100]")] = None,
    threshold: Annotated[float | None, typer.Option(help="Instead: every item with a greater score.")] = None,
    users: Annotated[
        Path | None, typer.Option(help="File with one user id a line; all by default.", exists=True)
    ] = None,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Do not leave out what users have seen.")] = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Write the best items of every user: columns user, item, score, rank."""
    from hashlgn.inference.recommender import load
    from hashlgn.inference.tables import RowWriter

    if k is not None and threshold is not None:
        raise ArgumentError(f"k and threshold must not both be given (got k={k} and threshold={threshold})")
    recommender = load(model, threads=threads)
    wanted = None if users is None else _ids(users)
    began, rows = time.perf_counter(), 0
    batches = recommender.recommend_batches(
        wanted, 100 if k is None else k, threshold=threshold, filter_seen=not keep_seen
    )
    with RowWriter(out) as writer:
        for table in batches:
            writer.write(table)
            rows += len(table)
    say(quiet, f"wrote {rows:,} recommendations to {out} in {time.perf_counter() - began:.1f} s")


@app.command()
def similar(
    model: Model,
    item: Annotated[str, typer.Option(help="Id of an item.")],
    k: Annotated[int, typer.Option(help="Number of neighbours.")] = 10,
) -> None:
    """Print the items most similar to one item."""
    from hashlgn.inference.recommender import load

    recommender = load(model)
    ids = recommender.model.item_ids
    key = [item]
    typer.echo(f"similar to {named(recommender, int(ids.encode(key, name='item')[0]))}")
    found = recommender.similar_items(key, k)
    for rank, score, code in zip(
        found["rank"].tolist(), found["score"].tolist(), ids.encode(found["similar"]).tolist(), strict=True
    ):
        typer.echo(f"{rank:4d}  {score:7.4f}  {named(recommender, code)}")


@app.command()
def info(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, as JSON.")] = False,
) -> None:
    """Describe a saved model."""
    from hashlgn.inference.recommender import load

    about = load(model).info()
    if as_json:
        typer.echo(json.dumps(about, indent=2))
        return
    origin = about["provenance"]
    lines = {
        "model": f"{about['kind']}, {about['bits']} bits" if about["bits"] else about["kind"],
        "users": f"{about['users']:,}",
        "items": f"{about['items']:,}",
        "interactions": f"{about['interactions']:,}",
        "bytes an item": f"{about['bytes_per_item']:g}",
        "size on disk": f"{sum(file.stat().st_size for file in model.iterdir()) / 1e6:.1f} MB",
        "validation": ", ".join(f"{n} {v:.4f}" for n, v in about["metrics"].get("validation", {}).items()) or "none",
        "trained": f"{origin.get('created', '?')} by hashlgn {origin.get('version', '?')}",
        "seed": str(origin.get("seed", "?")),
        "data": str(origin.get("data", {}).get("fingerprint", "?")),
    }
    for name, value in lines.items():
        typer.echo(f"{name:>14}  {value}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for models, results and the page.")] = Path("hashlgn-demo"),
    seed: Annotated[int, typer.Option(help="Fixes every draw.")] = 0,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Train float and hashed models on MovieLens 1M and compare them: quality, memory, search time."""
    from hashlgn.experiments.demo import demo

    demo(out, seed=seed, threads=threads, quiet=quiet)


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a published data set, such as ml-1m.")],
) -> None:
    """Download a published data set into the cache folder, its checksum verified."""
    from hashlgn.data.download import download

    typer.echo(str(download(name)))


@data_app.command("stats")
def data_stats(
    data: Data, format: Format = None, columns: Columns = None, min_rating: MinRating = None, json_: Json = None
) -> None:
    """Count users, items and interactions."""
    interactions = read_data(data, columns, format=format, min_rating=min_rating)
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
    """Make a catalogue with planted clusters and power-law popularity, split 80/20 a user."""
    from hashlgn.data import random_ratio
    from hashlgn.data.synthetic import synthetic, write_lightgcn

    parts = random_ratio(synthetic(users, items, interactions, seed=seed), seed=seed)
    write_lightgcn(out, *parts)
    typer.echo(f"wrote {_counts(parts[0])} to train, {len(parts[1]):,} interactions to test, in {out}")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        import hashlgn

        typer.echo(hashlgn.__version__)
        raise typer.Exit()


def main() -> None:
    """Run the command line of this process."""
    # Threads that wait for one another sleep instead of spinning: beside other work that halves the time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(exit_code(app, sys.argv[1:]))


def _counts(data: Any) -> str:
    return f"{data.n_users:,} users, {data.n_items:,} items, {len(data):,} interactions"


def _ids(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").split("\n")  # read_text has made every line end one
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"users must be a readable text file (got {str(path)!r}: {error})") from error
    return [line for line in lines if line.strip()]
