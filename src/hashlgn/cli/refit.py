"""The command ``hashlgn refit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hashlgn.cli.options import Data, Device, Quiet, Threads, read_data, reads_data
from hashlgn.errors import counted
from hashlgn.utils.console import say

__all__ = ["refit"]


@reads_data
def refit(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the new model.")],
    epochs: Annotated[float, typer.Option(help="Share of the epochs of a new training.")] = 0.25,
    threads: Threads = None,
    device: Device = "auto",
    quiet: Quiet = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Train a saved model anew from where it is, on what it knows and new interactions, and say how answers moved."""
    from hashlgn.inference.artifact import FORMAT
    from hashlgn.inference.recommender import load
    from hashlgn.refitting import check_refit, overlaps, refit
    from hashlgn.utils.tensors import check_target, model_file

    check_target(out.expanduser(), FORMAT)
    before = load(model, threads=threads)
    check_refit(before, epochs=epochs, device=device, threads=threads)
    interactions = read_data(data, quiet=quiet, **reading)
    done = before.update(interactions)
    new = {"new interaction": done.interactions, "new user": done.users, "new item": done.items}
    taken = "took in " + ", ".join(counted(count, noun) for noun, count in new.items())
    say(quiet, taken if any(new.values()) else "the data has nothing new")
    after = refit(before, epochs=epochs, device=device, threads=threads)
    replaced = ", in the place of the model that was there" if model_file(out.expanduser()).exists() else ""
    after.save(out.expanduser())
    say(quiet, f"trained in {after.info()['provenance']['seconds']:.1f} s; saved to {out}{replaced}")
    for group in overlaps(before, after):
        who = f"{group.group} ({group.users:,})"
        say(quiet, f"{who}: {group.share:.0%} of their 20 best items are the same")
