"""Training measured: time and memory of a step by size, of our recipes and of LightGCN's own.

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
from hashlgn.data import Interactions, read_interactions
from hashlgn.data.synthetic import synthetic
from hashlgn.errors import ArgumentError, HashLGNError, choose, need, positive_int
from hashlgn.estimators import LightGCN, train_model
from hashlgn.experiments.common.measure import alone, memory
from hashlgn.experiments.common.runs import checked
from hashlgn.utils.provenance import provenance

VARIANTS: dict[str, dict[str, Any]] = {
    "student": {},
    "lightgcn": {"model.encoder": "lightgcn", "model.kind": "float"},
    "lightgcn-codes": {"model.encoder": "lightgcn"},
}
REFERENCE = "reference"  # the recipe of LightGCN's authors

_ENDLESS = 1_000_000  # epochs of a measurement that its time ends


@dataclass(frozen=True)
class _Task:
    """One measurement, as its process is told."""

    variant: str
    source: Path | int  # interactions to read, or how many to make
    seconds: float
    threads: int | None
    device: str
    seed: int
    changes: Mapping[str, Any]

    def config(self) -> Config:
        """What our variant is trained with."""
        # Without validation, and of the joint training from the first step on: the encoder's steps are LightGCN's.
        how = {"train.validation_users": 0, "train.pretrain_epochs": 0, "train.joint_epochs": _ENDLESS}
        # Of a student, the stage of the labels: the others have steps of another cost.
        how |= {"student.epochs": _ENDLESS, **{f"student.{s}_epochs": 0 for s in ("distillation", "code", "settle")}}
        changes = {**VARIANTS.get(self.variant, {}), **self.changes, **how, "train.seed": self.seed}
        return checked(Config().updated(changes))


@dataclass
class _Trace:
    """How a training went: seconds since it began, after every step."""

    steps_per_epoch: int = 1
    moments: list[float] = field(default_factory=list)

    def note(self, task: _Task, seconds: float) -> None:
        """Keep the moment of a step, and end the training once it has shown enough."""
        self.moments.append(seconds)
        if len(self.moments) > 1 and seconds - self.moments[0] > task.seconds:
            raise _Enough


class _Enough(HashLGNError):
    """Ends a training that has been measured."""


def bench_train(
    data: Path | None = None,
    *,
    sizes: Sequence[int] = (1_000_000,),
    variants: Sequence[str] | None = None,
    seconds: float = 20.0,
    threads: int | None = None,
    device: str = "auto",
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure every variant on all data, in turn; arguments are the options of ``hashlgn bench train``.

    Steps are timed: no validation, codes from the first step on, ended when ``seconds`` have passed since that step.
    Made data have a user for 50 interactions and an item for 200.

    Returns:
        ``rows``, one a measurement, and the provenance. ``start s`` are the seconds up to the end of the first step;
        ``s/epoch`` is the mean step after it times the steps of an epoch (``epochs`` tells how many were measured);
        ``ns/interaction`` is that divided by the interactions; ``peak MB`` is the most memory in training, data
        included, less what the process held before there was data. A process that dies, as for want of memory, leaves
        a row that says so.

    Raises:
        ArgumentError: an argument breaks its rule.
        MissingExtraError: PyTorch is not installed.
    """
    need("torch", "train", "bench train")
    from hashlgn.training.resolve import resolve_device

    where = resolve_device(device).type
    if not 0 < seconds < math.inf:
        raise ArgumentError(f"seconds must be positive and finite (got {seconds!r})")
    sources: list[Path | int] = [positive_int("synthetic", size) for size in sizes] if data is None else [data]
    tasks = [
        _Task(variant, source, seconds, threads, where, seed, dict(changes or {}))
        for source in sources
        for variant in (VARIANTS if variants is None else variants)
    ]
    for task in tasks:
        choose("variants", task.variant, {**VARIANTS, REFERENCE: {}})
        task.config()
    rows = []
    for task in tasks:
        rows.append(_alone(task))
        if say:
            say("  ".join(f"{name} {value}" for name, value in rows[-1].items() if value not in (None, "")))
    setting = {"data": None if data is None else str(data), "seconds": seconds, "changes": changes or {}}
    return {"rows": rows, "setting": setting, **provenance(seed=seed, threads=threads, device=where)}


def _alone(task: _Task) -> dict[str, Any]:
    """The row of one measurement, from a process of its own."""
    try:
        return alone(_measure, task)
    except (BrokenProcessPool, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not isinstance(error, BrokenProcessPool) and "memory" not in str(error):
            raise
        names = _row(task, 1, _Trace(), 0)
        known = {"variant": task.variant, "interactions": task.source if isinstance(task.source, int) else None}
        return dict.fromkeys(names) | known | {"note": "died, most likely for want of memory"}


def _measure(task: _Task) -> dict[str, Any]:
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
    trace = _Trace()
    with contextlib.suppress(_Enough):
        (_run_reference if task.variant == REFERENCE else _run_ours)(task, data, trace)
    return _row(task, len(data), trace, (memory("VmHWM") or 0) - before)


def _run_ours(task: _Task, data: Interactions, trace: _Trace) -> None:
    def report(step: Any) -> None:
        trace.steps_per_epoch = max(1, step.steps // step.epochs)
        trace.note(task, step.seconds)

    train_model(data, task.config(), threads=task.threads, device=task.device, report=report)


def _run_reference(task: _Task, data: Interactions, trace: _Trace) -> None:
    if task.threads is not None:
        need("torch", "train", "bench train").set_num_threads(task.threads)
    from hashlgn.experiments.baselines.lightgcn_reference import Reference

    began = time.perf_counter()
    other = Reference(data, seed=task.seed, device=task.device)
    trace.steps_per_epoch = other.steps_per_epoch
    while True:
        for _ in other.epoch():
            trace.note(task, time.perf_counter() - began)


def _row(task: _Task, size: int, trace: _Trace, peak: int) -> dict[str, Any]:
    """What is shown of a measurement."""
    memory = {"peak MB": round(peak / 1e6), "bytes/interaction": round(peak / size)}
    note = "" if len(trace.moments) > 1 else "no steps"
    return {"variant": task.variant, "interactions": size} | _timed(trace, size) | memory | {"note": note}


def _timed(trace: _Trace, size: int) -> dict[str, Any]:
    """Times of steps; None where there were fewer than two."""
    moments, steps = trace.moments, trace.steps_per_epoch
    many = len(moments) > 1
    step = (moments[-1] - moments[0]) / (len(moments) - 1) if many else math.nan
    return {
        "start s": _digits(moments[0]) if moments else None,
        "ms/step": _digits(1000 * step),
        "steps/epoch": steps,
        "epochs": _digits(max(len(moments) - 1, 0) / steps),
        "s/epoch": _digits(step * steps),
        "ns/interaction": _digits(1e9 * step * steps / size),
    }


def _digits(value: float) -> float | None:
    """Four significant digits, however small the figure."""
    return None if math.isnan(value) else float(f"{value:.4g}")
