"""The demonstration: float and hashed models side by side on one data set, printed, written as JSON and as a page."""

from __future__ import annotations

import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from hashlgn.data import Interactions, random_ratio, read_interactions
from hashlgn.data.sources import resolved
from hashlgn.data.synthetic import synthetic
from hashlgn.errors import DownloadError, need
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.evaluation.result import Evaluation
from hashlgn.experiments.common.measure import median_seconds
from hashlgn.experiments.common.page import drawn, new_figure, reliability_plot, write_page
from hashlgn.experiments.common.runs import ENCODER_FLOATS, FLOATS, Run, Runner, left_out
from hashlgn.experiments.common.tables import table
from hashlgn.inference.recommender import Recommender
from hashlgn.utils.console import say, write_json
from hashlgn.utils.provenance import provenance

CUTS = (50, 100)
# Few epochs: the demonstration is to take minutes, and the paper's hash and decoder go on from the float model.
_SHORT = {"train.pretrain_epochs": 30, "train.joint_epochs": 15}
_LIGHTGCN = Run("LightGCN, 128 floats", {**ENCODER_FLOATS, "model.encoder": "lightgcn", "model.dim": 128, **_SHORT})
_PAPER = {"model.encoder": "lightgcn", "model.hash": "mlp3", "model.decoder": "reweight", "model.bits": 64, **_SHORT}
RUNS = [
    _LIGHTGCN,
    Run("the paper's hash and decoder, 64 bits", _PAPER, _LIGHTGCN),
    Run("HashLGN, 256 floats", FLOATS),
    Run("HashLGN, 64 + 256 bits", {"model.bits": 64}),
    Run("HashLGN, 128 + 128 bits", {"model.history_bits": 128}),
    Run("HashLGN, 128 + 320 bits", {}),
]
_COLORS = {"LightGCN": "#5b6472", "paper": "#c9772b", "floats": "#8a9ba8", "bits": "#1f6f8b"}
_LABELS = {
    "LightGCN": "LightGCN, a vector per user",
    "paper": "the paper's hash and decoder",
    "floats": "HashLGN, users as histories, floats",
    "bits": "HashLGN, users as histories, bits",
}


def _kind(row: dict[str, Any]) -> str:
    """The colour that a row has."""
    return next(kind for kind in _COLORS if kind in row["model"])


def demo(out: Path, *, seed: int = 0, threads: int | None = None, quiet: bool = False) -> dict[str, Any]:
    """Train, compare, show, and write ``results.json``, ``index.html`` and the models to ``out``.

    Raises:
        MissingExtraError: PyTorch, matplotlib or Jinja is not installed.
    """
    need("torch", "train", "the demonstration")
    need("matplotlib", "report", "the demonstration's page")
    need("jinja2", "report", "the demonstration's page")

    def tell(text: str) -> None:
        if not quiet:
            print(text, flush=True)

    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    train, test, source = find_data(seed)
    sizes = f"{train.n_users:,} users, {train.n_items:,} items, {len(train):,} + {len(test):,} interactions"
    tell(f"Data: {source}\n      {sizes}\n")

    runner = Runner(train, out, threads=threads, quiet=quiet)
    rows, found = [], {}
    for run in RUNS:  # trained, or read where a demonstration before has trained it
        made = runner.model(run, seed, keep=True)
        best = Recommender(made.whole, threads=threads)
        found[run.name] = quality = evaluate(best, test, CUTS)
        rows.append(_row(run.name, best, quality))
        means = f"Recall@50 {quality.at(50).mean('recall'):.4f}   NDCG@50 {quality.at(50).mean('ndcg'):.4f}"
        tell(f"{run.name:<26} trained in {made.own_seconds:5.1f} s   {means}")
    reference = rows[0]["search ms"]
    for row in rows:
        row |= {"search ms": round(row["search ms"], 1), "vs float": f"{reference / row['search ms']:.2f}x"}
    tell("\n" + table(rows))
    tell(
        f"\nQuality: {len(quality.users):,} test users; the whole catalogue ranked, training items masked.\n"
        f"Search: top {CUTS[-1]} for all of them; scoring, exclusion and ordering included; {threads or 'all'} threads;"
        " median of 3. `hashlgn bench search` has larger catalogues and other indexes."
    )
    tips = _threshold_search(best, quality, test)
    tell(
        f"\nThreshold search ({run.name}): a score over {tips['threshold']:.3f} gives {tips['mean_size']:.1f} items\n"
        f"a user on average; {100 * tips['empty']:.1f}% of users get none; precision {tips['precision']:.3f}, recall "
        f"{tips['recall']:.3f}; {1000 * tips['seconds']:.0f} ms for all users."
    )
    chances = quality.reliability
    if chances is not None:
        tell(f"\nProbabilities ({run.name}): expected calibration error {chances.error:.4f} on the test part.")
    person = _one_user(best, train)
    tell(f"\nUser {person['user']}\n\n" + _side_by_side(person))

    results = {
        "data": {"source": source, "train": train.stats(), "fingerprint": train.fingerprint()},
        "models": rows,
        "evaluation": {name: one.to_dict() for name, one in found.items()},
        "threshold_search": tips,
        "calibration_error": None if chances is None else chances.error,
        "user": person,
        "seconds": round(time.perf_counter() - began, 1),
        **provenance(seed=seed, threads=threads),
    }
    write_json(out / "results.json", results)
    figures = {"quality": _quality(rows), "times": _times(rows)}
    figures["reliability"] = "" if chances is None else reliability_plot(chances)
    write_page(out / "index.html", "demo.html", results | figures)
    tell(
        f"\nWrote {out / 'index.html'}, {out / 'results.json'} and the models in {out / 'models'} "
        f"({results['seconds']:.0f} s in all).\nTry: hashlgn info {runner.folder(RUNS[-1], seed) / 'whole'}"
    )
    return results


def demo_model(out: Path, *, threads: int | None = None) -> Path:
    """A model to serve: the default training on the demonstration's data, kept in ``out`` once it is there.

    Raises:
        MissingExtraError: it has to be trained, and PyTorch is not installed.
    """
    path = out / "movies" / "model.safetensors"
    if not path.exists():
        need("torch", "train", "the demonstration")
        from hashlgn.estimators import HashLGN

        train, _, source = find_data()
        say(False, f"Training a model on {source}; the next start finds it in {path.parent}")
        HashLGN(threads=threads).fit(train).save(path)
    return path


def find_data(seed: int = 0) -> tuple[Interactions, Interactions, str]:
    """MovieLens 1M from ``HASHLGN_DATA``, the cache or the network, else the synthetic catalogue; (train, test, which).

    A folder with ``train.txt`` and ``test.txt`` is a given split; of other data a random 20% of every user's
    interactions are the test part.
    """
    try:
        folder = resolved("ml-1m")
    except DownloadError as error:
        say(False, f"MovieLens 1M could not be fetched: {error}")
        parts = random_ratio(synthetic(4000, 3000, 300_000, seed=seed), seed=seed)
        return *parts, "the built-in SYNTHETIC catalogue (no HASHLGN_DATA, no cache, no network)"
    train = read_interactions(folder)
    if (folder / "test.txt").is_file():
        test, _ = read_interactions(folder, part="test").encode_like(train)
        return train, test, f"MovieLens 1M ({folder}), its given split"
    return *random_ratio(train, seed=seed), f"MovieLens 1M ({folder}), split 80/20 per user"


def _row(name: str, model: Recommender, quality: Evaluation) -> dict[str, Any]:
    """A line of the table, with the median time of the top 100 for all test users, training items excluded."""
    served = model.model
    users = served.user_ids.encode(quality.users)
    exclude = left_out(served, users)
    seconds = median_seconds(lambda: model.searcher.search(served.queries_of(users), CUTS[-1], exclude), 3)
    means = {f"{metric}@{k}": round(quality.at(k).mean(metric), 4) for k in CUTS for metric in ("recall", "ndcg")}
    size = round(model.info()["bytes"]["per_item"], 1)
    return {"model": name, "bytes/item": size, **means, "search ms": 1000 * seconds}


def _threshold_search(model: Recommender, quality: Evaluation, test: Interactions) -> dict[str, float]:
    """Threshold search at the median score of the 50th best item."""
    served = model.model
    users = served.user_ids.encode(quality.users)
    hits = model.searcher.search(served.queries_of(users), 50, left_out(served, users))
    full = np.diff(hits.indptr) == 50
    threshold = round(float(np.median(hits.scores[hits.indptr[1:][full] - 1])), 3)
    cut = evaluate(model, test, (), threshold=threshold).cutoffs[0]
    names = {"mean_size": "answer_size", "empty": "empty", "precision": "precision", "recall": "recall"}
    means = {name: cut.mean(metric) for name, metric in names.items()}
    return {"threshold": threshold, **means, "seconds": cut.seconds}


def _one_user(model: Recommender, train: Interactions) -> dict[str, Any]:
    """A user with a history of ordinary length, what they have, and what they are recommended."""
    served = model.model
    counts = np.diff(train.indptr)
    code = int(np.flatnonzero(counts >= min(40, counts.max()))[0])
    popularity = np.bincount(train.indices, minlength=train.n_items)
    history = train.row(code)
    history = history[np.argsort(popularity[history], kind="stable")][:10]  # the least popular say most
    answers = model.recommend(served.user_ids.decode([code]), 10)
    return {
        "user": served.user_ids.decode([code]).tolist()[0],
        "interactions": int(counts[code]),
        "history": [_described(model, int(item)) for item in history],
        "recommended": [_described(model, int(item)) for item in served.item_ids.encode(answers["item"])],
    }


def _described(model: Recommender, item: int) -> dict[str, Any]:
    served = model.model
    return {
        "item": served.item_ids.decode([item]).tolist()[0],
        "title": served.titles[item] if served.titles else "",
        "genres": list(served.genres[item]) if served.genres else [],
    }


def _side_by_side(person: dict[str, Any]) -> str:
    """History and recommendations as a table."""

    def text(entry: dict[str, Any] | None) -> str:
        entry = entry or {"item": "", "title": " ", "genres": []}
        genres = f" ({', '.join(entry['genres'])})" if entry["genres"] else ""
        return ((entry["title"] or f"item {entry['item']}") + genres)[:56]

    pairs = zip_longest(person["history"], person["recommended"])
    head = f"has (10 of {person['interactions']}, the least popular)"
    return table([{head: text(has), "is recommended": text(gets)} for has, gets in pairs])


def _quality(rows: list[dict[str, Any]]) -> str:
    """Recall and NDCG at 50 against bytes per item."""
    figure, axes = new_figure(1, 2, (9, 3.4))
    for axis, metric in zip(axes, ("recall@50", "ndcg@50"), strict=True):
        for kind, color in _COLORS.items():
            points = sorted((row["bytes/item"], row[metric]) for row in rows if _kind(row) == kind)
            axis.plot(*zip(*points, strict=True), marker="o", color=color, label=_LABELS[kind])
        axis.set_xscale("log", base=2)
        sizes = sorted({row["bytes/item"] for row in rows})
        ticks = [2**power for power in range(int(np.log2(min(sizes))), int(np.ceil(np.log2(max(sizes)))) + 1)]
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.minorticks_off()
        axis.set(xlabel="bytes per item", title=metric.replace("recall", "Recall").replace("ndcg", "NDCG"))
    axes[0].legend(frameon=False)
    return drawn(figure)


def _times(rows: list[dict[str, Any]]) -> str:
    """Search time by model."""
    figure, (axis,) = new_figure(1, 1, (9, 2.6))
    colors = [_COLORS[_kind(row)] for row in rows]
    bars = axis.barh([row["model"] for row in rows], [row["search ms"] for row in rows], color=colors)
    axis.bar_label(bars, fmt="%.0f ms", padding=3)
    axis.invert_yaxis()
    axis.set_xlabel("top 100 for all test users, ms")
    return drawn(figure)
