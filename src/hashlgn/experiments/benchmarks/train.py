"""Training measured: time and memory by size, and time to a given quality, of our recipes and of others'.

Every measurement is a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hashlgn.config import Config
from hashlgn.data import Interactions, random_ratio, read_interactions
from hashlgn.data.synthetic import synthetic
from hashlgn.errors import ArgumentError, HashLGNError, choose, need, positive_int
from hashlgn.estimators import LightGCN, train_model
from hashlgn.experiments.common.measure import alone, memory
from hashlgn.experiments.common.runs import checked
from hashlgn.utils.provenance import provenance

__all__ = ["OTHERS", "VARIANTS", "bench_train"]

_LIGHTGCN = {"model.encoder": "lightgcn"}
_PAPER = {"model.hash": "mlp3", "model.decoder": "reweight", "train.loss": "bpr"}
VARIANTS: dict[str, dict[str, Any]] = {
    "student": {},
    "lightgcn": _LIGHTGCN | {"model.kind": "float"},
    "lightgcn-bpr": _LIGHTGCN | {"model.kind": "float", "train.loss": "bpr"},
    "lightgcn-codes": _LIGHTGCN,
    "paper": _LIGHTGCN | _PAPER,
}
OTHERS = ("reference", "pyg")

_ENDLESS = 1_000_000  # epochs of a measurement that its time ends


@dataclass(frozen=True)
class _Task:
    """One measurement, as its process is told."""

    variant: str
    source: Path | int  # interactions to read, or how many to make
    seconds: float
    target: float | None
    threads: int | None
    device: str
    seed: int
    changes: Mapping[str, Any]

    def config(self) -> Config:
        """What our variant is trained with, and for the others how they are validated."""
        validated = {"train.monitor": "recall", "train.monitor_k": 20, "train.validate_every": 1}
        # Without validation, and of the joint training from the first step on: the encoder's steps are LightGCN's.
        timed = {"train.validation_users": 0, "train.pretrain_epochs": 0, "train.joint_epochs": _ENDLESS}
        # Of a student, the stage of the labels: the others have steps of another cost.
        later = {f"student.{stage}_epochs": 0 for stage in ("distillation", "code", "settle")}
        how = timed | {"student.epochs": _ENDLESS, **later} if self.target is None else validated
        changes = {**VARIANTS.get(self.variant, {}), **self.changes, **how, "train.seed": self.seed}
        return checked(Config().updated(changes))


@dataclass
class _Trace:
    """How a training went: seconds since it began, after every step; and every validation of what is to be served."""

    steps_per_epoch: int = 1
    epochs: int = 0
    moments: list[float] = field(default_factory=list)
    recalls: list[tuple[float, float]] = field(default_factory=list)  # (seconds, Recall@20)

    def note(self, task: _Task, seconds: float, recall: float | None, *, stepped: bool = True) -> None:
        """Keep a report, and end the training once it has shown enough."""
        if stepped:
            self.moments.append(seconds)
        if recall is not None:
            self.recalls.append((seconds, recall))
        reached = recall is not None and task.target is not None and recall >= task.target
        begun = self.moments[0] if task.target is None else 0.0
        if reached or (len(self.moments) > 1 and seconds - begun > task.seconds):
            raise _Enough


class _Enough(HashLGNError):
    """Ends a training that has been measured."""


def bench_train(
    data: Path | None = None,
    *,
    sizes: Sequence[int] = (1_000_000,),
    variants: Sequence[str] | None = None,
    seconds: float = 20.0,
    target: float | None = None,
    threads: int | None = None,
    device: str = "auto",
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure every variant on all data, in turn; arguments are the options of ``hashlgn bench train``.

    Without a target, steps are timed: no validation, codes from the first step on, ended when ``seconds`` have passed
    since that step. With one, each recipe runs as it is, validated after every epoch, until what it would serve has
    that Recall@20 on the validation slice, or the recipe ends, or ``seconds`` are over; preparation and validation
    count. A student is validated at its end. Made data have a user for 50 interactions and an item for 200.

    Returns:
        ``rows``, one a measurement, and the provenance. ``start s`` are the seconds up to the end of the first step;
        ``s/epoch`` is the mean step after it times the steps of an epoch (``epochs`` tells how many were measured);
        ``ns/interaction`` is that divided by the interactions; ``peak MB`` is the most memory in training, data
        included, less what the process held before there was data. With a target, ``s/epoch`` has preparation and
        validations in it. A process that dies, as for want of memory, leaves a row that says so.

    Raises:
        ArgumentError: an argument breaks its rule.
        MissingExtraError: PyTorch is not installed, or for ``pyg`` PyTorch Geometric.
    """
    need("torch", "train", "bench train")
    from hashlgn.training.resolve import resolve_device

    where = resolve_device(device).type
    if not 0 < seconds < math.inf:
        raise ArgumentError(f"seconds must be positive and finite (got {seconds!r})")
    if target is not None and not 0 < target < 1:
        raise ArgumentError(f"target must lie between 0 and 1 (got {target!r})")
    sources: list[Path | int] = [positive_int("synthetic", size) for size in sizes] if data is None else [data]
    tasks = [
        _Task(variant, source, seconds, target, threads, where, seed, dict(changes or {}))
        for source in sources
        for variant in (VARIANTS if variants is None else variants)
    ]
    for task in tasks:
        choose("variants", task.variant, VARIANTS | dict.fromkeys(OTHERS))
        task.config()
        if task.variant == "pyg":
            need("torch_geometric", "bench", "the variant 'pyg'")
    rows = []
    for task in tasks:
        rows.append(_alone(task))
        if say:
            say("  ".join(f"{name} {value}" for name, value in rows[-1].items() if value not in (None, "")))
    setting = {"data": None if data is None else str(data), "seconds": seconds, "target": target}
    return {
        "rows": rows,
        "setting": setting | {"changes": changes or {}},
        **provenance(seed=seed, threads=threads, device=where),
    }


def _alone(task: _Task) -> dict[str, Any]:
    """The row of one measurement, from a process of its own."""
    try:
        return alone(_measure, task)
    except (BrokenProcessPool, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not isinstance(error, BrokenProcessPool) and "memory" not in str(error):
            raise
        names = _row(task, 1, _Trace(), 0, 0.0)
        known = {"variant": task.variant, "interactions": task.source if isinstance(task.source, int) else None}
        return dict.fromkeys(names) | known | {"note": "died, most likely for want of memory"}


def _measure(task: _Task) -> dict[str, Any]:
    if task.variant == "pyg":
        need("torch_geometric", "bench", "the variant 'pyg'")
    # What PyTorch loads when first used is neither time nor memory of the training.
    LightGCN(config={"train.pretrain_epochs": 0, "train.joint_epochs": 1, "train.init": "random"}).fit(
        synthetic(20, 20, 100), progress=False
    )
    before = memory("VmRSS") or 0
    if isinstance(task.source, Path):
        data = read_interactions(task.source)
    else:
        n = task.source
        data = synthetic(max(n // 50, 200), max(n // 200, 200), n, seed=task.seed, titles=False)
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # what made the data is not training: forget its peak
    trace, began = _Trace(), time.perf_counter()
    with contextlib.suppress(_Enough):
        (_run_other if task.variant in OTHERS else _run_ours)(task, data, trace)
    return _row(task, len(data), trace, (memory("VmHWM") or 0) - before, time.perf_counter() - began)


def _run_ours(task: _Task, data: Interactions, trace: _Trace) -> None:
    config = task.config()

    def report(step: Any) -> None:
        # One that is to have codes is not served before it has them.
        final = config.model.kind == "float" or step.stage == "joint"
        trace.epochs += step.epoch_done
        trace.steps_per_epoch = max(1, step.steps // step.epochs)
        trace.note(task, step.seconds, step.metric if final else None)

    began = time.perf_counter()
    trained = train_model(data, config, threads=task.threads, device=task.device, report=report)
    if config.model.encoder is None and trained.metrics:
        trace.note(task, time.perf_counter() - began, list(trained.metrics.values())[-1], stepped=False)


def _run_other(task: _Task, data: Interactions, trace: _Trace) -> None:
    if task.threads is not None:
        need("torch", "train", "bench train").set_num_threads(task.threads)
    from hashlgn.training.validation import ranking_metric

    config, began = task.config(), time.perf_counter()
    fit, held_out = data, None
    if task.target is not None:
        share, users = config.train.validation_share, config.train.validation_users
        fit, held_out = random_ratio(data, share, seed=task.seed, max_users=users)
    from hashlgn.experiments.baselines.lightgcn_reference import CONTENDERS

    other = CONTENDERS[task.variant](fit, seed=task.seed, device=task.device)
    trace.steps_per_epoch = other.steps_per_epoch
    for _ in range(_ENDLESS):
        for _ in other.epoch():
            trace.note(task, time.perf_counter() - began, None)
        trace.epochs += 1
        if held_out is not None:
            recall = ranking_metric(*other.embeddings(), fit, held_out, config)
            trace.note(task, time.perf_counter() - began, recall, stepped=False)


def _row(task: _Task, size: int, trace: _Trace, peak: int, seconds: float) -> dict[str, Any]:
    """What is shown of a measurement."""
    note, recalls, target = "", trace.recalls, task.target
    if target is None:
        shown, note = _timed(trace, size), "" if len(trace.moments) > 1 else "no steps"
    else:
        shown = {
            "best recall@20": round(max(recall for _, recall in recalls), 4) if recalls else None,
            "s to target": next((round(at, 1) for at, recall in recalls if recall >= target), None),
            "epochs": trace.epochs,
            "s": round(seconds, 1),
        }
    memory = {"peak MB": round(peak / 1e6), "bytes/interaction": round(peak / size)}
    return {"variant": task.variant, "interactions": size} | shown | memory | {"note": note}


def _timed(trace: _Trace, size: int) -> dict[str, Any]:
    """Times of steps; None where there were fewer than two."""
    moments, steps = trace.moments, trace.steps_per_epoch
    many = len(moments) > 1
    step = (moments[-1] - moments[0]) / (len(moments) - 1) if many else math.nan
    shown = {
        "start s": moments[0] if moments else None,
        "ms/step": 1000 * step,
        "steps/epoch": steps,
        "epochs": max(len(moments) - 1, 0) / steps,
        "s/epoch": step * steps,
        "ns/interaction": 1e9 * step * steps / size,
    }
    return {
        name: None if value is None or math.isnan(value) else round(value, 0 if value >= 1000 else 3)
        for name, value in shown.items()
    }
