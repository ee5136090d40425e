"""What each choice is worth: one table, a row for each set of changes from the default, over several seeds.

Every row is an ordinary training with a command of its own. A finished cell, one row under one seed, is a file of its
own and is never run twice. Nothing is chosen here: the test part is looked at once for each cell, and for the table
alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hashlgn.config import Config
from hashlgn.data import Interactions, random_ratio, read_interactions
from hashlgn.data.synthetic import write_lightgcn
from hashlgn.errors import ArgumentError, choose, need, positive_int
from hashlgn.estimators import HashLGN, LightGCN
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.experiments.common.cache import digest, interval, kept, markdown
from hashlgn.inference.artifact import load_artifact
from hashlgn.inference.recommender import Recommender
from hashlgn.utils.console import training_bar, write_json
from hashlgn.utils.provenance import provenance
from hashlgn.utils.storage import replaced_file

__all__ = ["QUANTISER", "ROWS", "ablation", "read_parts"]

QUANTISER = (
    "quantiser"  # among a row's changes: the name of what is done to the float model's items, bits as configured
)

_FLOAT: dict[str, Any] = {"model.kind": "lightgcn"}
_PAPER: dict[str, Any] = {"model.hash": "mlp3", "model.decoder": "reweight"}

ROWS: dict[str, dict[str, Any]] = {
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
    "codes not trained": {"train.warmup": 1.0},
    "codes trained by softmax": {"train.joint_loss": "softmax"},
    "64 bits, codes trained by softmax": {"train.joint_loss": "softmax", "model.bits": 64},
    "encoder frozen under codes": {"train.joint_lr": 0.0},
    "temperature of distillation 0.05": {"train.joint_temperature": 0.05},
    "temperature of distillation 0.2": {"train.joint_temperature": 0.2},
    "256 dimensions": {"model.dim": 256},
    "256 bits, 256 dimensions": {"model.bits": 256, "model.dim": 256},
    "no warm-up": {"train.warmup": 0.0},
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

# What quantisation of the same float model makes of it, at the bytes of our codes: with a scale, and with 16 bits more.
ROWS |= {
    f"{bits + 16 * (not scale)} bits{' + scale' * scale}, {quantiser}": _FLOAT
    | {"model.dim": 128, "model.bits": bits + 16 * (not scale), "model.scale": scale, QUANTISER: quantiser}
    for bits in (64, 128, 256)
    for quantiser in ("product", "residual-quantisation", "local-search")
    for scale in (True, False)
}

# What the encoder's own training does not depend on; rows that differ in these alone share it.
_CODES = (
    *("bits", "hash", "decoder", "sign", "compression", "scale", "norm_penalty", "guidance"),
    *("joint_loss", "joint_temperature", "joint_lr", "code_lr", "warmup"),
)


def ablation(
    train: Interactions,
    test: Interactions,
    out: str | Path,
    *,
    rows: Sequence[str] = tuple(ROWS),
    seeds: int = 3,
    k: int = 50,
    changes: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int | None = None,
    data_name: str = "DATA",
    quiet: bool = True,
    say: Callable[[str], None] | None = None,
    table: Mapping[str, Mapping[str, Any]] = ROWS,
    name: str = "ablation",
) -> dict[str, Any]:
    """Run the cells that are not there yet, and write the table.

    Where a row's encoder is trained alone first, that training is done once for all rows that have it in common, and
    the rows go on from it; they end as if each had done it itself. Its seconds are counted in each.

    Args:
        train: what the models learn from; each cuts its validation slice from it.
        test: what they are judged by, once.
        out: folder for ``cells/``, ``starts/``, and the table as ``NAME.json`` and ``NAME.md``.
        rows: keys of ``table``.
        seeds: 0, 1, … this many.
        k: cut of recall and NDCG.
        changes: from the default, in all rows.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: processor threads; all where None.
        data_name: of the data, for the commands.
        quiet: show no progress bar.
        say: called with a line after every cell.
        table: changes from the default by row; with ``QUANTISER`` among them, a float model is trained and quantised.
        name: of the files.

    Returns:
        What ``NAME.json`` holds: ``rows`` with means over seeds, half the width of their 95% t-interval (None for
        one seed), seconds of training and the command; ``cells``; and the provenance.

    Raises:
        ArgumentError: an argument or a row's configuration breaks its rule.
        MissingExtraError: PyTorch is not installed.
    """
    need("torch", "train", "the ablation")
    from hashlgn.training.model import checked
    from hashlgn.training.trainer import chosen

    out, changes = Path(out), dict(changes or {})
    positive_int("seeds", seeds)
    positive_int("k", k)
    base = Config().updated(changes)
    own = {row: dict(choose("rows", row, dict(table))) for row in rows}
    quantisers = {row: own[row].pop(QUANTISER, None) for row in own}
    if not all("model.encoder" in row for row in own.values()) or not own:
        # Chosen once: rows are told apart by their own changes alone, and have the encoder's training in common.
        changes["model.encoder"] = chosen(train, checked(base), device=device)[0].model.encoder
        base = base.updated(changes)
    configs = {row: checked(base.updated(own[row])) for row in own}
    if not configs:
        raise ArgumentError("rows must name at least one (got none)")
    data = {"train": train.fingerprint(), "test": test.fingerprint()}
    cells: list[dict[str, Any]] = []
    for seed in range(seeds):  # a whole table after the first round, intervals after the second
        for row, config in configs.items():
            config, quantiser = config.updated({"train.seed": seed}), quantisers[row]

            def run(
                row: str = row, config: Config = config, quantiser: str | None = quantiser, seed: int = seed
            ) -> dict[str, Any]:
                with training_bar("validation", quiet=quiet, title=f"{row}, seed {seed}: ") as bar:
                    return _run(
                        train, test, config, k, out / "starts", quantiser, device=device, threads=threads, report=bar
                    )

            identity = {"config": config.to_dict(), "data": data, "k": k} | (
                {QUANTISER: quantiser} if quantiser else {}
            )
            cell, fresh = kept(out / "cells", identity, run, seed=seed, threads=threads, device=device)
            if fresh and say:
                say(f"{row}, seed {seed}: recall@{k} {cell['recall']:.4f}, ndcg@{k} {cell['ndcg']:.4f}")
            cells.append({"row": row} | cell)
    shown = [_row(row, [cell for cell in cells if cell["row"] == row], k) for row in configs]
    commands = {
        row: _command(data_name, {**changes, **own[row]}, k)
        for row in configs
        if quantisers[row] is None  # no command of its own: its table's makes it
    }
    result = {"rows": shown, "commands": commands, "cells": cells, "data": data | {"name": data_name}}
    result |= provenance(seeds=seeds, threads=threads)
    write_json(out / f"{name}.json", result)
    with replaced_file(out / f"{name}.md") as temporary:
        temporary.write_text(_markdown(shown, commands), "utf-8")
    return result


def read_parts(source: Path, out: Path) -> tuple[Interactions, Interactions, Path]:
    """(train, test, folder of the two), as they are, or 80% and 20% of every user's interactions, written to ``out``.

    Raises:
        ArgumentError: data without a split has ids that are no integers.
    """
    if not (source / "test.txt").is_file():
        parts = random_ratio(read_interactions(source), 0.2, seed=0)
        source = out / "data"
        write_lightgcn(source, *parts)
    return read_interactions(source), read_interactions(source, part="test"), source


def _run(
    train: Interactions,
    test: Interactions,
    config: Config,
    k: int,
    starts: Path,
    quantiser: str | None,
    *,
    device: str,
    threads: int | None,
    report: Callable[[Any], None],
) -> dict[str, Any]:
    """Train and judge one cell."""
    seconds, alone = 0.0, _encoder_alone(config)
    if alone is not None:
        folder = starts / digest({"config": alone.to_dict(), "data": train.fingerprint()})
        if not folder.exists():
            starts.mkdir(parents=True, exist_ok=True)
            LightGCN(config=alone, device=device, threads=threads).fit(train, report=report).save(folder)
        seconds = load_artifact(folder).provenance["seconds"]
        config = config.updated({"train.init": str(folder)})
    if quantiser is not None:
        return _quantised(train, test, config, k, starts, quantiser, device=device, threads=threads, report=report)
    kind = LightGCN if config.model.kind == "lightgcn" else HashLGN
    model = kind(config=config, device=device, threads=threads).fit(train, report=report)
    judged = evaluate(model, test, k).at(k)
    info = model.info()
    return {
        "recall": judged.mean("recall"),
        "ndcg": judged.mean("ndcg"),
        "validation": info["metrics"]["validation"],
        "bytes_per_item": info["bytes_per_item"],
        "seconds": seconds + info["provenance"]["seconds"],
    }


def _quantised(
    train: Interactions,
    test: Interactions,
    config: Config,
    k: int,
    starts: Path,
    quantiser: str,
    *,
    device: str,
    threads: int | None,
    report: Callable[[Any], None],
) -> dict[str, Any]:
    """Train the float model, quantise its items, and judge the codes."""
    from hashlgn.experiments.baselines.quantizers import quantise

    bits, scale = config.model.bits, config.model.scale and not quantiser.endswith("-hamming")
    alone = _without_codes(config)
    folder = starts / digest({"config": alone.to_dict(), "data": train.fingerprint()})
    if not folder.exists():
        starts.mkdir(parents=True, exist_ok=True)
        LightGCN(config=alone, device=device, threads=threads).fit(train, report=report).save(folder)
    served = load_artifact(folder)
    seconds = served.provenance["seconds"]
    found = quantise(served.items.decode(), quantiser, bits, scale=scale, seed=config.train.seed)
    users = found.queries(served.users)
    coded = replace(served, kind=quantiser, users=users, items=found.items, fold_in=None, encoder_state=None)
    judged = evaluate(Recommender(coded, threads=threads), test, k).at(k)
    return {
        "recall": judged.mean("recall"),
        "ndcg": judged.mean("ndcg"),
        "validation": served.metrics["validation"],
        "bytes_per_item": found.items.bytes_per_item,
        "seconds": seconds,
    }


def _encoder_alone(config: Config) -> Config | None:
    """The float training that equals this one's first stage; None where it has none."""
    epochs = int(config.train.warmup * config.train.epochs)
    trained = config.model.encoder != "spectral" and config.train.init in ("svd", "random")
    if config.model.kind == "lightgcn" or not trained or not epochs:
        return None
    return _without_codes(config).updated({"model.kind": "lightgcn", "train.epochs": epochs})


def _without_codes(config: Config) -> Config:
    """The same configuration, with the defaults for what the encoder's own training does not depend on."""
    default = Config()
    plain = {
        f"{section}.{key}": getattr(getattr(default, section), key)
        for section in ("model", "train")
        for key in _CODES
        if hasattr(getattr(default, section), key)
    }
    return config.updated(plain)


def _row(name: str, cells: list[dict[str, Any]], k: int) -> dict[str, Any]:
    """A line of the table: means over seeds, each with half the width of its 95% interval by Student's t."""
    row: dict[str, Any] = {"row": name, "bytes/item": cells[0]["bytes_per_item"]}
    for metric in ("recall", "ndcg"):
        mean, half = interval([cell[metric] for cell in cells])
        width = None if half is None else round(half, 4)
        row |= {f"{metric}@{k}": round(mean, 4), "±" if metric == "recall" else "± ": width}
    return row | {"seeds": len(cells), "train s": round(statistics.mean(cell["seconds"] for cell in cells), 1)}


def _command(data: str, changes: Mapping[str, Any], k: int) -> str:
    """How one cell of a row is had by hand, under seed 0."""
    settings = "".join(
        f" --set {key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in changes.items()
    )
    return f"hashlgn train {data} --out MODEL --seed 0{settings} && hashlgn evaluate MODEL --test {data} --k {k}"


def _markdown(rows: list[dict[str, Any]], commands: Mapping[str, str]) -> str:
    how = "\n".join(f"* {name}: `{command}`" for name, command in commands.items())
    return (
        f"{markdown(rows)}\n\n± is half the width of the 95% interval of the mean over seeds (Student's t).\n\n{how}\n"
    )
