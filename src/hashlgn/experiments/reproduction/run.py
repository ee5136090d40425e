"""The paper's experiment in one run: every method trained, evaluated and timed, then tables, figures and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, choose, need, positive_int
from hashlgn.experiments.common.runs import Run, Runner
from hashlgn.experiments.common.tables import write_text
from hashlgn.experiments.reproduction.evaluate import CUTS, evaluated
from hashlgn.experiments.reproduction.rows import METHODS, Row, rows_of_preset
from hashlgn.experiments.reproduction.tables import markdown_report, paired, tables
from hashlgn.experiments.reproduction.timing import timed
from hashlgn.utils.console import write_json
from hashlgn.utils.provenance import provenance

_TIMED = 5  # thresholds of a row at which its search is timed


def reproduce(
    train: Interactions,
    test: Interactions,
    out: str | Path,
    *,
    seeds: int = 3,
    preset: str = "quick",
    rows: Sequence[Row] | None = None,
    changes: Mapping[str, Any] | None = None,
    cuts: Sequence[int] = CUTS,
    data_name: str = "DATA",
    command: str = "hashlgn reproduce",
    **how: Any,
) -> dict[str, Any]:
    """Run what is not there yet, and write tables, figures and the page; arguments are the options of
    ``hashlgn reproduce``.

    ``rows`` are compared, those of the preset where it is None, by the top k of each of ``cuts``; ``changes`` are from
    every row's configuration; ``command``, for the report, is how this was run.

    Returns: what ``results.json`` holds.

    Raises:
        ArgumentError: an argument breaks its rule.
        MissingExtraError: a package of the extras ``train`` or ``report`` is not installed.
    """
    for module, extra in (("torch", "train"), ("matplotlib", "report"), ("jinja2", "report")):
        need(module, extra, "the reproduction")
    from hashlgn.experiments.reproduction.page import write_page

    quick = choose("preset", preset, {"quick": True, "full": False})
    seeds, cuts, out = positive_int("seeds", seeds), tuple(positive_int("cuts", cut) for cut in cuts), Path(out)
    chosen = _chosen(rows_of_preset(preset) if rows is None else rows, changes or {})
    runner = Runner(train, out, keep=True, **how)
    threads = runner.threads
    same = {"test": test.fingerprint(), "cuts": list(cuts), "threads": threads}

    def evaluate(run: Run, seed: int) -> Mapping[str, Any]:
        row = chosen[run.name]
        held_out = runner.slices(row.run, seed)[1]
        return evaluated(runner.model(row.run, seed), held_out, test, sweep=row.sweep, cuts=cuts, threads=threads)

    results = runner.results(
        [row.run for row in chosen.values()],
        seeds,
        evaluate,
        lambda run: same | {"sweep": chosen[run.name].sweep},
        partial(_line, cuts[0]),
    )
    times = _times(chosen, results, runner, test, cuts, repeats=1 if quick else 5, same=same)
    found = [one for each in results.values() for one in each]
    result: dict[str, Any] = {
        "preset": preset,
        "limited": quick and rows is None,
        "command": command,
        "data": {"name": data_name, "train": train.fingerprint(), "test": test.fingerprint(), **train.stats()},
        "tables": tables(list(chosen.values()), results, times)
        | {"paired": paired(_comparisons(chosen, results), results)},
        "times": times,
        "runs": [{key: value for key, value in one.items() if key != "per_user"} for one in found],
        "train_seconds": sum(one["own_seconds"] for one in found),
        **provenance(seeds=seeds, threads=threads, device=runner.device),
    }
    write_json(out / "results.json", result)
    write_text(out / "reproduction.md", markdown_report(result))
    write_page(out / "index.html", result, list(chosen.values()), {name: each[0] for name, each in results.items()})
    return result


def _line(cut: int, result: Mapping[str, Any]) -> str:
    return ", ".join(f"{metric}@{cut} {result['mips'][f'@{cut}'][metric]:.4f}" for metric in ("recall", "ndcg"))


def _chosen(rows: Sequence[Row], changes: Mapping[str, Any]) -> dict[str, Row]:
    chosen = {row.name: row.updated(changes) for row in rows}
    if not any(row.method in METHODS for row in chosen.values()):
        raise ArgumentError(f"rows must hold one of {', '.join(METHODS)} at least (got {', '.join(chosen) or 'none'})")
    return chosen


def _times(
    rows: Mapping[str, Row],
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    runner: Runner,
    test: Interactions,
    cuts: Sequence[int],
    *,
    repeats: int,
    same: Mapping[str, Any],
) -> dict[str, Any]:
    """Search times of the rows that are swept, under seed 0; a round takes about 90 s on MovieLens 1M."""
    measured = {name: row for name, row in rows.items() if row.sweep and name in results}
    ask = {name: _evenly([point["threshold"] for point in results[name][0]["sweep"]]) for name in measured}

    def measure() -> Mapping[str, Any]:
        models = {name: runner.model(row.run, 0).whole for name, row in measured.items()}
        return timed(models, ask, test, cuts=cuts, repeats=repeats, threads=runner.threads)

    timed_rows = {name: row.run.identity(0) for name, row in measured.items()}
    times, fresh = runner.result({**same, "times": timed_rows, "ask": ask, "repeats": repeats}, measure, 0)
    if fresh:
        runner.say(f"search times of {len(measured)} rows measured")
    return times


def _comparisons(rows: Mapping[str, Row], results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Our codes of the least bytes that were swept against every other row that is no code of ours."""
    ours = [name for name, row in rows.items() if row.method == "HashLGN" and row.how == "ours"]
    first = next((name for name in ours if rows[name].sweep), None)
    if first is None:
        return []
    return [(first, name) for name in rows if name not in ours and name in results]


def _evenly(values: Sequence[float]) -> list[float]:
    """``_TIMED`` of the values, or all where they are fewer, evenly."""
    return [values[int(at)] for at in np.linspace(0, len(values) - 1, min(_TIMED, len(values))).round()]
