"""One cell of ``hashlgn reproduce``: a row under one seed, its threshold chosen on validation, judged on test."""

from __future__ import annotations

from typing import Any

import numpy as np

from hashlgn.data import Interactions
from hashlgn.evaluation import Cut, evaluate
from hashlgn.experiments.reproduce_models import Built
from hashlgn.filters import Exclusion, rows_of
from hashlgn.metrics import f1_of_means
from hashlgn.recommender import Recommender
from hashlgn.search import Searcher
from hashlgn.served import ServedModel

__all__ = ["CUTS", "NDCGS", "PAIRED", "SIZES", "judged", "thresholds_of"]

CUTS = (50, 100)
NDCGS = ("ndcg", "ndcg_paper", "ndcg_bigear", "ndcg_hashgnn")
PAIRED = ("recall", "ndcg")  # kept by user at the first cut, for paired comparisons
SIZES = (1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 300)  # mean sizes of answers at which thresholds are tried
_METRICS = ("precision", "recall", "f1", *NDCGS)
_DEEPEST = 500  # items a user whose scores say where the thresholds lie


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
    before = Recommender(built.fit, threads=threads)
    thresholds = thresholds_of(built.fit, before.searcher, held_out)
    valid = evaluate(before, held_out, (), threshold=thresholds, metrics=("f1",)).cuts
    values = [cut.mean("f1") for cut in valid]
    best = int(np.argmax(values))
    wanted = thresholds if sweep else [thresholds[best]]
    found = evaluate(Recommender(built.whole, threads=threads), test, cuts, threshold=wanted, metrics=_METRICS)
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
        "settings": built.settings,
        **built.details,
    }


def thresholds_of(model: ServedModel, searcher: Searcher, held_out: Interactions) -> list[float]:
    """Thresholds at which the answers of the held-out part's users have ``SIZES`` items on average, falling.

    The scores of the ``500`` best items of every such user decide; of discrete scores, such as Hamming distances, some
    thresholds coincide and are given once.
    """
    users = np.flatnonzero(np.diff(held_out.indptr))
    exclude = Exclusion.build(len(model.items), seen=rows_of(model.seen, users))
    hits = searcher.search(model.users[users], min(_DEEPEST, len(model.items)), exclude)
    scores = np.sort(hits.scores)[::-1]
    found = [float(scores[size * len(users)]) for size in SIZES if size * len(users) < len(scores)]
    return list(dict.fromkeys(found or [float(scores[-1])]))


def _means(cut: Cut) -> dict[str, Any]:
    means: dict[str, Any] = {name: cut.mean(name) for name in cut.per_user}
    both = f1_of_means(cut.per_user["precision"], cut.per_user["recall"])
    return means | {"f1_of_means": both, "search_seconds": cut.seconds}
