"""Strong generalisation: what users who were not in the training get, beside users who were.

    python benchmarks/new_users.py ml-1m
    python benchmarks/new_users.py gowalla --k 20 --models hashlgn,ease

A tenth of the users is left out of the training, and four fifths of the history of each are given (A). Of another
tenth, four fifths are in the training (B). A model is trained, and again with A and B changed: so each user is answered
once as a new one and once as one of the training, by the same history, and is evaluated on the same fifth. EASE and ALS
are tuned by Recall on a validation slice of the first training part, and fold new users in; the model of this project
answers them as everybody else. The interval is that of the difference of NDCG, paired by user.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from hashlgn import HashLGN, evaluate, read_interactions
from hashlgn.data import Interactions, leave_users, random_ratio
from hashlgn.data.sources import resolved
from hashlgn.evaluation import Evaluation
from hashlgn.evaluation.metrics import paired_bootstrap
from hashlgn.experiments.baselines.recommenders import RECOMMENDERS, tuned
from hashlgn.experiments.common.tables import table
from hashlgn.inference.recommender import Recommender

Train = Callable[[Interactions], Callable[[Interactions, Interactions | None], Evaluation]]


def ours(seed: int, threads: int | None, k: int) -> Train:
    """How the default model is trained, and evaluated on a test part, by given histories or by stored ones."""

    def train(data: Interactions) -> Callable[[Interactions, Interactions | None], Evaluation]:
        model = HashLGN(seed=seed, threads=threads).fit(data, progress=False)
        return lambda test, given: evaluate(model, test, k, history=given, metrics=("recall", "ndcg"))

    return train


def baseline(name: str, fit: Interactions, held_out: Interactions, seed: int, threads: int | None, k: int) -> Train:
    """The same for a baseline, tuned once."""
    chosen = tuned(name, fit, held_out, k=k, seed=seed, threads=threads)
    print(f"{name}: {dict(chosen.settings)}", flush=True)

    def train(data: Interactions) -> Callable[[Interactions, Interactions | None], Evaluation]:
        def asked(test: Interactions, given: Interactions | None) -> Evaluation:
            model = Recommender(chosen.build(data, given), threads=threads)
            return evaluate(model, test, k, metrics=("recall", "ndcg"))

        return asked

    return train


def both_ways(train: Train, parts: list[tuple[Interactions, Interactions, Interactions]], k: int) -> dict[str, float]:
    """One row of the table: means of the same users as new ones and as users of the training."""
    found: dict[bool, dict[str, np.ndarray]] = {}
    for is_new in (True, False):
        found[is_new] = {"user": np.empty(0, np.int64), "recall": np.empty(0), "ndcg": np.empty(0)}
    for number, (data, given, test) in enumerate(parts):
        asked = train(data)
        for is_new, result in ((True, asked(test, given)), (False, asked(parts[1 - number][2], None))):
            columns = {"user": test.user_ids.encode(result.users), **result.at(k).per_user}
            found[is_new] = {name: np.append(values, columns[name]) for name, values in found[is_new].items()}
    new, old = ({n: v[np.argsort(c["user"])] for n, v in c.items()} for c in (found[True], found[False]))
    assert (new["user"] == old["user"]).all()
    row = {"users": len(new["user"])}
    for name in ("recall", "ndcg"):
        row |= {f"new {name}@{k}": new[name].mean(), f"trained {name}@{k}": old[name].mean()}
    low, high = paired_bootstrap(new["ndcg"], old["ndcg"])[1]
    return row | {
        "recall ratio": new["recall"].mean() / old["recall"].mean(),
        "ndcg ratio": new["ndcg"].mean() / old["ndcg"].mean(),
        "low": low / old["ndcg"].mean(),
        "high": high / old["ndcg"].mean(),
    }


def split(data: Interactions, seed: int) -> list[tuple[Interactions, Interactions, Interactions]]:
    """Both trainings: (training part, histories of the new users, their test part)."""
    rest, given_a, test_a = leave_users(data, 0.1, seed=seed)
    _, given_b, test_b = leave_users(rest, 1 / 9, seed=seed + 1)

    def without(*left_out: Interactions) -> Interactions:
        keys = [part.rows * data.n_items + part.indices for part in left_out]
        return data.select(~np.isin(data.rows * data.n_items + data.indices, np.concatenate(keys)))

    return [
        (without(given_a, test_a, test_b), given_a, test_a),
        (without(given_b, test_b, test_a), given_b, test_b),
    ]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--models", default="hashlgn,ease,als")
    chosen = parser.parse_args()
    folder = resolved(chosen.data)
    part = {"part": "all"} if (folder / "test.txt").is_file() else {}
    parts = split(read_interactions(folder, **part), chosen.seed)
    fit, held_out = random_ratio(parts[0][0], seed=chosen.seed)
    rows = []
    for name in chosen.models.split(","):
        settings = chosen.seed, chosen.threads, chosen.k
        train = baseline(name, fit, held_out, *settings) if name in RECOMMENDERS else ours(*settings)
        found = both_ways(train, parts, chosen.k)
        rows.append({"model": name} | {n: v if n == "users" else f"{v:.4f}" for n, v in found.items()})
        print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
