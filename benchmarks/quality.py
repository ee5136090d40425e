"""Quality as a user gets it: train, recommend to a file, and evaluate the file, with nothing of HashLGN's evaluation.

    python benchmarks/quality.py ml-1m --k 50 --seeds 0,1,2 -- --bits 64
    python benchmarks/quality.py gowalla --k 20 --seeds 0 -- --bits 128

DATA is a folder with ``train.txt`` and ``test.txt``, or the name of one in ``HASHLGN_DATA``. What follows ``--`` is
given to ``hashlgn train``. Recall and NDCG (standard: the ideal over ``min(k, |T|)``) count every test item of every
test user, those included that do not occur in the training part. The first line is popularity's. The calibration error
compares the probabilities of each user's 200 best items with what the test part has, in 15 bins of equal size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet

Lists = dict[int, list[Any]]


def read(part: Path) -> Lists:
    """The items of each user of a file of lines ``user item item …``."""
    lines = [[int(number) for number in line.split()] for line in part.read_text().splitlines()]
    return {user: items for user, *items in lines if items}


def evaluated(recommended: Lists, test: Lists, k: int) -> tuple[float, float]:
    """Mean recall and NDCG at k over the test users."""
    discount = 1 / np.log2(np.arange(k) + 2)
    recalls, ndcgs = [], []
    for user, items in test.items():
        hits = np.isin(recommended.get(user, [])[:k], items)
        recalls.append(hits.sum() / len(items))
        ndcgs.append(discount[: len(hits)][hits].sum() / discount[: min(k, len(items))].sum())
    return float(np.mean(recalls)), float(np.mean(ndcgs))


def popular(train: Lists, users: Iterable[int], k: int) -> Lists:
    """For each user the k items that most users have, among those that this one has not."""
    items, counts = np.unique(np.concatenate([np.unique(items) for items in train.values()]), return_counts=True)
    items = items[np.argsort(-counts, kind="stable")]
    return {user: items[~np.isin(items, train.get(user, []))][:k].tolist() for user in users}


def answers(table: Path) -> tuple[Lists, Lists]:
    """What ``hashlgn recommend`` has written: the items of each user, best first, and their probabilities."""
    columns = parquet.read_table(table).sort_by([("user", "ascending"), ("rank", "ascending")])
    lists: Lists = {}
    chances: Lists = {}
    names = [name for name in ("user", "item", "probability") if name in columns.column_names]
    for user, item, *chance in zip(*(columns[name].to_pylist() for name in names), strict=True):
        lists.setdefault(user, []).append(item)
        chances.setdefault(user, []).extend(chance)
    return lists, chances


def calibration_error(recommended: Lists, chances: Lists, test: Lists, bins: int = 15) -> float:
    """Mean distance between predicted and observed chances of the pairs of user and item, over bins of equal size."""
    predicted = np.concatenate([chances[user] for user in recommended])
    observed = np.concatenate([np.isin(items, test.get(user, [])) for user, items in recommended.items()])
    parts = np.array_split(np.argsort(predicted, kind="stable"), bins)
    return sum(abs(predicted[part].sum() - observed[part].sum()) for part in parts) / len(predicted)


def run(data: Path, k: int, seed: int, options: list[str]) -> tuple[float, float]:
    """Train and evaluate under one seed."""
    with tempfile.TemporaryDirectory() as folder:
        model, written = Path(folder) / "model", Path(folder) / "answers.parquet"
        command = [str(Path(sys.executable).with_name("hashlgn"))]
        began = time.perf_counter()
        subprocess.run([*command, "train", data, "--out", model, "--seed", str(seed), "--quiet", *options], check=True)
        seconds = time.perf_counter() - began
        long = [*command, "recommend", model, "--out", written, "--k", str(max(k, 200)), "--quiet"]
        subprocess.run([*long, "--calibrated"], check=True)
        test = read(data / "test.txt")
        recommended, chances = answers(written)
        recall, ndcg = evaluated(recommended, test, k)
        error = calibration_error(recommended, chances, test)
        told = subprocess.run([*command, "info", model, "--json"], check=True, capture_output=True, text=True)
        per_item = json.loads(told.stdout)["bytes"]["per_item"]
    print(
        f"seed {seed}: recall@{k} {recall:.4f}, ndcg@{k} {ndcg:.4f}, calibration error {error:.4f}, "
        f"{per_item:.1f} bytes per item, {seconds:.0f} s of training",
        flush=True,
    )
    return recall, ndcg


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--seeds", default="0,1,2")
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    chosen, options = parser.parse_args(given[:cut]), given[cut + 1 :]
    data = Path(chosen.data)
    if not data.is_dir() and "HASHLGN_DATA" in os.environ:
        data = Path(os.environ["HASHLGN_DATA"]) / chosen.data
    test = read(data / "test.txt")
    recall, ndcg = evaluated(popular(read(data / "train.txt"), test, chosen.k), test, chosen.k)
    print(f"popularity: recall@{chosen.k} {recall:.4f}, ndcg@{chosen.k} {ndcg:.4f}", flush=True)
    found = [run(data, chosen.k, int(seed), options) for seed in chosen.seeds.split(",")]
    recall, ndcg = np.mean(found, axis=0)
    print(f"mean of {len(found)}: recall@{chosen.k} {recall:.4f}, ndcg@{chosen.k} {ndcg:.4f}")


if __name__ == "__main__":
    main()
