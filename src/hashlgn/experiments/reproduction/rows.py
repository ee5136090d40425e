"""What ``hashlgn reproduce`` compares: rows, each a run or what is made of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from hashlgn.config import preset_changes
from hashlgn.data import Interactions
from hashlgn.experiments.baselines.recommenders import RECOMMENDERS
from hashlgn.experiments.common.runs import FLOATS, Run, left_out
from hashlgn.inference.model import ServedModel
from hashlgn.search import Searcher

METHODS = ("HashGNN", "LightGCN", "HashLGN")
ENCODER = Run("LightGCN, 128 floats, ours", {"model.kind": "float", "model.encoder": "lightgcn", "model.dim": 128})
STUDENT = Run("HashLGN, 256 floats, ours", FLOATS)  # which quantizers are given
SIZES = (1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 300)  # mean sizes of answers at which thresholds are tried
_DEEPEST = 500  # items per user whose scores say where the thresholds lie
_QUICK_EPOCHS = 20  # of the paper's recipe under the preset quick
_HASHGNN_EPOCHS = 8  # of HashGNN's; its guidance ends after half of them


@dataclass(frozen=True)
class Row:
    """A line of the tables, named by its run."""

    method: str  # of ``METHODS``, or ``baseline`` or ``quantizer``
    run: Run
    how: str = "ours"  # or ``paper``, the paper's recipe
    sweep: bool = False  # whether quality and time are measured at all thresholds, not at the chosen one alone

    @property
    def name(self) -> str:
        """Of the line, and different from every other."""
        return self.run.name

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """The same row with more changes from the default configuration."""
        return replace(self, run=self.run.updated(changes))


def rows_of_preset(preset: str) -> list[Row]:
    """The rows of ``quick`` or ``full``, in the order of the tables.

    ``quick`` stops the paper's recipes after a few epochs, quantizes to one length of code, and leaves SLIM out.
    """
    quick = preset == "quick"
    limit: dict[str, Any] = (
        {"train.joint_epochs": _QUICK_EPOCHS, "train.validate_every": _QUICK_EPOCHS} if quick else {}
    )
    stated = f", {_QUICK_EPOCHS} epochs" if quick else ""
    paper = preset_changes("paper") | limit
    floats = {"model.kind": "float"}
    lengths = ((64, 256), (128, 320)) if quick else ((64, 256), (128, 128), (128, 320), (256, 320))
    codes = [
        Run(f"HashLGN, {bits} + {more} bits, ours", {"model.bits": bits, "model.history_bits": more})
        for bits, more in lengths
    ]
    form = {"model.bits": 64, "model.hash": "mlp3", "model.decoder": "reweight", "model.encoder": "lightgcn"}
    return [
        *_hashgnn_rows(quick),
        Row("HashGNN", _quantized("itq-hamming", 80, "HashGNN's form, 80 bits, ours (ITQ, Hamming)"), sweep=True),
        Row("LightGCN", Run(f"LightGCN, 64 floats, paper's recipe{stated}", paper | floats), "paper", True),
        Row("LightGCN", ENCODER, sweep=True),
        Row("HashLGN", Run(f"HashLGN, 64 bits, paper's recipe{stated}", paper), "paper", True),
        *(Row("HashLGN", run, sweep=run.changes["model.bits"] == 64) for run in codes),
        Row("HashLGN", Run("HashLGN, 64 bits, mlp3 + reweight, ours", form, ENCODER), sweep=True),
        Row("HashLGN", STUDENT, sweep=True),
        *(Row("baseline", Run(name, baseline=name)) for name in RECOMMENDERS if name != "slim" or not quick),
        *_quantizer_rows((64,) if quick else (64, 128)),
    ]


def _hashgnn_rows(quick: bool) -> list[Row]:
    """HashGNN at two lengths, its guidance off; and its form of codes under our training."""
    stated = f", {_HASHGNN_EPOCHS} epochs" if quick else ""
    recipe = preset_changes("hashgnn") | ({"train.joint_epochs": _HASHGNN_EPOCHS} if quick else {})
    short = recipe | {"model.bits": 32, "train.temperature": 4.0}
    unguided = recipe | {"model.guidance": False}
    same = ("bits", "hash", "decoder", "compression", "similarity", "scale", "guidance")
    ours = {f"model.{key}": recipe[f"model.{key}"] for key in same}
    ours |= {"model.encoder": "lightgcn", "model.dim": 128, "train.temperature": 8.0}
    return [
        Row("HashGNN", Run(f"HashGNN, 32 bits{stated}", short), "paper"),
        Row("HashGNN", Run(f"HashGNN, 64 bits{stated}", recipe), "paper", True),
        Row("HashGNN", Run(f"HashGNN, 64 bits, no guidance{stated}", unguided), "paper"),
        Row("HashGNN", Run("HashGNN's form, 64 bits, ours", ours, ENCODER)),
    ]


def _quantizer_rows(lengths: tuple[int, ...]) -> list[Row]:
    """Every quantizer at the bytes of our codes with a scale: with a scale itself, and with 16 bits more."""
    rows = []
    for bits in lengths:
        for how in ("hyperplanes", "itq", "product", "residual-quantization", "local-search"):
            rows += [_quantized(how, bits + 16, f"{how}, {bits + 16} bits")]
            rows += [_quantized(how, bits, f"{how}, {bits} bits + scale", scale=True)]
        rows.append(_quantized("hyperplanes-hamming", bits + 16, f"hyperplanes-hamming, {bits + 16} bits"))
    return [Row("quantizer", run) for run in rows]


def _quantized(quantizer: str, bits: int, name: str, *, scale: bool = False) -> Run:
    return Run(name, {"model.bits": bits, "model.scale": scale}, STUDENT, quantizer)


def thresholds_of(model: ServedModel, searcher: Searcher, held_out: Interactions) -> list[float]:
    """Thresholds at which the answers of the held-out part's users have ``SIZES`` items on average, falling.

    The scores of the ``500`` best items of every such user decide; of discrete scores, such as Hamming distances, some
    thresholds coincide and are given once.
    """
    users = np.flatnonzero(np.diff(held_out.indptr))
    hits = searcher.search(model.queries_of(users), min(_DEEPEST, len(model.items)), left_out(model, users))
    scores = np.sort(hits.scores)[::-1]
    found = [float(scores[size * len(users)]) for size in SIZES if size * len(users) < len(scores)]
    return list(dict.fromkeys(found or [float(scores[-1])]))
