"""A table of runs over seeds: made by the runner, evaluated on the test part, written as JSON and Markdown."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hashlgn.config import Config
from hashlgn.config.loading import by_key
from hashlgn.data import Interactions, global_time, leave_last, random_ratio, read_interactions
from hashlgn.data.sources import resolved
from hashlgn.data.synthetic import write_lightgcn
from hashlgn.errors import choose, positive_int
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.experiments.common.runs import ENCODER_FLOATS, FLOATS, Run, Runner, has_encoder, sizes
from hashlgn.experiments.common.tables import interval, markdown, write_text
from hashlgn.inference.recommender import Recommender
from hashlgn.utils.console import write_json
from hashlgn.utils.provenance import provenance

# How data without a split is split: 80% and 20% of every user's interactions at random, everybody's last interaction,
# or everything from one moment on, which is 20% of all.
SPLITS: dict[str, Callable[[Interactions], tuple[Interactions, Interactions]]] = {
    "ratio": lambda data: random_ratio(data, 0.2, seed=0),
    "leave-last": lambda data: leave_last(data, 1),
    "time": lambda data: global_time(data, 0.2),
}

# What the training of floats does not depend on; runs that differ in these alone share it.
_CODES = (
    *("model.bits", "model.hash", "model.decoder", "model.compression", "model.scale"),
    *("model.norm_penalty", "model.guidance"),
    *("train.joint_loss", "train.joint_temperature", "train.joint_lr", "train.code_lr"),
    *("model.history_bits", "student.code_epochs", "student.code_lr", "student.settle_epochs", "student.settle_lr"),
)


def study(
    name: str,
    train: Interactions,
    test: Interactions,
    out: str | Path,
    runs: Sequence[Run],
    *,
    command: Callable[[Run], str],
    seeds: int = 3,
    k: int = 50,
    data_name: str = "DATA",
    **how: Any,
) -> dict[str, Any]:
    """Evaluate the runs that are not there yet, and write the table.

    Where a run's encoder is trained alone first, that training is done once for all runs that have it in common, and
    they go on from it; they end as if each had done it itself. Its seconds are counted in each. Nothing is chosen
    here: the test part is looked at once for each run and seed, and for the table alone.

    The folder ``out`` receives ``runs/``, ``models/``, ``NAME.json`` and ``NAME.md``. ``command`` gives the options by
    which the study makes a quantizer's or a baseline's row alone; ``data_name`` stands for the data in it. Seeds are 0,
    1, … this many. ``how`` are device, threads, quiet and say, as of ``Runner``.

    Returns:
        What ``NAME.json`` holds: ``rows`` with means over seeds, half the width of their 95% t-interval (None for one
        seed), seconds of training; ``commands`` by row; ``runs``; and the provenance.

    Raises:
        ArgumentError: an argument or a configuration breaks its rule.
    """
    out = Path(out)
    positive_int("seeds", seeds)
    positive_int("k", k)
    started = [_started(run) for run in runs]  # which checks every configuration, before anything is written
    runner = Runner(train, out, **how)

    def evaluated(run: Run, seed: int) -> dict[str, Any]:
        made = runner.model(run, seed)
        cut = evaluate(Recommender(made.whole, threads=runner.threads), test, k).at(k)
        values = {metric: cut.mean(metric) for metric in ("recall", "ndcg")}
        more = {"bytes": sizes(made.whole), "seconds": made.seconds}
        return {**values, **made.details, **more, "settings": dict(made.settings)}

    results = runner.results(
        started,
        seeds,
        evaluated,
        lambda run: {"test": test.fingerprint(), "k": k},
        lambda result: f"recall@{k} {result['recall']:.4f}, ndcg@{k} {result['ndcg']:.4f}",
    )
    rows = [_row(row, found, k) for row, found in results.items()]
    commands = {run.name: _command(name, run, data_name, k, command(run)) for run in runs if run.name in results}
    result = {"rows": rows, "commands": commands, "runs": [one for found in results.values() for one in found]}
    result["data"] = {"train": train.fingerprint(), "test": test.fingerprint(), "name": data_name}
    result |= provenance(seeds=seeds, threads=runner.threads)
    write_json(out / f"{name}.json", result)
    listed = "\n".join(f"* {row}: `{line}`" for row, line in commands.items())
    note = "± is half the width of the 95% interval of the mean over seeds (Student's t)."
    write_text(out / f"{name}.md", f"{markdown(rows)}\n\n{note}\n\n{listed}\n")
    return result


def read_parts(source: str | Path, out: Path, split: str = "ratio") -> tuple[Interactions, Interactions, str]:
    """Read a data set, and split it as ``SPLITS`` says where it is not split; the parts are then written to ``out``.

    Returns:
        Train, test, and what the commands of the library take for both.

    Raises:
        ArgumentError: an unknown split, or data without a split has ids that are no integers.
        DownloadError: a published data set could not be fetched.
        DataError: a split by time of data without times, or the data cannot be read.
    """
    cut, source = choose("split", split, SPLITS), resolved(source)
    if not (source / "test.txt").is_file():
        parts = cut(read_interactions(source))
        source = out / f"data-{split}"
        write_lightgcn(source, *parts)
    return read_interactions(source), read_interactions(source, part="test"), str(source)


def _started(run: Run) -> Run:
    """The run with the float training that it shares with others: its own first stage, or what it quantizes."""
    config = run.config()
    if run.baseline is not None or run.start is not None:
        return run
    default = by_key(Config().to_dict())
    plain = by_key(config.to_dict()) | {name: default[name] for name in _CODES}
    if run.quantizer is not None:
        return replace(run, start=Run("float", plain | (FLOATS if config.model.encoder is None else ENCODER_FLOATS)))
    if config.model.kind == "float" or not config.train.pretrain_epochs or not has_encoder(config):
        return run
    return replace(run, start=Run("encoder", plain | ENCODER_FLOATS | {"train.joint_epochs": 0}))


def _row(name: str, results: Sequence[Mapping[str, Any]], k: int) -> dict[str, Any]:
    """A line of the table: means over seeds, each with half the width of its interval."""
    row: dict[str, Any] = {"row": name, **results[0]["bytes"]}
    for metric in ("recall", "ndcg"):
        mean, half = interval([result[metric] for result in results])
        width = None if half is None else round(half, 4)
        row |= {f"{metric}@{k}": round(mean, 4), "±" if metric == "recall" else "± ": width}
    seconds = statistics.mean(result["seconds"] for result in results)
    return row | {"seeds": len(results), "train s": round(seconds, 1)}


def _command(study: str, run: Run, data: str, k: int, own: str) -> str:
    """How one result of a row is had by hand, under seed 0."""
    source = shlex.quote(data)
    if run.quantizer is not None or run.baseline is not None:
        return f"hashlgn experiment {study} --data {source} --out OUT --seeds 1 --k {k} {own}"
    train = f"hashlgn train {source} --out MODEL --seed 0{options(run.changes)}"
    return f"{train} && hashlgn evaluate MODEL --test {source} --k {k}"


def options(changes: Mapping[str, Any]) -> str:
    """Changes as options of a command line."""
    settings = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in changes.items()]
    return "".join(f" --set {shlex.quote(setting)}" for setting in settings)
