"""Search for the hyper-parameters of one data set: an Optuna study in a SQLite file, evaluated on validation alone.

The study is a folder: ``study.db``, and from it ``best.toml``, which ``hashlgn train --config`` reads, ``trials.json``,
and Optuna's own plots ``history.png`` and ``trials.png``.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hashlgn.config import Config
from hashlgn.config.loading import by_key
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, need, positive_int
from hashlgn.estimators import HashLGN, LightGCN
from hashlgn.experiments.common.runs import checked, has_encoder
from hashlgn.experiments.common.tables import write_text
from hashlgn.utils.console import training_bar, write_json
from hashlgn.utils.provenance import provenance
from hashlgn.utils.storage import replaced_file

_STARTUP = 5  # trials that must have come to their end before another one is measured by them


@dataclass(frozen=True)
class Range:
    """Where a number is looked for, and for which configurations it matters at all."""

    low: float
    high: float
    log: bool
    matters: Callable[[Config], bool]


def _coded(config: Config) -> bool:
    return config.model.kind == "hashlgn" and config.model.encoder is not None


def _has_layers(config: Config) -> bool:
    from hashlgn.training.encoders import ENCODERS

    return ENCODERS[str(config.model.encoder)].has_layers


def _student(config: Config) -> bool:
    return config.model.encoder is None


def _softmax(config: Config) -> bool:
    return not _student(config) and config.train.loss == "softmax"


SPACE: dict[str, Range] = {
    "student.lr": Range(0.001, 0.02, True, _student),
    "student.code_lr": Range(3e-4, 0.01, True, lambda c: _student(c) and _in_bits(c)),
    "student.temperature": Range(0.05, 0.5, True, _student),
    "student.hidden": Range(0.2, 0.9, False, _student),
    "student.user_weight": Range(-1.0, 0.0, False, _student),
    "student.ease_penalty": Range(5.0, 500.0, True, lambda c: _student(c) and c.student.teacher != "labels"),
    "train.lr": Range(0.003, 0.2, True, lambda c: has_encoder(c) and (not _coded(c) or c.train.pretrain_epochs > 0)),
    "train.joint_lr": Range(1e-4, 0.03, True, lambda c: _coded(c) and has_encoder(c)),
    "train.code_lr": Range(1e-4, 0.03, True, _coded),
    "train.temperature": Range(0.03, 0.5, True, lambda c: not _student(c) and (c.train.loss != "bpr" or _cosine(c))),
    "train.user_weight": Range(-1.0, 0.0, False, _softmax),
    "train.l2": Range(1e-6, 1e-2, True, lambda c: not _softmax(c) and has_encoder(c)),
    "model.layers": Range(0, 4, False, lambda c: has_encoder(c) and _has_layers(c)),
    "model.norm_penalty": Range(0.1, 30.0, True, lambda c: _coded(c) and not c.model.scale and _cosine(c)),
}


def _cosine(config: Config) -> bool:
    return config.model.similarity == "cosine"


def _in_bits(config: Config) -> bool:
    """Whether a side of a student is codes."""
    return config.model.kind == "hashlgn" and "codes" in (config.model.answers, config.model.histories)


def varied(base: Config, fixed: Iterable[str] = ()) -> dict[str, Range]:
    """The part of ``SPACE`` that matters to a configuration, less what is fixed; widened to hold the base itself."""
    space: dict[str, Range] = {}
    if not _student(base) and not has_encoder(base) and not (_coded(base) and base.model.hash != "residual"):
        return space  # in closed form
    held = by_key(base.to_dict())
    for name, where in SPACE.items():
        value = held[name]
        if name in fixed or not where.matters(base) or (where.log and value <= 0):  # a logarithm has no place for 0
            continue
        space[name] = Range(min(where.low, value), max(where.high, value), where.log, where.matters)
    return space


def tune(
    data: Interactions,
    out: str | Path,
    base: Config | None = None,
    *,
    fixed: Iterable[str] = (),
    trials: int = 50,
    timeout: float | None = None,
    device: str = "auto",
    threads: int | None = None,
    quiet: bool = True,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Search, or go on with the search that ``out`` holds; arguments are the options of ``hashlgn tune``.

    The base is the first trial, so the best is no worse, as far as validation can tell. A trial is given up where its
    best value so far lies below the median of the trials that came to their end (Optuna's ``MedianPruner``). Test data
    has no part in any of it. One process at a time works on a study; one that was killed goes on with the trial it was
    at, and ends as it would have. ``train.seed`` fixes the draws of the search too.

    Returns:
        What ``trials.json`` holds: ``best``, ``rows`` (one per trial), what was searched and where it comes from.

    Raises:
        ArgumentError: an argument breaks its rule, or the folder holds a search over other data or settings.
        MissingExtraError: PyTorch, Optuna or matplotlib is not installed.
    """
    need("torch", "train", "tuning")
    optuna = need("optuna", "tune", "tuning")
    need("matplotlib", "tune", "the plot of a search")
    out, base, fixed = Path(out), _resolved(base or Config(), data.n_items), set(fixed)
    _check(base, trials, timeout)
    space = varied(base, fixed)
    if not space:
        raise ArgumentError(
            f"fixed must leave something to vary (got {sorted(fixed)}; encoder {base.model.encoder!r} has no rest)"
        )
    bounds = {name: [where.low, where.high] for name, where in space.items()}
    setting = {"data": data.fingerprint(), "base": base.to_dict(), "space": bounds}
    start = {name: by_key(base.to_dict())[name] for name in space}
    study = _study(optuna, out, setting, start)
    began = time.perf_counter()
    try:
        while len(_rows(study)) < trials and (timeout is None or time.perf_counter() - began < timeout):
            done = len(_rows(study))
            trial = _asked(optuna, study, base.train.seed, done)
            values = {name: _drawn(trial, name, where, start[name]) for name, where in space.items()}
            with training_bar(_monitor(base), quiet=quiet, title=f"trial {done + 1}/{trials}: ") as bar:
                model = _estimator(base.updated(values), device=device, threads=threads)
                _run(optuna, study, trial, model, data, bar, first=values == start)
            row = _rows(study)[-1]
            if say:
                shown = f"{_monitor(base)} {row['value']:.4f}" if row["value"] is not None else row["state"]
                drawn = "  ".join(f"{name}={value:.4g}" for name, value in values.items())
                say(f"trial {done + 1}/{trials}  {shown}  {row['seconds']:.0f} s  {drawn}")
            result = _write(study, out, base, setting)
    finally:
        if any(row["value"] is not None for row in _rows(study)):
            result = _write(study, out, base, setting)
            _plot(optuna, study, out)
    return result


def _check(base: Config, trials: int, timeout: float | None) -> None:
    positive_int("trials", trials)
    if timeout is not None and not 0 < timeout < math.inf:
        raise ArgumentError(f"timeout must be a positive number of seconds (got {timeout!r})")
    positive_int("train.validation_users", base.train.validation_users)
    if not _student(base):
        epochs = base.train.pretrain_epochs + base.train.joint_epochs
        positive_int("train.pretrain_epochs + train.joint_epochs", epochs)


def _asked(optuna: Any, study: Any, seed: int, done: int) -> Any:
    """The next trial. Its draws depend on the seed and on the number of trials before it alone, so that a search that
    was stopped goes on as it would have.
    """
    draw = np.random.SeedSequence([seed, done]).generate_state(1)
    study.sampler = optuna.samplers.TPESampler(seed=int(draw[0]))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP)
    return study.ask()


def _resolved(base: Config, n_items: int) -> Config:
    """With what is open and varied filled in; a float model has an encoder, LightGCN where none is named."""
    from hashlgn.training.student import plan

    if base.model.kind == "float" and base.model.encoder is None:
        base = base.updated({"model.encoder": "lightgcn"})
    return checked(base).updated({"student.hidden": plan.resolved(base, n_items).student.hidden})


def _study(optuna: Any, out: Path, setting: dict[str, Any], start: dict[str, Any]) -> Any:
    """The study of a folder, rid of what a killed process left; where no trial is done the start is next."""
    place = out.resolve() / "study.db"
    if "?" in str(place):  # all that follows would be options of the connection
        raise ArgumentError(f"out must be a folder without '?' in its path (got {str(out)!r})")
    out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if place.exists() and place.read_bytes()[:15] not in (b"", b"SQLite format 3"):
        raise ArgumentError(f"out must be empty or hold a search (got {str(out)!r}, whose study.db is damaged)")
    study = optuna.create_study(
        storage=f"sqlite:///{place}", study_name="hashlgn", direction="maximize", load_if_exists=True
    )
    held = study.user_attrs.get("setting")
    wanted = json.loads(json.dumps(setting))
    if held is None:
        study.set_user_attr("setting", wanted)
    elif held != wanted:
        differ = ", ".join(key for key in wanted if held.get(key) != wanted[key])
        raise ArgumentError(
            f"out must be a new folder or hold a search over the same data and settings (got {str(out)!r}, which "
            f"differs in {differ})"
        )
    # A trial without an end is drawn again as it was: the draw depends on the trials that have one.
    state = optuna.trial.TrialState
    for trial in study.get_trials(states=(state.RUNNING,)):
        study.tell(trial.number, state=state.FAIL)
    if not _rows(study) and not study.get_trials(states=(state.WAITING,)):
        study.enqueue_trial(start)
    return study


def _run(
    optuna: Any,
    study: Any,
    trial: Any,
    model: HashLGN | LightGCN,
    data: Interactions,
    bar: Callable[[Any], None],
    *,
    first: bool,
) -> None:
    """Train one trial to its end, or until it is hopeless, and tell the study.

    A training that explodes is a trial without a value; of the first one, whose values the caller gave, it is an error.
    """
    state = optuna.trial.TrialState
    began = time.perf_counter()

    def report(step: Any) -> None:
        bar(step)
        if step.metric is not None:
            trial.report(step.metric, step.step)
            if trial.should_prune():
                raise optuna.TrialPruned

    config = model.configuration
    value, end = None, state.COMPLETE
    try:
        model.fit(data, report=report)
        stages = list(model.model.metrics["validation"].values())
        value = max(stages) if _student(config) and not _in_bits(config) else stages[-1]  # the better floats are kept
    except optuna.TrialPruned:
        end = state.PRUNED
    except ArgumentError:
        if first:
            raise
        end = state.FAIL
    trial.set_user_attr("seconds", round(time.perf_counter() - began, 3))
    study.tell(trial, value, state=end)


def _estimator(config: Config, **how: Any) -> HashLGN | LightGCN:
    return (HashLGN if config.model.kind == "hashlgn" else LightGCN)(config=config, **how)


def _drawn(trial: Any, name: str, where: Range, like: float) -> float:
    if isinstance(like, int):
        return int(trial.suggest_int(name, int(where.low), int(where.high)))
    return float(trial.suggest_float(name, where.low, where.high, log=where.log))


def _rows(study: Any) -> list[dict[str, Any]]:
    """Every trial that came to an end of its own, in order; those of killed processes were begun anew."""
    return [
        {
            "trial": number,
            "state": {"COMPLETE": "done", "PRUNED": "given up"}.get(trial.state.name, "exploded"),
            "value": trial.value if trial.state.name == "COMPLETE" else None,
            "seconds": trial.user_attrs["seconds"],
            **trial.params,
        }
        for number, trial in enumerate((t for t in study.trials if "seconds" in t.user_attrs), 1)
    ]


def _write(study: Any, out: Path, base: Config, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``best.toml`` and ``trials.json``; what the latter holds."""
    rows = _rows(study)
    done = [row for row in rows if row["value"] is not None]
    best = max(done, key=lambda row: row["value"])
    config = base.updated({name: best[name] for name in setting["space"]})
    head = (
        f"# The best of {len(rows)} trials: number {best['trial']}, validation {_monitor(base)} {best['value']:.4f}.\n"
        f"# Data {setting['data']}.\n"
    )
    write_text(out / "best.toml", head + config.to_toml())
    result = {"best": best, "monitor": _monitor(base), "rows": rows, "setting": dict(setting)}
    result |= provenance(seed=base.train.seed)
    write_json(out / "trials.json", result)
    return result


def _plot(optuna: Any, study: Any, out: Path) -> None:
    """Optuna's plots: the value of every trial in order, and against each number that was varied."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        from matplotlib import pyplot

        plots = optuna.visualization.matplotlib
        for name, draw in (("history", plots.plot_optimization_history), ("trials", plots.plot_slice)):
            axes = draw(study)
            figure = np.ravel(axes)[0].figure
            with replaced_file(out / f"{name}.png") as temporary:
                figure.savefig(temporary, format="png", dpi=120, bbox_inches="tight", metadata={"Software": None})
            pyplot.close(figure)


def _monitor(config: Config) -> str:
    return f"{config.train.monitor}@{config.train.monitor_k}"
