"""A catalogue trained on made-up interactions: the models that ``hashlgn train`` makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hashlgn.data import random_ratio
from hashlgn.data.synthetic import synthetic
from hashlgn.errors import need
from hashlgn.experiments.benchmarks.search.catalogues import Catalogue, Form
from hashlgn.experiments.common.runs import FLOATS, Run, Runner
from hashlgn.inference.model import ServedModel
from hashlgn.scoring.rows import rows_of

_PER_ITEM, _PER_USER = 12, 60  # interactions
_CLUSTERS = 50  # tastes: fewer than the dimensions of the narrowest float model, so that it can hold all of them
_USERS = 2000  # users with held-out items, by whom the quality of answers is told


def trained_catalogue(
    n: int, bits: Sequence[int], dims: Sequence[int], seed: int, cache: Path | None, say: Callable[[str], None]
) -> Catalogue:
    """Twelve interactions per item among 50 tastes, of which a fifth is held out; see ``docs/benchmarks.md``.

    Floats and codes are those of the default training: answers of float students of each width, and codes of the
    answers at the narrowest width, beside histories in codes. ``cache`` is the folder where the models are kept.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    need("torch", "train", "a trained catalogue")
    say(f"trained: making {n * _PER_ITEM:,} interactions")
    made = synthetic(max(2, n * _PER_ITEM // _PER_USER), n, n * _PER_ITEM, clusters=_CLUSTERS, seed=seed, titles=False)
    train, test = random_ratio(made, seed=seed)
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(np.diff(test.indptr)))[:_USERS]
    runner = Runner(train, cache or Path())

    def model(changes: dict[str, Any]) -> ServedModel:
        result = runner.model(Run("trained", changes), seed, keep=cache is not None)
        say(f"trained: {changes} in {result.own_seconds:.1f} s")
        return result.whole

    found, coded = {}, []
    for dim in dims:  # a student with a graph filter for a teacher chooses its width itself
        served = model({**FLOATS, "model.dim": dim})
        form = Form.of(served.items.decode(), np.ascontiguousarray(served.queries_of(chosen)))
        found[form.items.width] = form
    floats = [found[width] for width in sorted(found)]
    for length in bits:
        served = model({"model.dim": min(dims), "model.bits": length})
        queries = np.ascontiguousarray(served.queries_of(chosen))
        coded.append(Form(f"{length} bits + scale", served.items, queries, floats[0].name))
    seen, truth = (rows_of((part.indptr, part.indices), chosen) for part in (train, test))
    return Catalogue("trained", floats + coded, seen, truth)
