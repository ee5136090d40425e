"""A refit beside a new training on the same interactions: time and quality, seed by seed.

    python benchmarks/refit.py ml-1m --k 50 --seeds 0,1,2 --threads 2

A tenth of the training part arrives later. A model is trained without it; then the refit of that model and a new
training both get all of it, and answer the same test part. DATA is a folder with ``train.txt`` and ``test.txt``, or the
name of a published data set; other data are split at random, 80% and 20% of each user. Times are of the processor, so
that other work on the machine counts for neither. Intervals are 95% of bootstraps of "refit - new", paired by user.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from hashlgn import HashLGN, evaluate, read_interactions
from hashlgn.data import Interactions, random_ratio
from hashlgn.data.sources import resolved
from hashlgn.evaluation.metrics import paired_bootstrap
from hashlgn.experiments.common.tables import table
from hashlgn.inference.recommender import Recommender
from hashlgn.refitting import refit

METRICS = ("recall", "ndcg")


def timed(make: Callable[[], Recommender]) -> tuple[Recommender, float]:
    """A model and the processor seconds of its making."""
    began = time.process_time()
    return make(), time.process_time() - began


def compared(train: Interactions, test: Interactions, k: int, seed: int, threads: int | None) -> dict[str, object]:
    """One seed."""
    known, later = random_ratio(train, 0.1, seed=seed)

    def new(data: Interactions) -> Recommender:
        return HashLGN(seed=seed, threads=threads).fit(data, progress=False)

    old = new(known)
    again, short = timed(lambda: refit(old, later, threads=threads))
    anew, long = timed(lambda: new(train))
    first, second = (evaluate(model, test, k, metrics=METRICS).at(k) for model in (again, anew))
    row: dict[str, object] = {"seed": seed, "refit, s": round(short, 1), "new, s": round(long, 1)}
    row["ratio"] = round(short / long, 2)
    for metric in METRICS:
        difference, (low, high) = paired_bootstrap(first.per_user[metric], second.per_user[metric])
        row[f"{metric}@{k}"] = f"{first.mean(metric):.4f} / {second.mean(metric):.4f}"
        row[f"refit - new, {metric}"] = f"{difference:+.4f} ({low:+.4f} ... {high:+.4f})"
    return row


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    folder = resolved(chosen.data)
    if (folder / "test.txt").is_file():
        train, test = (read_interactions(folder, part=part) for part in ("train", "test"))
    else:
        train, test = random_ratio(read_interactions(folder), seed=0)
    rows = []
    for seed in map(int, chosen.seeds.split(",")):
        rows.append(compared(train, test, chosen.k, seed, chosen.threads))
        print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
