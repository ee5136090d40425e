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
from hashlgn.experiments.common.runs import FLOATS, Run
from hashlgn.experiments.studies.study import options, study

_LIGHTGCN: dict[str, Any] = {"model.encoder": "lightgcn"}

_CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "float student": FLOATS,
    "histories as floats": {"model.histories": "floats"},
    "answers as floats": {"model.answers": "floats"},
    "64 bits": {"model.bits": 64},
    "256 bits": {"model.bits": 256},
    "128 + 128 bits": {"model.history_bits": 128},
    "128 + 256 bits": {"model.history_bits": 256},
    "64 + 128 bits": {"model.bits": 64, "model.history_bits": 128},
    "LightGCN among the teachers": {"student.teacher": "0.5 labels + 0.3 lightgcn + 0.2 ease"},
    "labels alone": {"student.teacher": "labels"},
    "float student, labels alone": {"student.teacher": "labels", **FLOATS},
    "codes not trained": {"student.code_epochs": 0, "student.settle_epochs": 0},
    "codes not settled beside histories in bits": {"student.settle_epochs": 0},
    "histories whole in distillation": {"student.thinning": 0.0},
    "128 dimensions": {"model.dim": 128},
    "half of each history hidden": {"student.hidden": 0.5},
    "temperature 0.1": {"student.temperature": 0.1},
    "temperature 0.2": {"student.temperature": 0.2},
    "users weighted alike": {"student.user_weight": 0.0},
    "LightGCN, 128 floats": _LIGHTGCN | {"model.kind": "float", "model.dim": 128},
    "LightGCN, 128 bits": _LIGHTGCN,
    "LightGCN, 128 bits, mlp3 + reweight": _LIGHTGCN | {"model.hash": "mlp3", "model.decoder": "reweight"},
}

ROWS: dict[str, Run] = {name: Run(name, changes) for name, changes in _CHANGES.items()}

# What quantization of the same float student makes of its answers, at the bytes of ours: with a scale, and with 16 bits
# more. Histories stay floats.
for _bits in (64, 128, 256):
    for _quantizer in ("product", "residual-quantization", "local-search"):
        for _scale in (True, False):
            _length = _bits + 16 * (not _scale)
            _name = f"{_length} bits{' + scale' * _scale}, {_quantizer}"
            ROWS[_name] = Run(_name, {"model.bits": _length, "model.scale": _scale}, quantizer=_quantizer)

ROWS |= {name: Run(name, baseline=name) for name in RECOMMENDERS}


def ablation(
    train: Interactions,
    test: Interactions,
    out: str | Path,
    *,
    rows: Sequence[str] | None = None,
    changes: Mapping[str, Any] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Evaluate the rows, keys of ``ROWS``, that are not there yet, and write ``ablation.json`` and ``ablation.md``;
    arguments as of ``study``.

    ``changes`` from the default stand in all rows; what a row changes itself goes before them.

    Raises:
        ArgumentError: an argument or a row's configuration breaks its rule.
        MissingExtraError: PyTorch is not installed.
    """
    need("torch", "train", "the ablation")
    rows = tuple(ROWS) if rows is None else rows
    if not rows:
        raise ArgumentError("rows must name at least one (got none)")
    given = dict(changes or {})
    runs = [choose("rows", name, ROWS) for name in rows]
    runs = [replace(run, changes={**given, **run.changes}) for run in runs]

    def command(run: Run) -> str:
        return f"--rows {shlex.quote(run.name)}{options(given)}"

    return study("ablation", train, test, out, runs, command=command, **others)
