"""What each choice is worth: one table, a row for each set of changes from the default, over several seeds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, choose, need
from hashlgn.experiments.baselines.recommenders import RECOMMENDERS
from hashlgn.experiments.common.runs import Run
from hashlgn.experiments.studies.study import options, study

__all__ = ["ROWS", "ablation"]

_FLOAT: dict[str, Any] = {"model.kind": "float"}
_PAPER: dict[str, Any] = {"model.hash": "mlp3", "model.decoder": "reweight"}

_CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "float, 64": _FLOAT | {"model.dim": 64},
    "float, 128": _FLOAT | {"model.dim": 128},
    "64 bits": {"model.bits": 64},
    "256 bits": {"model.bits": 256},
    "64 bits, mlp3 + reweight": _PAPER | {"model.bits": 64},
    "mlp3 + reweight": _PAPER,
    "256 bits, mlp3 + reweight": _PAPER | {"model.bits": 256},
    "linear + reweight": _PAPER | {"model.hash": "linear"},
    "free + reweight": _PAPER | {"model.hash": "free"},
    "mlp3 + codebook": {"model.hash": "mlp3"},
    "free + codebook": {"model.hash": "free"},
    "mlp3 + reweight, tanh": _PAPER | {"model.sign": "tanh"},
    "codes not trained": {"train.pretrain_epochs": 90, "train.joint_epochs": 0},
    "codes trained by softmax": {"train.joint_loss": "softmax"},
    "64 bits, codes trained by softmax": {"train.joint_loss": "softmax", "model.bits": 64},
    "encoder frozen under codes": {"train.joint_lr": 0.0},
    "temperature of distillation 0.05": {"train.joint_temperature": 0.05},
    "temperature of distillation 0.2": {"train.joint_temperature": 0.2},
    "256 dimensions": {"model.dim": 256},
    "256 bits, 256 dimensions": {"model.bits": 256, "model.dim": 256},
    "no pre-training": {"train.pretrain_epochs": 0, "train.joint_epochs": 90},
    "random start": {"train.init": "random"},
    "no scale": {"model.scale": False},
    "inner product": {"model.similarity": "inner"},
    "compression by MLP": {"model.compression": "mlp"},
    "users weighted alike": {"train.user_weight": 0.0},
    "temperature 0.07": {"train.temperature": 0.07},
    "temperature 0.3": {"train.temperature": 0.3},
    "1 layer": {"model.layers": 1},
    "BPR": {"train.loss": "bpr"},
    "BPR, mlp3 + reweight": _PAPER | {"train.loss": "bpr"},
}

ROWS: dict[str, Run] = {name: Run(name, changes) for name, changes in _CHANGES.items()}

# What quantization of the same float model makes of it, at the bytes of our codes: with a scale, and with 16 bits more.
for _bits in (64, 128, 256):
    for _quantizer in ("product", "residual-quantization", "local-search"):
        for _scale in (True, False):
            _length = _bits + 16 * (not _scale)
            _name = f"{_length} bits{' + scale' * _scale}, {_quantizer}"
            _own = {"model.dim": 128, "model.bits": _length, "model.scale": _scale}
            ROWS[_name] = Run(_name, _FLOAT | _own, quantizer=_quantizer)

ROWS |= {name: Run(name, baseline=name) for name in RECOMMENDERS}


def ablation(
    train: Interactions,
    test: Interactions,
    out: str | Path,
    *,
    rows: Sequence[str] = tuple(ROWS),
    changes: Mapping[str, Any] | None = None,
    device: str = "auto",
    **others: Any,
) -> dict[str, Any]:
    """Evaluate the rows that are not there yet, and write ``ablation.json`` and ``ablation.md``.

    Args:
        train: what the models learn from; each cuts its validation slice from it.
        test: what they are evaluated by, once.
        out: folder of the results and the table.
        rows: keys of ``ROWS``.
        changes: from the default, in all rows; what a row changes itself goes before it.
        device: ``auto``, ``cpu`` or ``cuda``.
        others: seeds, k, threads, data_name, quiet and say, as for ``study``.

    Returns:
        What ``study`` returns.

    Raises:
        ArgumentError: an argument or a row's configuration breaks its rule.
        MissingExtraError: PyTorch is not installed.
    """
    need("torch", "train", "the ablation")

    if not rows:
        raise ArgumentError("rows must name at least one (got none)")
    runs = [choose("rows", name, ROWS) for name in rows]
    given = dict(changes or {})
    for run in runs:
        replace(run, changes={**given, **run.changes}).config()
    held = dict(given)
    if any(run.baseline is None for run in runs):
        held.setdefault("model.encoder", "lightgcn")
    runs = [replace(run, changes={**held, **run.changes}) for run in runs]

    def command(run: Run) -> str:
        return f"--rows {shlex.quote(run.name)}{options(given)}"

    return study("ablation", train, test, out, runs, command=command, device=device, **others)
