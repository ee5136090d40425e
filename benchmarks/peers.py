"""The default model beside tuned float models, on one split, with intervals paired by user.

    python benchmarks/peers.py ml-1m --k 50 --threads 2

DATA is a folder with ``train.txt`` and ``test.txt``, or the name of a published data set; data without such files are
split at random, 80% and 20% of each user. Nothing is chosen by the test part, which is looked at once for each model.

Every float model is tuned on a validation slice of the training part, and its budget is the number of settings in its
grid, all of which are tried. EASE, SLIM (an elastic net: ``l1 = α · l1_ratio`` and ``l2 = α · (1 − l1_ratio)`` of the
usual names) and ALS take the setting with the best Recall@k, and are fitted to the whole training part. LightGCN has
128 floats and a vector per user; each setting is a training of this project, with its own validation slice for early
stopping, and the one with the best NDCG@k on it is kept. The default model has no grid. Intervals are those of the
difference "ours - theirs", 95% of paired bootstraps over the users of the test part.
"""

from __future__ import annotations

import argparse
import time
from itertools import product

from hashlgn import HashLGN, LightGCN, evaluate, read_interactions
from hashlgn.data import Interactions, random_ratio
from hashlgn.data.sources import resolved
from hashlgn.evaluation.metrics import paired_bootstrap
from hashlgn.experiments.baselines.recommenders import RECOMMENDERS, tuned
from hashlgn.experiments.common.tables import table
from hashlgn.inference.recommender import Recommender

METRICS = ("recall", "ndcg")
LIGHTGCN = tuple({"train.temperature": t, "model.layers": n} for t, n in product((0.1, 0.15, 0.25), (1, 3)))


def lightgcn(train: Interactions, k: int, seed: int, threads: int | None) -> Recommender:
    """The best LightGCN of its grid by NDCG@k on the validation slice of its training."""
    found = []
    for settings in LIGHTGCN:
        model = LightGCN(128, config={**settings, "train.monitor_k": k}, seed=seed, threads=threads)
        model.fit(train, progress=False)
        found.append((list(model.model.metrics["validation"].values())[-1], settings, model))
    _, settings, model = max(found, key=lambda one: one[0])
    print(f"lightgcn: {settings}, the best of {len(LIGHTGCN)}", flush=True)
    return model


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
    if (folder / "test.txt").is_file():
        train, test = (read_interactions(folder, part=part) for part in ("train", "test"))
    else:
        train, test = random_ratio(read_interactions(folder), seed=0)
    fit, held_out = random_ratio(train, seed=chosen.seed)

    def measured(name: str) -> Recommender:
        if name == "hashlgn":
            return HashLGN(chosen.bits, **common).fit(train, progress=False)
        if name == "lightgcn":
            return lightgcn(train, chosen.k, **common)
        best = tuned(name, fit, held_out, k=chosen.k, **common)
        print(f"{name}: {dict(best.settings)}, the best of {len(RECOMMENDERS[name].grid)}", flush=True)
        return Recommender(best.build(train), threads=chosen.threads)

    rows, ours = [], None
    for name in ("hashlgn", *chosen.models.split(",")):
        began = time.perf_counter()
        model = measured(name)
        seconds = time.perf_counter() - began
        result = evaluate(model, test, chosen.k, metrics=METRICS).at(chosen.k)
        row: dict[str, object] = {"model": name}
        ours = ours or result
        for metric in METRICS:
            difference, (low, high) = paired_bootstrap(ours.per_user[metric], result.per_user[metric])
            row[f"{metric}@{chosen.k}"] = f"{result.mean(metric):.4f}"
            row["ours - theirs" + " " * (metric == "ndcg")] = (
                "" if result is ours else f"{difference:+.4f} ({low:+.4f} ... {high:+.4f})"
            )
        row["seconds, tuning included"] = round(seconds, 1)
        rows.append(row)
        print(row, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
