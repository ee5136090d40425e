"""Search measured: every searcher of ours beside every index that a user would pick instead, in one run.

What is measured and how each baseline is set up is told in ``docs/benchmarks.md``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, choose, positive_int
from hashlgn.evaluation.full_ranking import read_test
from hashlgn.experiments.baselines.indexes import INDEXES
from hashlgn.experiments.benchmarks.search.catalogues import Catalogue, random_catalogue, saved_catalogue
from hashlgn.experiments.benchmarks.search.methods import Setting
from hashlgn.experiments.benchmarks.search.run import measure
from hashlgn.experiments.benchmarks.search.trained import trained_catalogue
from hashlgn.scoring.codes import check_bits
from hashlgn.search import SEARCHERS
from hashlgn.utils.provenance import provenance, version_of

_PACKAGES = ("faiss-cpu", "hnswlib", "scann")


def bench_search(
    *,
    items: Sequence[int] = (20_000,),
    bits: Sequence[int] = (64, 128),
    dims: Sequence[int] = (64,),
    ks: Sequence[int] = (10, 100),
    batch: int | None = None,
    singles: int = 50,
    repeats: int = 5,
    threads: int = 1,
    searchers: Sequence[str] | None = None,
    baselines: Sequence[str] | None = None,
    trained: bool = False,
    cache: Path | None = None,
    models: Sequence[Path] = (),
    test: Path | Interactions | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Time and evaluate every method over every catalogue; arguments are the options of ``hashlgn bench search``.

    Returns:
        ``rows``, one a catalogue, method and k; the setting, and the provenance.

    Raises:
        ArgumentError: an argument breaks its rule.
    """
    chosen = [name for name in SEARCHERS if name != "exact"] if searchers is None else list(searchers)
    others = list(INDEXES) if baselines is None else list(baselines)
    for name, values, table in (("searchers", chosen, SEARCHERS), ("baselines", others, INDEXES)):
        for value in values:
            choose(name, value, table)
    for name, numbers in (("items", items), ("bits", bits), ("dims", dims), ("k", ks)):
        if not numbers:
            raise ArgumentError(f"{name} must hold at least one number (got none)")
        for number in numbers:
            check_bits(number) if name == "bits" else positive_int(name, number)
    for name, given in (("repeats", repeats), ("singles", singles), ("threads", threads)):
        positive_int(name, given)
    dims, ks = sorted(dims), sorted(ks)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        if os.environ.get(name) != str(threads):
            say(f"set {name}={threads}, or NumPy's own products may use other than {threads} threads")
    catalogues: Iterator[Catalogue]
    smallest = min(items)
    if models:
        saved = saved_catalogue(models, read_test(test) if isinstance(test, Path) else test)
        smallest, catalogues = saved.n_items, iter([saved])
    elif trained:
        catalogues = (trained_catalogue(n, bits, dims, seed, cache, say) for n in items)
    else:
        catalogues = (random_catalogue(n, bits, dims, batch or 256, seed) for n in items)
    if max(ks) > smallest:
        raise ArgumentError(f"k must be at most the number of items, {smallest} (got {max(ks)})")
    rows = []
    for catalogue in catalogues:
        size = min(len(catalogue.seen[0]) - 1, batch or (len(catalogue.seen[0]) if models else 256))
        rows += measure(catalogue, Setting(chosen, others, bits, ks, size, singles, repeats, threads, say))
    packages = {name: version_of(name) for name in _PACKAGES}
    asked = {"batch": batch, "singles": singles, "repeats": repeats, "dims": dims, "baselines": packages}
    return {"rows": rows, "setting": asked, **provenance(seed=seed, threads=threads)}
