"""What ``hashlgn reproduce`` compares: rows, each a run or what is made of one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from hashlgn.config import preset_changes
from hashlgn.data import Interactions
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.experiments.baselines.recommenders import RECOMMENDERS
from hashlgn.experiments.baselines.rerank import CANDIDATES, RerankedRecommender
from hashlgn.experiments.common.runs import Made, Run, Runner
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.exclusion import Exclusion, rows_of
from hashlgn.search import Searcher

__all__ = ["FLOAT", "METHODS", "Row", "made_of", "rows_of_preset", "thresholds_of"]

METHODS = ("HashGNN", "LightGCN", "HashLGN")
FLOAT = Run("LightGCN, 128 floats, ours", {"model.kind": "float", "model.dim": 128})  # codes start from it
SIZES = (1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 300)  # mean sizes of answers at which thresholds are tried
POWERS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)  # γ of the queries' lengths
_DEEPEST = 500  # items per user whose scores say where the thresholds lie
_QUICK_EPOCHS = 5  # of the paper's recipe under the preset quick
_HASHGNN_EPOCHS = 8  # of HashGNN's; its guidance ends after half of them


@dataclass(frozen=True)
class Row:
    """A line of the tables.

    Attributes:
        method: of ``METHODS``, or ``baseline`` or ``quantizer``.
        run: how its model is made.
        how: ``paper`` for the paper's recipe, ``ours``; ``activity``: the run's queries, lengthened by the number of
            items that the user has; ``reranked``: the run's answers, ordered by continuous vectors.
        sweep: whether quality and time are measured at all thresholds, not at the chosen one alone.
    """

    method: str
    run: Run
    how: str = "ours"
    sweep: bool = False

    @property
    def name(self) -> str:
        """Of the line, and different from every other."""
        more = {"activity": ", by activity", "reranked": ", re-ranked by continuous vectors"}
        return self.run.name + more.get(self.how, "")

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """The same row with more changes from the default configuration."""
        return replace(self, run=self.run.updated(changes))


def rows_of_preset(preset: str) -> list[Row]:
    """The rows of ``quick`` or ``full``, in the order of the tables.

    ``quick`` stops the paper's recipes after a few epochs, quantizes to one length of code, and leaves SLIM out.
    """
    quick = preset == "quick"
    limit: dict[str, Any] = (
        {"train.joint_epochs": _QUICK_EPOCHS, "train.validate_every": _QUICK_EPOCHS} if quick else {}
    )
    stated = f", {_QUICK_EPOCHS} epochs" if quick else ""
    paper = preset_changes("paper") | limit
    floats = {"model.kind": "float"}
    codes = [
        Run(f"HashLGN, {bits} bits + scale, ours", {"model.bits": bits, "model.encoder": "lightgcn"}, FLOAT)
        for bits in (32, 64, 128, 256)
    ]
    form = {"model.bits": 64, "model.hash": "mlp3", "model.decoder": "reweight", "model.encoder": "lightgcn"}
    return [
        *_hashgnn_rows(quick),
        Row("HashGNN", _quantized("itq-hamming", 80, "HashGNN's form, 80 bits, ours (ITQ, Hamming)"), sweep=True),
        Row("LightGCN", Run(f"LightGCN, 64 floats, paper's recipe{stated}", paper | floats), "paper", True),
        Row("LightGCN", Run("LightGCN, 64 floats, ours", floats | {"model.dim": 64})),
        Row("LightGCN", FLOAT, sweep=True),
        Row("HashLGN", Run(f"HashLGN, 64 bits, paper's recipe{stated}", paper), "paper", True),
        *(Row("HashLGN", run, sweep=run.changes["model.bits"] == 64) for run in codes),
        Row("HashLGN", Run("HashLGN, 64 bits, mlp3 + reweight, ours", form, FLOAT), sweep=True),
        Row("LightGCN", FLOAT, "activity", True),
        Row("HashLGN", codes[1], "activity", True),
        *(Row("baseline", Run(name, baseline=name)) for name in RECOMMENDERS if name != "slim" or not quick),
        *_quantizer_rows((64,) if quick else (64, 128)),
    ]


def _hashgnn_rows(quick: bool) -> list[Row]:
    """HashGNN at two lengths, its guidance off, its answers re-ranked; and its form of codes under our training."""
    stated = f", {_HASHGNN_EPOCHS} epochs" if quick else ""
    recipe = preset_changes("hashgnn") | ({"train.joint_epochs": _HASHGNN_EPOCHS} if quick else {})
    short = recipe | {"model.bits": 32, "train.temperature": 4.0}
    unguided = recipe | {"model.guidance": False}
    same = ("bits", "hash", "decoder", "compression", "similarity", "scale", "guidance")
    ours = {f"model.{key}": recipe[f"model.{key}"] for key in same}
    ours |= {"model.encoder": "lightgcn", "model.dim": 128, "train.temperature": 8.0}
    whole = Run(f"HashGNN, 64 bits{stated}", recipe)
    form = Run("HashGNN's form, 64 bits, ours", ours, FLOAT)
    return [
        Row("HashGNN", Run(f"HashGNN, 32 bits{stated}", short), "paper"),
        Row("HashGNN", whole, "paper", True),
        Row("HashGNN", Run(f"HashGNN, 64 bits, no guidance{stated}", unguided), "paper"),
        Row("HashGNN", whole, "reranked"),
        Row("HashGNN", form),
        Row("HashGNN", form, "reranked"),
    ]


def _quantizer_rows(lengths: tuple[int, ...]) -> list[Row]:
    """Every quantizer at the bytes of our codes with a scale: with a scale itself, and with 16 bits more."""
    rows = []
    for bits in lengths:
        for how in ("hyperplanes", "itq", "product", "residual-quantization", "local-search"):
            rows += [_quantized(how, bits + 16, f"{how}, {bits + 16} bits")]
            rows += [_quantized(how, bits, f"{how}, {bits} bits + scale", scale=True)]
        rows.append(_quantized("hyperplanes-hamming", bits + 16, f"hyperplanes-hamming, {bits + 16} bits"))
    return [Row("quantizer", run) for run in rows]


def _quantized(quantizer: str, bits: int, name: str, *, scale: bool = False) -> Run:
    return Run(name, {"model.bits": bits, "model.scale": scale}, FLOAT, quantizer)


def made_of(row: Row, runner: Runner, seed: int) -> Made:
    """The row's model under a seed."""
    made = runner.model(row.run, seed)
    if row.how == "reranked":
        floats = made.part("whole-continuous").items
        both = made.whole.items.bytes_per_item + floats.bytes_per_item
        return replace(
            made,
            part=lambda name: made.part(f"{name}-continuous"),
            details={"bytes_per_item": both, "candidates": CANDIDATES},
            recommender=RerankedRecommender,
        )
    return _lengthened(made, runner, runner.slices(row.run, seed)[1]) if row.how == "activity" else made


def _lengthened(made: Made, runner: Runner, held_out: Interactions) -> Made:
    """Queries times ``n_u^γ``, γ chosen on validation: no ranking changes, but who passes a threshold does.

    Under the cosine every query has length 1, so one threshold asks as much of a user with ten items, of whom few
    more are relevant, as of one with a thousand.
    """
    began, values = time.perf_counter(), {}
    for power in POWERS:
        model = Recommender(_longer(made.fit, power), threads=runner.threads)
        thresholds = thresholds_of(model.model, model.searcher, held_out)
        cuts = evaluate(model, held_out, (), threshold=thresholds, metrics=("f1",)).cutoffs
        values[power] = max(cut.mean("f1") for cut in cuts)
    best = max(values, key=values.__getitem__)
    own = time.perf_counter() - began
    return replace(
        made,
        part=lambda name: _longer(made.part(name), best),
        seconds=made.seconds + own,
        own_seconds=own,
        settings={**made.settings, "activity": best},
        details={"validation": {str(power): value for power, value in values.items()}},
    )


def _longer(model: ServedModel, power: float) -> ServedModel:
    lengths = np.maximum(np.diff(model.seen[0]), 1).astype(np.float32) ** np.float32(power)
    users = model.queries_of(np.arange(len(model.user_ids))) * lengths[:, None]
    return replace(model, users=users, histories=None, encoder_state=None)


def thresholds_of(model: ServedModel, searcher: Searcher, held_out: Interactions) -> list[float]:
    """Thresholds at which the answers of the held-out part's users have ``SIZES`` items on average, falling.

    The scores of the ``500`` best items of every such user decide; of discrete scores, such as Hamming distances, some
    thresholds coincide and are given once.
    """
    users = np.flatnonzero(np.diff(held_out.indptr))
    exclude = Exclusion.build(len(model.items), seen=rows_of(model.seen, users))
    hits = searcher.search(model.queries_of(users), min(_DEEPEST, len(model.items)), exclude)
    scores = np.sort(hits.scores)[::-1]
    found = [float(scores[size * len(users)]) for size in SIZES if size * len(users) < len(scores)]
    return list(dict.fromkeys(found or [float(scores[-1])]))
