"""The commands that train a model: ``hashlgn train``, and ``hashlgn refit`` from one that there is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashlgn.cli.options import (
    DATA,
    Config,
    Data,
    Device,
    Preset,
    Quiet,
    Set,
    Threads,
    read_both,
    read_data,
    reads_data,
)
from hashlgn.config import TrainConfig, load_config
from hashlgn.errors import ArgumentError, choose, counted, need
from hashlgn.utils.console import Interrupted, json_lines, say
from hashlgn.utils.tensors import check_target, model_file

if TYPE_CHECKING:
    from hashlgn.inference.recommender import Recommender


@reads_data
def train(
    out: Annotated[Path, typer.Option(help="Folder for the trained model.")],
    data: Annotated[str | None, DATA] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Journal of a service: its events count too, without what was deleted from it.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="hashlgn, or float: LightGCN without codes.  [default: hashlgn]")
    ] = None,
    bits: Annotated[int | None, typer.Option(help="Length of an item's code as an answer.  [default: 128]")] = None,
    history_bits: Annotated[
        int | None,
        typer.Option(
            help="Length of its code in a history.  "
            "[default: 4 × bits, 320 at most; beyond 10,000 items 2 × bits at least]"
        ),
    ] = None,
    dim: Annotated[
        int | None, typer.Option(help="Width of the vectors behind the codes.  [default: 256; 192 beyond 10,000 items]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed: the same seed gives the same model.  [default: 0]")
    ] = None,
    threads: Threads = None,
    device: Device = "auto",
    preset: Preset = None,
    config: Config = None,
    set_: Set = [],  # noqa: B006
    resume: Annotated[bool, typer.Option("--resume", help="Go on from where a stopped training was.")] = False,
    log: Annotated[Path | None, typer.Option(help="Append one JSON line an epoch to this file.")] = None,
    quiet: Quiet = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Train a model on interactions and save it.

    Where a folder holds train.txt and test.txt, only train.txt is read.
    """
    from hashlgn.estimators import HashLGN, LightGCN

    need("torch", "train", "training")
    from hashlgn.training.checkpoint import Checkpoint
    from hashlgn.training.resolve import check_data, resolve
    from hashlgn.training.student.mixtures import check_named

    flags = {"model.kind": model, "model.bits": bits, "model.history_bits": history_bits}
    flags |= {"model.dim": dim, "train.seed": seed}
    settings = load_config(config, flags, set_, preset)
    out = out.expanduser().resolve()
    _check_out(out, quiet)
    if settings.model.encoder is not None:
        resolve(settings)
    else:
        check_named(settings.student)
    kinds = {"hashlgn": HashLGN, "float": LightGCN}
    estimator = choose("model.kind", settings.model.kind, kinds)(config=settings, device=device, threads=threads)
    checkpoint = _checkpoint(out, resume, quiet)
    out.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    interactions = read_both(data, journal, quiet=quiet, **reading)
    read = " and ".join(str(source) for source in (data, journal) if source is not None)
    say(quiet, f"read {read}: {interactions.sizes} in {time.perf_counter() - began:.1f} s")
    check_data(interactions, settings)
    if settings.model.encoder is None:
        from hashlgn.training.student.plan import encoders_of, tried

        if settings.train.lr != TrainConfig().lr and not encoders_of(settings):
            say(quiet, "train.lr has no effect on the default recipe: student.lr has")
        say(quiet, f"will try {tried(settings, interactions.n_items)}")
    try:
        with json_lines(log, f"{settings.train.monitor}@{settings.train.monitor_k}") as line:
            estimator.fit(interactions, progress=not quiet, checkpoint=checkpoint, report=line)
    except KeyboardInterrupt:
        kept = "--resume goes on from what is kept" if checkpoint.exists() else "nothing is kept yet to go on from"
        raise Interrupted(f"interrupted; {kept}") from None
    _save(estimator, out, quiet)
    Checkpoint(checkpoint).remove()


def _checkpoint(out: Path, resume: bool, quiet: bool) -> Path:
    """Where an unfinished training is kept.

    Raises:
        ArgumentError: there is one, and nobody said that it goes on.
    """
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    if checkpoint.exists() and not resume:
        raise ArgumentError(f"resume must be given, or the unfinished training deleted (found {checkpoint})")
    if resume and not checkpoint.exists():
        say(quiet, f"nothing to resume at {checkpoint}: starting anew")
    return checkpoint


@reads_data
def refit(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the new model.")],
    epochs: Annotated[float, typer.Option(help="Share of a new training's epochs (of labels, a third more).")] = 0.25,
    threads: Threads = None,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Train a saved model anew, in a third of the time, on what it knows and what is new; say how answers moved."""
    from hashlgn.inference.recommender import load
    from hashlgn.refitting import check_refit, overlaps, refit

    out = out.expanduser()
    _check_out(out, quiet)
    before = load(model, threads=threads)
    check_refit(before, epochs=epochs, device=device, threads=threads)
    interactions = read_data(data, quiet=quiet, **reading)
    done = before.update(interactions, budget=0)  # as ``refit`` would
    new = {"new interaction": done.interactions, "new user": done.users, "new item": done.items}
    taken = "took in " + ", ".join(counted(count, noun) for noun, count in new.items())
    say(quiet, taken if any(new.values()) else "the data has nothing new")
    after = refit(before, epochs=epochs, device=device, threads=threads)
    _save(after, out, quiet)
    for group in overlaps(before, after):
        who = f"{group.group} ({group.users:,})"
        say(quiet, f"{who}: {group.share:.0%} of their 20 best items are the same")


def _check_out(out: Path, quiet: bool) -> None:
    """Refuse what is no model, and say that one will be replaced, before the work begins."""
    from hashlgn.inference.artifact import FORMAT

    check_target(out, FORMAT)
    if model_file(out).exists():
        say(quiet, f"{out} holds a model, which the new one will replace")


def _save(model: Recommender, out: Path, quiet: bool) -> None:
    """Save a model, and say how it was trained and what it is worth."""
    model.save(out)
    info = model.info()
    best, monitor = info["metrics"]["validation"], f"validation {info['metrics']['monitor']}"
    if teachers := info["provenance"].get("teachers"):
        values = ", ".join(f"{name} {value:.4f}" for name, value in teachers.items())
        say(quiet, f"teachers tried, {monitor}: {values}; taken: {info['provenance']['teacher']}")
    worth = f"{monitor} {list(best.values())[-1]:.4f}" if best else "on all interactions, so without validation"
    seconds, size = info["provenance"]["seconds"], info["bytes"]["per_item"]
    trained = f"trained {info['kind']} in {seconds:.1f} s, {worth}"
    say(quiet, f"{trained}; {size:.1f} bytes per item; saved to {out}")
