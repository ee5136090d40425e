"""One cell of ``hashlgn reproduce``: a row under one seed, its threshold chosen on validation, judged on test."""

from __future__ import annotations

from typing import Any

import numpy as np

from hashlgn.data import Interactions
from hashlgn.evaluation.full_ranking import Cut, evaluate
from hashlgn.evaluation.metrics import f1_of_means
from hashlgn.experiments.reproduction.rows import Built, thresholds_of

__all__ = ["CUTS", "NDCGS", "PAIRED", "judged"]

CUTS = (50, 100)
NDCGS = ("ndcg", "ndcg_paper", "ndcg_bigear", "ndcg_hashgnn")
PAIRED = ("recall", "ndcg")  # kept by user at the first cut, for paired comparisons
_METRICS = ("precision", "recall", "f1", *NDCGS)


def judged(
    built: Built,
    held_out: Interactions,
    test: Interactions,
    *,
    sweep: bool,
    cuts: tuple[int, ...] = CUTS,
    threads: int | None = None,
) -> dict[str, Any]:
    """The result of a cell.

    The threshold is the one of ``thresholds_of`` with the best mean F1 on the held-out part, for the model as that part
    was held out from it. The test part is looked at once, for all cuts and thresholds together.

    Args:
        built: the row's model.
        held_out: the validation slice of its seed.
        test: what it is judged by.
        sweep: judge every threshold on the test part, not the chosen one alone.
        cuts: of the top-k search; they are also reported by user, at the first.
        threads: of the search; all where None.

    Returns:
        ``mips`` and ``tips`` with means of all metrics, ``sweep``, ``per_user``, sizes and seconds.
    """
    before = built.recommender(built.fit, threads=threads)
    thresholds = thresholds_of(built.fit, before.searcher, held_out)
    valid = evaluate(before, held_out, (), threshold=thresholds, metrics=("f1",)).cuts
    values = [cut.mean("f1") for cut in valid]
    best = int(np.argmax(values))
    wanted = thresholds if sweep else [thresholds[best]]
    found = evaluate(built.recommender(built.whole, threads=threads), test, cuts, threshold=wanted, metrics=_METRICS)
    top, above = found.cuts[: len(cuts)], found.cuts[len(cuts) :]
    shown = [
        {"threshold": cut.threshold, "validation_f1": values[thresholds.index(cut.threshold)]} | _means(cut)
        for cut in above
        if cut.threshold is not None
    ]
    return {
        "users": len(found.users),
        "mips": {f"@{cut.k}": _means(cut) for cut in top},
        "tips": shown[best if sweep else 0],
        "sweep": shown if sweep else [],
        "per_user": {name: [round(float(v), 6) for v in top[0].per_user[name]] for name in PAIRED},
        "bytes_per_item": built.whole.items.bytes_per_item,
        "seconds": built.seconds,
        "own_seconds": built.own_seconds,
        "settings": built.settings,
        **built.details,
    }


def _means(cut: Cut) -> dict[str, Any]:
    means: dict[str, Any] = {name: cut.mean(name) for name in cut.per_user}
    both = f1_of_means(cut.per_user["precision"], cut.per_user["recall"])
    return means | {"f1_of_means": both, "search_seconds": cut.seconds}
