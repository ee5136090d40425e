"""Every combination of encoders, hashes and losses in one table, a file a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, choose, need
from hashlgn.experiments.studies.ablation import QUANTISER, ablation

__all__ = ["grid", "grid_rows"]


def grid_rows(
    encoders: Sequence[str], hashes: Sequence[str], losses: Sequence[str], *, bits: int | None = None
) -> dict[str, dict[str, Any]]:
    """Rows of the product, as changes from the default.

    A hash brings the decoder that fits it: codebooks for ``residual``, the paper's reweighting for the rest. Beside the
    hashes there is ``float``, the encoder without a hash, and the quantizers of
    ``hashlgn.experiments.baselines.quantizers``, which are given the items of the float model of that
    encoder and loss: they have their own bits, and their scale where they can.

    Args:
        encoders: keys of ``ENCODERS``.
        hashes: keys of ``HASHES`` or ``QUANTISERS``, or ``float``.
        losses: keys of ``LOSSES``.
        bits: length of a code; the default configuration's where None.

    Raises:
        ArgumentError: an unknown name, or a list that names nothing.
        MissingExtraError: PyTorch is not installed.
    """
    need("torch", "train", "the grid")
    from hashlgn.experiments.baselines.quantizers import QUANTISERS
    from hashlgn.training.encoders import ENCODERS
    from hashlgn.training.hashes import HASHES
    from hashlgn.training.losses import LOSSES

    known = {"float": None, **dict.fromkeys(HASHES), **dict.fromkeys(QUANTISERS)}
    named: tuple[tuple[str, Sequence[str], dict[str, Any]], ...] = (
        ("encoders", encoders, dict(ENCODERS)),
        ("hashes", hashes, known),
        ("losses", losses, dict(LOSSES)),
    )
    for name, values, choices in named:
        if not values:
            raise ArgumentError(f"{name} must name at least one (got none)")
        for value in values:
            choose(name, value, choices)
    rows = {}
    for encoder in encoders:
        for loss in losses:
            for hash_ in hashes:
                row: dict[str, Any] = {"model.encoder": encoder, "train.loss": loss}
                if hash_ in HASHES:
                    row |= {"model.hash": hash_, "model.decoder": "codebook" if hash_ == "residual" else "reweight"}
                else:
                    # The float model as wide as the one that codes start from.
                    dim = 0 if encoder == "spectral" else 128
                    row |= {"model.kind": "lightgcn", "model.dim": dim}
                    row |= {} if hash_ == "float" else {QUANTISER: hash_}
                row |= {} if bits is None else {"model.bits": bits}
                rows[f"{encoder}, {hash_}, {loss}"] = row
    return rows


def grid(
    train: Interactions,
    test: Interactions,
    out: str | Path,
    *,
    encoders: Sequence[str],
    hashes: Sequence[str],
    losses: Sequence[str],
    bits: int | None = None,
    changes: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Run the cells of the product that are not there yet, and write ``grid.json`` and ``grid.md``.

    Args:
        train: what the models learn from.
        test: what they are judged by, once.
        out: folder for the cells and the table.
        encoders: keys of ``ENCODERS``.
        hashes: keys of ``HASHES`` or ``QUANTISERS``, or ``float``.
        losses: keys of ``LOSSES``.
        bits: length of a code.
        changes: from the default, in all rows; a width given here goes before the float model's.
        options: seeds, k, device, threads, data_name, quiet and say, as for ``ablation``.

    Returns:
        What ``ablation`` returns.

    Raises:
        ArgumentError: an unknown name, or as for ``ablation``.
        MissingExtraError: PyTorch is not installed.
    """
    rows = grid_rows(encoders, hashes, losses, bits=bits)
    held = dict(changes or {})
    for row in rows.values():
        row |= {key: value for key, value in held.items() if key in row}
    Config().updated(held)
    return ablation(train, test, out, rows=tuple(rows), changes=held, table=rows, name="grid", **options)
