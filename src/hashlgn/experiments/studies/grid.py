"""Every combination of encoders, hashes and losses in one table, with the baselines beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, choose, need
from hashlgn.experiments.baselines.recommenders import RECOMMENDERS
from hashlgn.experiments.common.runs import Run
from hashlgn.experiments.studies.study import options, study


def grid_runs(
    encoders: Sequence[str] | None,
    hashes: Sequence[str] | None,
    losses: Sequence[str] | None = ("softmax",),
    *,
    baselines: Sequence[str] | None = (),
    bits: int | None = None,
) -> list[Run]:
    """Runs of the product, and after them the baselines.

    A hash brings the decoder that fits it: codebooks for ``residual``, the paper's reweighting for the rest. Beside the
    hashes there is ``float``, the encoder without a hash, and the quantizers of
    ``hashlgn.experiments.baselines.quantizers``, which are given the items of the float model of that encoder and loss:
    they have their own bits, and their scale where they can. A list that is None stands for all there are; there may be
    no encoders where there are baselines.

    Raises:
        ArgumentError: an unknown name, or a list that names nothing.
        MissingExtraError: PyTorch is not installed.
    """
    need("torch", "train", "the grid")
    from hashlgn.experiments.baselines.quantizers import QUANTIZERS
    from hashlgn.training.encoders import ENCODERS
    from hashlgn.training.hashes import HASHES
    from hashlgn.training.losses import LOSSES

    given = {"encoders": encoders, "hashes": hashes, "losses": losses, "baselines": baselines}
    known: dict[str, dict[str, Any]] = {
        "encoders": {**ENCODERS},
        "hashes": {"float": None, **HASHES, **QUANTIZERS},
        "losses": {**LOSSES},
        "baselines": {**RECOMMENDERS},
    }
    chosen = {name: list(known[name] if values is None else values) for name, values in given.items()}
    for name, values in chosen.items():
        if not values and name != "baselines" and not (name == "encoders" and chosen["baselines"]):
            raise ArgumentError(f"{name} must name at least one (got none)")
        for value in values:
            choose(name, value, known[name])
    runs = []
    for encoder, loss, hash_ in product(chosen["encoders"], chosen["losses"], chosen["hashes"]):
        changes: dict[str, Any] = {"model.encoder": encoder, "train.loss": loss}
        if hash_ in HASHES:
            changes |= {"model.hash": hash_, "model.decoder": HASHES[hash_].decoder or "reweight"}
        else:  # the float model as wide as the one that codes start from
            dims = ENCODERS[encoder].dims
            changes |= {"model.kind": "float", "model.dim": None if dims is None else dims["hashlgn"]}
        changes |= {} if bits is None else {"model.bits": bits}
        quantizer = hash_ if hash_ in QUANTIZERS else None
        runs.append(Run(f"{encoder}, {hash_}, {loss}", changes, quantizer=quantizer))
    return runs + [Run(name, baseline=name) for name in chosen["baselines"]]


def grid(
    train: Interactions,
    test: Interactions,
    out: str | Path,
    *,
    changes: Mapping[str, Any] | None = None,
    bits: int | None = None,
    encoders: Sequence[str] | None,
    hashes: Sequence[str] | None,
    losses: Sequence[str] | None,
    baselines: Sequence[str] | None = (),
    **others: Any,
) -> dict[str, Any]:
    """Evaluate the combinations that are not there yet, and write ``grid.json`` and ``grid.md``; arguments as of
    ``grid_runs`` and ``study``.

    ``changes`` from the default stand in all rows, and go before a row's own.
    """
    held = dict(changes or {})
    Config().updated(held)
    runs = [
        replace(run, changes={**run.changes, **held})
        for run in grid_runs(encoders, hashes, losses, baselines=baselines, bits=bits)
    ]

    def command(run: Run) -> str:
        if run.baseline is not None:
            return f"--encoders none --baselines {run.baseline}{options(held)}"
        encoder, hash_, loss = run.name.split(", ")
        length = "" if bits is None else f" --bits {bits}"
        chosen = f"--encoders {encoder} --hashes {hash_} --losses {loss} --baselines none"
        return f"{chosen}{length}{options(held)}"

    return study("grid", train, test, out, runs, command=command, **others)
