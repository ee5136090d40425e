"""Quality as a user gets it: train, recommend to a file, and judge the file, with nothing of HashLGN's evaluation.

    python benchmarks/quality.py ml-1m --k 50 --seeds 0,1,2 -- --bits 64
    python benchmarks/quality.py gowalla --k 20 --seeds 0 -- --bits 128

DATA is a folder with ``train.txt`` and ``test.txt``, or the name of one in ``HASHLGN_DATA``. What follows ``--`` is
given to ``hashlgn train``. Recall and NDCG (standard: the ideal over ``min(k, |T|)``) count every test item of every
test user, those included that do not occur in the training part. The first line is popularity's.
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

import numpy as np
import pyarrow.parquet as parquet
from safetensors import safe_open

Lists = dict[int, list[int]]


def read(part: Path) -> Lists:
    """The items of each user of a file of lines ``user item item …``."""
    lines = [[int(number) for number in line.split()] for line in part.read_text().splitlines()]
    return {user: items for user, *items in lines if items}


def judged(recommended: Lists, test: Lists, k: int) -> tuple[float, float]:
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


def answers(table: Path) -> Lists:
    """The lists that ``hashlgn recommend`` has written, best first."""
    columns = parquet.read_table(table).sort_by([("user", "ascending"), ("rank", "ascending")])
    lists: Lists = {}
    for user, item in zip(columns["user"].to_pylist(), columns["item"].to_pylist(), strict=True):
        lists.setdefault(user, []).append(item)
    return lists


def run(data: Path, k: int, seed: int, options: list[str]) -> tuple[float, float]:
    """Train and judge under one seed."""
    with tempfile.TemporaryDirectory() as folder:
        model, written = Path(folder) / "model", Path(folder) / "answers.parquet"
        command = [str(Path(sys.executable).with_name("hashlgn"))]
        began = time.perf_counter()
        subprocess.run([*command, "train", data, "--out", model, "--seed", str(seed), "--quiet", *options], check=True)
        seconds = time.perf_counter() - began
        subprocess.run([*command, "recommend", model, "--out", written, "--k", str(k), "--quiet"], check=True)
        recall, ndcg = judged(answers(written), read(data / "test.txt"), k)
        with safe_open(model / "model.safetensors", "np") as opened:
            manifest = json.loads(opened.metadata()["manifest"])
        encoder = manifest["config"]["model"]["encoder"]
    print(
        f"seed {seed}: recall@{k} {recall:.4f}, ndcg@{k} {ndcg:.4f}, {seconds:.0f} s of training, {encoder}",
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
    recall, ndcg = judged(popular(read(data / "train.txt"), test, chosen.k), test, chosen.k)
    print(f"popularity: recall@{chosen.k} {recall:.4f}, ndcg@{chosen.k} {ndcg:.4f}", flush=True)
    found = [run(data, chosen.k, int(seed), options) for seed in chosen.seeds.split(",")]
    recall, ndcg = np.mean(found, axis=0)
    print(f"mean of {len(found)}: recall@{chosen.k} {recall:.4f}, ndcg@{chosen.k} {ndcg:.4f}")


if __name__ == "__main__":
    main()
