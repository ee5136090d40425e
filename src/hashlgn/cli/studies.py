"""The commands of studies, which train many models: ``hashlgn tune`` and ``hashlgn experiment``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from hashlgn.cli.options import (
    Config,
    Data,
    Device,
    Preset,
    Quiet,
    Set,
    Threads,
    names,
    read_data,
    reads_data,
)
from hashlgn.config import load_config, override_changes
from hashlgn.experiments.common.tables import table
from hashlgn.utils.console import say

StudyData = Annotated[
    str, typer.Option(help="Folder with train.txt and test.txt, or a published data set; other data is split.")
]
Split = Annotated[
    str, typer.Option(help="How other data is split: ratio (80/20 per user), leave-last, or time (the last 20%).")
]
Seeds = Annotated[int, typer.Option(help="How many, from 0 on.")]
Cutoff = Annotated[int, typer.Option("--k", help="Cutoff of recall and NDCG.")]

experiment_app = typer.Typer(help="Run experiments whose tables the documentation shows.", no_args_is_help=True)


@reads_data
def tune(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the search; one that is there goes on.")],
    trials: Annotated[int, typer.Option(help="How many in all, earlier runs included.")] = 50,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which no other trial begins.")] = None,
    model: Annotated[str | None, typer.Option(help="hashlgn, or float: the float model.")] = None,
    bits: Annotated[int | None, typer.Option(help="Length of an item's code.")] = None,
    dim: Annotated[int | None, typer.Option(help="Length of an embedding.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed, of trials and of trainings.")] = None,
    preset: Preset = None,
    config: Config = None,
    set_: Annotated[list[str], typer.Option("--set", help="A setting that is held, as student.epochs=10.")] = [],  # noqa: B006
    threads: Threads = None,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Search for the hyper-parameters of a data set on a validation slice of it, and write the best as TOML.

    What is given by --set is held; the search begins from what --preset and --config say. The folder receives
    study.db, best.toml (for train --config), trials.json, history.png and trials.png.
    """
    from hashlgn.experiments.studies.tune import tune as search

    flags = {"model.kind": model, "model.bits": bits, "model.dim": dim, "train.seed": seed}
    result = search(
        read_data(data, quiet=quiet, **reading),
        out,
        load_config(config, flags, set_, preset),
        fixed=override_changes(set_),
        trials=trials,
        timeout=timeout,
        device=device,
        threads=threads,
        quiet=quiet,
        say=partial(say, quiet),
    )
    best = result["best"]
    typer.echo(f"trial {best['trial']}: validation {result['monitor']} {best['value']:.4f}; {out / 'best.toml'}")


@experiment_app.command("ablation")
def ablation(
    data: StudyData,
    out: Annotated[Path, typer.Option(help="Folder for results, models and the table.")] = Path("hashlgn-ablation"),
    seeds: Seeds = 3,
    rows: Annotated[str, typer.Option(help="Names of rows, separated by semicolons.  [default: all]")] = "",
    k: Cutoff = 50,
    split: Split = "ratio",
    set_: Set = [],  # noqa: B006
    threads: Threads = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """What each choice of the default recipe is worth: a table of changes from it, over seeds.

    A result that is finished is a file in the folder, and is never computed twice.
    """
    from hashlgn.experiments.studies.ablation import ablation as study

    _run(study, locals(), rows=names(rows, ";") or None)


@experiment_app.command("grid")
def grid(
    data: StudyData,
    out: Annotated[Path, typer.Option(help="Folder for results, models and the table.")] = Path("hashlgn-grid"),
    encoders: Annotated[str, typer.Option(help="Separated by commas, or none.  [default: all]")] = "",
    hashes: Annotated[
        str, typer.Option(help="Hashes, quantizers of a float model, or float, by commas.  [default: all]")
    ] = "",
    losses: Annotated[str, typer.Option(help="Separated by commas.")] = "softmax",
    baselines: Annotated[str, typer.Option(help="Separated by commas, or none.")] = "popularity,ease,als",
    bits: Annotated[int | None, typer.Option(help="Length of an item's code.  [default: 128]")] = None,
    seeds: Seeds = 1,
    k: Cutoff = 50,
    split: Split = "ratio",
    set_: Set = [],  # noqa: B006
    threads: Threads = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Every combination of encoders, hashes and losses in one table, grid.md and grid.json in the folder.

    A result that is finished is a file in the folder, and is never computed twice.
    """
    from hashlgn.experiments.studies.grid import grid as study

    lists = {"encoders": encoders, "hashes": hashes, "losses": losses, "baselines": baselines}
    chosen = {name: [] if text == "none" else names(text) or None for name, text in lists.items()}
    _run(study, locals(), bits=bits, **chosen)


def reproduce(
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder with train.txt and test.txt, or a published data set; other data is split.  "
            "[default: MovieLens 1M]"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for results, models, tables and the page.")] = Path(
        "hashlgn-reproduction"
    ),
    seeds: Annotated[int | None, typer.Option(help="How many, from 0 on.  [default: 1 for quick, 3 for full]")] = None,
    preset: Annotated[str, typer.Option(help="quick: the paper's recipes are stopped early; full: hours.")] = "quick",
    split: Split = "ratio",
    set_: Set = [],  # noqa: B006
    threads: Threads = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """The paper's experiment: all methods trained, evaluated and timed, then tables, figures and a page.

    A result that is finished is a file in the folder, and is never computed twice: a run that was killed goes on.
    """
    from hashlgn.experiments.demo import find_data
    from hashlgn.experiments.reproduction.run import reproduce as run
    from hashlgn.experiments.studies.study import options, read_parts

    train, test, name = find_data() if data is None else read_parts(data, out, split)
    count = seeds if seeds is not None else (3 if preset == "full" else 1)
    given = f" --data {data} --split {split}" if data else ""
    changes = override_changes(set_)
    typed = options(changes) + (f" --threads {threads}" if threads else "")
    result = run(
        train,
        test,
        out,
        seeds=count,
        preset=preset,
        changes=changes,
        threads=threads,
        device=device,
        data_name=name,
        command=f"hashlgn reproduce{given} --out {out} --seeds {count} --preset {preset}{typed}",
        quiet=quiet,
        say=partial(say, quiet),
    )
    for name in ("mips", "tips", "search"):
        typer.echo(table(result["tables"][name]) + "\n")
    typer.echo(f"Wrote {out / 'index.html'}, {out / 'reproduction.md'} and {out / 'results.json'}")


def _run(study: Callable[..., dict[str, Any]], typed: Mapping[str, Any], **more: Any) -> None:
    """Read and split the data, run a study with what was typed, and print its table and a command for each row."""
    from hashlgn.experiments.studies.study import read_parts

    train, test, name = read_parts(typed["data"], typed["out"], typed["split"])
    same = {key: typed[key] for key in ("out", "seeds", "k", "threads", "device", "quiet")}
    changes = override_changes(typed["set_"])
    result = study(train, test, **same, **more, changes=changes, data_name=name, say=partial(say, typed["quiet"]))
    typer.echo(table(result["rows"]) + "\n")
    for name, command in result["commands"].items():
        typer.echo(f"{name}: {command}")
