"""The demonstration: float and hashed models side by side on one data set, printed, written as JSON and as a page."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Interactions, random_ratio, read_interactions
from hashlgn.data.download import cached, download
from hashlgn.data.synthetic import synthetic
from hashlgn.errors import DownloadError, need
from hashlgn.estimators import HashLGN, LightGCN
from hashlgn.evaluation.full_ranking import Evaluation, evaluate
from hashlgn.experiments.common.tables import table
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.exclusion import Exclusion, rows_of
from hashlgn.scoring.items import CodedItems
from hashlgn.utils.console import output, training_bar, write_json
from hashlgn.utils.provenance import provenance

__all__ = ["Contender", "demo", "find_data"]

CUTS = (50, 100)
_PAPER = {"model.hash": "mlp3", "model.decoder": "reweight"}
_CODEBOOK = {"model.hash": "residual", "model.decoder": "codebook"}


@dataclass(frozen=True)
class Contender:
    """One model of the comparison, judged on the test part."""

    name: str
    model: Recommender
    quality: Evaluation
    search_seconds: float

    def row(self, reference: float) -> dict[str, Any]:
        """A line of the table; ``reference`` is the search time of the float baseline."""
        quality = {
            f"{metric}@{k}": round(self.quality.at(k).mean(metric), 4) for k in CUTS for metric in ("recall", "ndcg")
        }
        return {
            "model": self.name,
            "bytes/item": self.model.model.items.bytes_per_item,
            **quality,
            "search ms": round(1000 * self.search_seconds, 1),
            "vs float": f"{reference / self.search_seconds:.2f}x",
        }


def demo(out: Path, *, seed: int = 0, threads: int | None = None, quiet: bool = False) -> dict[str, Any]:
    """Train, compare, show, and write ``results.json``, ``index.html`` and the models to ``out``.

    Raises:
        MissingExtraError: PyTorch, matplotlib or Jinja is not installed.
    """
    need("torch", "train", "the demonstration")
    need("matplotlib", "report", "the demonstration's page")
    need("jinja2", "report", "the demonstration's page")
    from hashlgn.experiments.common.page import write_page

    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    train, test, source = find_data(seed)
    _say(quiet, f"Data: {source}")
    _say(
        quiet, f"      {train.n_users:,} users, {train.n_items:,} items, {len(train):,} + {len(test):,} interactions\n"
    )

    contenders = _contenders(out, train, test, seed=seed, threads=threads, quiet=quiet)
    reference = contenders[0].search_seconds
    rows = [contender.row(reference) for contender in contenders]
    best = contenders[-1]
    _say(quiet, "\n" + table(rows))
    _say(
        quiet,
        f"\nQuality: {len(best.quality.users):,} test users; the whole catalogue ranked, training items masked.\n"
        f"Search: top {CUTS[-1]} for all of them; scoring, exclusion and ordering included; {threads or 'all'} threads;"
        " median of 3. `hashlgn bench search` has larger catalogues and other indexes.",
    )
    tips = _threshold_search(best, test)
    _say(
        quiet,
        f"\nThreshold search ({best.name}): a score over {tips['threshold']:.3f} gives {tips['mean_size']:.1f} items\n"
        f"a user on average; {100 * tips['empty']:.1f}% of users get none; precision {tips['precision']:.3f}, recall "
        f"{tips['recall']:.3f}; {1000 * tips['seconds']:.0f} ms for all users.",
    )
    person = _one_user(best.model, train)
    _say(quiet, f"\nUser {person['user']}\n\n" + _side_by_side(person))

    results = {
        "data": {"source": source, "train": train.stats(), "fingerprint": train.fingerprint()},
        "models": rows,
        "evaluation": {contender.name: contender.quality.to_dict() for contender in contenders},
        "threshold_search": tips,
        "user": person,
        "seconds": round(time.perf_counter() - began, 1),
        **provenance(seed=seed, threads=threads),
    }
    write_json(out / "results.json", results)
    write_page(out / "index.html", results, _code_patterns(best.model))
    _say(
        quiet,
        f"\nWrote {out / 'index.html'}, {out / 'results.json'} and the models in {out / 'models'} "
        f"({results['seconds']:.0f} s in all).\nTry: hashlgn info {out / 'models' / best.name.replace(' ', '-')}",
    )
    return results


def find_data(seed: int = 0) -> tuple[Interactions, Interactions, str]:
    """MovieLens 1M from ``HASHLGN_DATA``, the cache or the network, else the synthetic catalogue; (train, test, which).

    A folder with ``train.txt`` and ``test.txt`` is a given split; of other data a random 20% of every user's
    interactions are the test part.
    """
    given = os.environ.get("HASHLGN_DATA")
    if given and (Path(given) / "ml-1m").is_dir():
        folder = Path(given) / "ml-1m"
        train = read_interactions(folder)
        if (folder / "test.txt").is_file():
            test, _ = read_interactions(folder, part="test").encode_like(train)
            return train, test, f"MovieLens 1M from HASHLGN_DATA ({folder}), its given split"
        return *random_ratio(train, seed=seed), f"MovieLens 1M from HASHLGN_DATA ({folder}), split 80/20 a user"
    held = cached("ml-1m")
    if held is not None:
        parts = random_ratio(read_interactions(held), seed=seed)
        return *parts, f"MovieLens 1M from the cache ({held}), split 80/20 a user"
    try:
        held = download("ml-1m")
        return *random_ratio(read_interactions(held), seed=seed), "MovieLens 1M, downloaded, split 80/20 a user"
    except DownloadError as error:
        output.print(f"MovieLens 1M could not be fetched: {error}", soft_wrap=True, markup=False)
    made = synthetic(4000, 3000, 300_000, seed=seed)
    return *random_ratio(made, seed=seed), "the built-in SYNTHETIC catalogue (no HASHLGN_DATA, no cache, no network)"


def _contenders(
    out: Path, train: Interactions, test: Interactions, *, seed: int, threads: int | None, quiet: bool
) -> list[Contender]:
    """Train every model, save it, and judge it; the float baseline first, the best codes last."""
    start = out / "models" / "LightGCN-128-floats"
    models: list[tuple[str, LightGCN | HashLGN]] = [
        (f"LightGCN {dim} floats", LightGCN(dim=dim, seed=seed, threads=threads)) for dim in (64, 128)
    ]
    # The float model of the same width is trained once, and every hashed model goes on from it.
    models += [
        (
            f"HashLGN {name} {bits} bits",
            HashLGN(bits, seed=seed, threads=threads, config=how | {"train.init": str(start)}),
        )
        for name, how in (("paper", _PAPER), ("codebook", _CODEBOOK))
        for bits in (64, 128)
    ]
    done = []
    for name, estimator in models:
        with training_bar("recall@50", quiet=quiet, title=f"{name}: ") as report:
            estimator.fit(train, report=report)
        estimator.save(out / "models" / name.replace(" ", "-"))
        quality = evaluate(estimator, test, CUTS)
        done.append(Contender(name, estimator, quality, _search_seconds(estimator, quality)))
        at = quality.at(50)
        _say(
            quiet,
            f"{name:<26} trained in {estimator.model.provenance['seconds']:5.1f} s   "
            f"Recall@50 {at.mean('recall'):.4f}   NDCG@50 {at.mean('ndcg'):.4f}",
        )
    return done


def _search_seconds(model: Recommender, quality: Evaluation, repeats: int = 3) -> float:
    """Median wall time of the top 100 for all test users, training items excluded."""
    served = model.model
    codes = served.user_ids.encode(quality.users)
    exclude = Exclusion.build(len(served.items), seen=rows_of(served.seen, codes))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        model.searcher.search(served.users[codes], CUTS[-1], exclude)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _threshold_search(contender: Contender, test: Interactions) -> dict[str, float]:
    """Threshold search at the median score of the 50th best item."""
    model, served = contender.model, contender.model.model
    codes = served.user_ids.encode(contender.quality.users)
    exclude = Exclusion.build(len(served.items), seen=rows_of(served.seen, codes))
    hits = model.searcher.search(served.users[codes], 50, exclude)
    full = np.diff(hits.indptr) == 50
    threshold = round(float(np.median(hits.scores[hits.indptr[1:][full] - 1])), 3)
    cut = evaluate(model, test, (), threshold=threshold).cuts[0]
    means = {name: cut.mean(metric) for name, metric in (("mean_size", "answer_size"), ("empty", "empty"))}
    return {
        "threshold": threshold,
        **means,
        **{m: cut.mean(m) for m in ("precision", "recall")},
        "seconds": cut.seconds,
    }


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
    def text(entry: dict[str, Any] | None) -> str:
        if entry is None:
            return ""
        genres = f" ({', '.join(entry['genres'])})" if entry["genres"] else ""
        return ((entry["title"] or f"item {entry['item']}") + genres)[:56]

    left, right = person["history"], person["recommended"]
    width = max(len(left), len(right))
    pairs = zip(left + [None] * (width - len(left)), right + [None] * (width - len(right)), strict=True)
    heads = {f"has (10 of {person['interactions']}, the least popular)": "is recommended"}
    lines = [f"  {has:<58}{gets}" for has, gets in heads.items()]
    return "\n".join([*lines, "", *(f"  {text(has):<58}{text(gets)}" for has, gets in pairs)])


def _code_patterns(model: Recommender, anchors: int = 4, neighbours: int = 4) -> list[dict[str, Any]]:
    """Codes of some popular items, each followed by its most similar ones: titles and bits, ``(bits,)`` of 0 and 1."""
    served = model.model
    if not isinstance(served.items, CodedItems):
        return []
    popularity = np.bincount(served.seen[1], minlength=len(served.items))
    rows: list[dict[str, Any]] = []
    for item in np.argsort(-popularity, kind="stable")[: 12 * anchors : 12].tolist():
        similar = model.similar_items(served.item_ids.decode([item]), neighbours)
        group: npt.NDArray[np.int64] = np.concatenate(([item], served.item_ids.encode(similar["similar"])))
        bits = np.unpackbits(served.items.packed[group], axis=1, bitorder="little")
        for place, (code, row) in enumerate(zip(group.tolist(), bits.tolist(), strict=True)):
            rows.append(_described(model, code) | {"anchor": place == 0, "bits": row})
    return rows


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        print(text, flush=True)
