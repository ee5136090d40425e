"""The paper's experiment in one run: every method trained, judged and timed, a file a cell, then tables and a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, choose, need, positive_int
from hashlgn.experiments.common.cache import kept
from hashlgn.experiments.reproduction.judge import CUTS, judged
from hashlgn.experiments.reproduction.rows import METHODS, Bench, Row, rows_of_preset
from hashlgn.experiments.reproduction.tables import markdown_report, paired, tables
from hashlgn.experiments.reproduction.timing import timed
from hashlgn.utils.console import write_json
from hashlgn.utils.provenance import provenance
from hashlgn.utils.storage import replaced_file

__all__ = ["reproduce"]

_TIMED = 5  # thresholds of a row at which its search is timed


def reproduce(
    train: Interactions,
    test: Interactions,
    out: str | Path,
    *,
    seeds: int = 3,
    preset: str = "quick",
    rows: Mapping[str, Row] | None = None,
    changes: Mapping[str, Any] | None = None,
    cuts: Sequence[int] = CUTS,
    device: str = "auto",
    threads: int | None = None,
    data_name: str = "DATA",
    command: str = "hashlgn reproduce",
    quiet: bool = True,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run the cells that are not there yet, and write tables, figures and the page.

    Args:
        train: what the models learn from.
        test: what they are judged by.
        out: folder for ``cells/``, ``models/``, ``results.json``, ``reproduction.md`` and ``index.html``.
        seeds: 0, 1, … this many.
        preset: ``quick``: the paper's recipes are stopped after a few epochs, which the rows say; ``full``.
        rows: what to compare; those of the preset where None.
        changes: from every row's configuration.
        cuts: of the top-k searches.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: processor threads of training and search; all where None.
        data_name: of the data, for the report.
        command: how this was run, for the report.
        quiet: show no progress bar.
        say: called with a line after every cell.

    Returns:
        What ``results.json`` holds.

    Raises:
        ArgumentError: an argument breaks its rule, or a row starts from one that is not there.
        MissingExtraError: a package of the extras ``train``, ``report`` or ``references`` is not installed.
    """
    for module, extra in (("torch", "train"), ("matplotlib", "report"), ("jinja2", "report")):
        need(module, extra, "the reproduction")
    from hashlgn.experiments.reproduction.page import write_page

    quick = choose("preset", preset, {"quick": True, "full": False})
    seeds, cuts = positive_int("seeds", seeds), tuple(positive_int("cuts", cut) for cut in cuts)
    chosen = dict(rows_of_preset(preset) if rows is None else rows)
    if not any(row.method in METHODS for row in chosen.values()):
        raise ArgumentError(f"rows must hold one of {', '.join(METHODS)} at least (got {', '.join(chosen) or 'none'})")
    for row in chosen.values():
        if row.start is not None and row.start not in chosen:
            raise ArgumentError(f"row {row.name!r} must start from a row that is there (got {row.start!r})")
    if any(row.how == "als" for row in chosen.values()):
        need("implicit", "references", "the reference ALS")
    out = Path(out)
    bench = Bench(train, out / "models", chosen, changes=changes, device=device, threads=threads, quiet=quiet)
    cells: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    same = {"test": test.fingerprint(), "cuts": list(cuts), "threads": threads}
    for seed in range(seeds):  # a whole table after the first round, intervals after the second
        for name, row in chosen.items():

            def run(row: Row = row, seed: int = seed) -> Mapping[str, Any]:
                built, held_out = bench.build(row, seed), bench.slices(seed)[1]
                return {"name": row.name} | judged(built, held_out, test, sweep=row.sweep, cuts=cuts, threads=threads)

            identity = bench.identity(row, seed) | same
            cell, fresh = kept(out / "cells", identity, run, seed=seed, threads=threads, device=device)
            cells[name].append(cell)
            if fresh and say:
                at = cell["mips"][f"@{cuts[0]}"]
                say(f"{name}, seed {seed}: recall@{cuts[0]} {at['recall']:.4f}, ndcg@{cuts[0]} {at['ndcg']:.4f}")

    measured = {name: row for name, row in chosen.items() if row.sweep}
    ask = {name: _spread([line["threshold"] for line in cells[name][0]["sweep"]]) for name in measured}
    repeats = 1 if quick else 5  # a round takes about a minute and a half on MovieLens 1M

    def measure() -> Mapping[str, Any]:
        models = {name: bench.build(row, 0).whole for name, row in measured.items()}
        return timed(models, ask, test, cuts=cuts, repeats=repeats, threads=threads)

    identity = {"times": {name: bench.identity(row, 0) for name, row in measured.items()}, "thresholds": ask}
    times, fresh = kept(out / "cells", identity | same | {"repeats": repeats}, measure, seed=0, threads=threads)
    if fresh and say:
        say(f"search times of {len(measured)} rows measured")

    result: dict[str, Any] = {
        "preset": preset,
        "limited": quick and rows is None,
        "command": command,
        "data": {"name": data_name, "train": train.fingerprint(), "test": test.fingerprint(), **train.stats()},
        "tables": {**tables(chosen, cells, times), "paired": paired(_comparisons(chosen), cells)},
        "times": times,
        "cells": [
            {key: value for key, value in cell.items() if key != "per_user"}
            for found in cells.values()
            for cell in found
        ],
        "train_seconds": sum(cell["own_seconds"] for found in cells.values() for cell in found),
        **provenance(seeds=seeds, threads=threads, device=device),
    }
    write_json(out / "results.json", result)
    with replaced_file(out / "reproduction.md") as temporary:
        temporary.write_text(markdown_report(result), "utf-8")
    write_page(out / "index.html", result, chosen, {name: found[0] for name, found in cells.items()})
    return result


def _comparisons(rows: Mapping[str, Row]) -> list[tuple[str, str]]:
    """Our codes of the least bytes that were swept against every other row that is no code of ours."""
    ours = [name for name, row in rows.items() if row.method == "HashLGN" and row.how == "ours"]
    first = next((name for name in ours if rows[name].sweep), None)
    if first is None:
        return []
    return [(first, name) for name, row in rows.items() if name not in ours and row.how != "activity"]


def _spread(values: Sequence[float]) -> list[float]:
    """``_TIMED`` of the values, evenly."""
    if len(values) <= _TIMED:
        return list(values)
    return [values[round(i * (len(values) - 1) / (_TIMED - 1))] for i in range(_TIMED)]
