"""The default model beside tuned float models, on one split, with intervals paired by user.

    python benchmarks/peers.py ml-1m --k 50

DATA is a folder with ``train.txt`` and ``test.txt``, or the name of one in ``HASHLGN_DATA``. EASE, SLIM and ALS are
tuned by NDCG on a validation slice of the training part: every setting of their grid is tried, and the best one is
fitted to the whole part. LightGCN has 128 floats, a vector per user and the settings of this project. The intervals are
those of the difference "ours - theirs", 95% of paired bootstraps over the users of the test part.
"""

from __future__ import annotations

import argparse

from hashlgn import HashLGN, LightGCN, evaluate, read_interactions
from hashlgn.data import random_ratio
from hashlgn.data.sources import resolved
from hashlgn.evaluation.metrics import paired_bootstrap
from hashlgn.experiments.baselines.recommenders import RECOMMENDERS, tuned
from hashlgn.experiments.common.tables import table
from hashlgn.inference.recommender import Recommender

METRICS = ("recall", "ndcg")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--bits", type=int, default=128)
    parser.add_argument("--models", default="ease,als,lightgcn,slim")
    chosen = parser.parse_args()
    folder, common = resolved(chosen.data), {"seed": chosen.seed, "threads": chosen.threads}
    train, test = (read_interactions(folder, part=part) for part in ("train", "test"))
    fit, held_out = random_ratio(train, seed=chosen.seed)

    def measured(name: str) -> Recommender:
        if name == "hashlgn":
            return HashLGN(chosen.bits, **common).fit(train, progress=False)
        if name == "lightgcn":
            return LightGCN(128, **common).fit(train, progress=False)
        best = tuned(name, fit, held_out, k=chosen.k, **common)
        print(f"{name}: {dict(best.settings)}, the best of {len(RECOMMENDERS[name].grid)}", flush=True)
        return Recommender(best.build(train), threads=chosen.threads)

    rows, ours = [], None
    for name in ("hashlgn", *chosen.models.split(",")):
        result = evaluate(measured(name), test, chosen.k, metrics=METRICS).at(chosen.k)
        row: dict[str, object] = {"model": name} | {
            f"{m}@{chosen.k}": f"{result.per_user[m].mean():.4f}" for m in METRICS
        }
        ours = ours or result
        for metric in METRICS:
            _, (low, high) = paired_bootstrap(ours.per_user[metric], result.per_user[metric])
            row[f"{metric}: ours - theirs"] = f"{low:+.4f} ... {high:+.4f}" if ours is not result else ""
        rows.append(row)
        print(row, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
