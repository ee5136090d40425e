"""One result of ``hashlgn reproduce``: a row under one seed, its threshold chosen on validation, evaluated on test."""

from __future__ import annotations

from typing import Any

import numpy as np

from hashlgn.data import Interactions
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.evaluation.metrics import f1_of_means
from hashlgn.evaluation.result import Cutoff
from hashlgn.experiments.common.runs import Made
from hashlgn.experiments.reproduction.rows import thresholds_of
from hashlgn.inference.recommender import Recommender

CUTS = (50, 100)
NDCGS = ("ndcg", "ndcg_paper", "ndcg_bigear", "ndcg_hashgnn")
PAIRED = ("recall", "ndcg")  # kept by user at the first cutoff, for paired comparisons
_METRICS = ("precision", "recall", "f1", *NDCGS)


def evaluated(
    made: Made,
    held_out: Interactions,
    test: Interactions,
    *,
    sweep: bool,
    cuts: tuple[int, ...] = CUTS,
    threads: int | None = None,
) -> dict[str, Any]:
    """The result of a row under one seed.

    The threshold is the one of ``thresholds_of`` with the best mean F1 on the held-out part, for the model as that part
    was held out from it. The test part is looked at once, for all cutoffs and thresholds together: for every threshold
    where there is a ``sweep``, else for the chosen one alone. Metrics by user are kept at the first cutoff.
    """
    before = Recommender(made.fit, threads=threads)
    thresholds = thresholds_of(made.fit, before.searcher, held_out)
    valid = evaluate(before, held_out, (), threshold=thresholds, metrics=("f1",)).cutoffs
    values = [cut.mean("f1") for cut in valid]
    best = int(np.argmax(values))
    asked = thresholds if sweep else [thresholds[best]]
    found = evaluate(Recommender(made.whole, threads=threads), test, cuts, threshold=asked, metrics=_METRICS)
    top, above = found.cutoffs[: len(cuts)], found.cutoffs[len(cuts) :]
    points = [
        {"threshold": threshold, "validation_f1": values[thresholds.index(threshold)]} | _means(cut)
        for threshold, cut in zip(asked, above, strict=True)
    ]
    return {
        "users": len(found.users),
        "mips": {f"@{cut.k}": _means(cut) for cut in top},
        "tips": points[best if sweep else 0],
        "sweep": points if sweep else [],
        "per_user": {name: [round(float(v), 6) for v in top[0].per_user[name]] for name in PAIRED},
        "bytes_per_item": made.whole.items.bytes_per_item,
        "seconds": made.seconds,
        "own_seconds": made.own_seconds,
        "settings": dict(made.settings),
        **made.details,
    }


def _means(cut: Cutoff) -> dict[str, Any]:
    means: dict[str, Any] = {name: cut.mean(name) for name in cut.per_user}
    both = f1_of_means(cut.per_user["precision"], cut.per_user["recall"])
    return means | {"f1_of_means": both, "search_seconds": cut.seconds}
