"""What ``hashlgn reproduce`` compares, and how each of it is built: once, kept in a folder, found there again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hashlgn.config import Config, preset_changes
from hashlgn.data import Interactions
from hashlgn.data.splits import validation_slice
from hashlgn.estimators import served_model
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.experiments.baselines.recommenders import tuned
from hashlgn.experiments.baselines.rerank import CANDIDATES, RerankedRecommender
from hashlgn.experiments.common.cache import digest
from hashlgn.inference.artifact import load_artifact, save_artifact
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.exclusion import Exclusion, rows_of
from hashlgn.scoring.items import FloatItems
from hashlgn.search import Searcher
from hashlgn.utils.console import training_bar
from hashlgn.utils.provenance import provenance

__all__ = [
    "FLOAT",
    "HASHGNN_EPOCHS",
    "METHODS",
    "QUICK_EPOCHS",
    "SIZES",
    "Bench",
    "Built",
    "Row",
    "rows_of_preset",
    "thresholds_of",
]

METHODS = ("HashGNN", "LightGCN", "HashLGN")
FLOAT = "LightGCN, 128 floats, ours"  # the float model that our codes start from and that quantisers are given
SIZES = (1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 300)  # mean sizes of answers at which thresholds are tried
POWERS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)  # γ of the queries' lengths
_CONTINUOUS = "-continuous"  # ends the name of a folder of vectors beside that of their codes
_DEEPEST = 500  # items a user whose scores say where the thresholds lie
QUICK_EPOCHS = 5  # of the paper's recipe under the preset quick
HASHGNN_EPOCHS = 8  # of HashGNN's; its guidance ends after half of them


@dataclass(frozen=True)
class Row:
    """A line of the tables.

    Attributes:
        name: unique.
        method: of ``METHODS``, or ``reference`` or ``quantiser``.
        how: ``paper`` for the paper's recipe, ``ours``, what is done to a float model, ``activity``: the queries of
            the row it starts from, lengthened by the number of items that the user has, or ``reranked``: the answers of
            the row it starts from, ordered by continuous vectors.
        changes: from the default configuration, for a row that is trained.
        start: name of the row that it goes on from, or that is quantised, lengthened or re-ranked.
        bits: of a quantiser's code, scale not included.
        scale: whether a quantiser stores a scale.
        sweep: whether quality is wanted over all thresholds, not the chosen one alone.
    """

    name: str
    method: str
    how: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None
    bits: int = 0
    scale: bool = False
    sweep: bool = False

    def identity(self) -> dict[str, Any]:
        """What its result depends on, beside seed, data and the row it starts from."""
        same = {"method": self.method, "how": self.how, "bits": self.bits, "scale": self.scale, "sweep": self.sweep}
        return same | {"changes": dict(sorted(self.changes.items()))}


@dataclass(frozen=True)
class Built:
    """A model twice, and what is known of its making.

    Attributes:
        whole: with everything trained on in its graph and in its seen lists: what is judged on the test part.
        fit: as its validation slice saw it: what thresholds are chosen with.
        seconds: of training or fitting, that of the row it starts from included.
        own_seconds: without it.
        settings: configuration, or the settings chosen.
        details: more for the results file, such as validation values.
        recommender: how the models answer.
    """

    whole: ServedModel
    fit: ServedModel
    seconds: float
    own_seconds: float
    settings: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    recommender: type[Recommender] = Recommender


def rows_of_preset(preset: str) -> dict[str, Row]:
    """The rows of ``quick`` or ``full``, in the order of the tables.

    ``quick`` stops the paper's recipe after ``QUICK_EPOCHS``, HashGNN after ``HASHGNN_EPOCHS``, and quantises to one
    length of code.
    """
    quick = preset == "quick"
    limit: dict[str, Any] = {"train.epochs": QUICK_EPOCHS, "train.validate_every": QUICK_EPOCHS} if quick else {}
    stated = f", {QUICK_EPOCHS} epochs" if quick else ""
    paper = preset_changes("paper") | limit
    rows = [
        *_hashgnn_rows(quick),
        Row("HashGNN's form, 80 bits, ours (ITQ, Hamming)", "HashGNN", "itq-hamming", start=FLOAT, bits=80, sweep=True),
        Row(f"LightGCN, 64 floats, paper's recipe{stated}", "LightGCN", "paper", paper | {"model.kind": "lightgcn"},
            sweep=True),
        Row("LightGCN, 64 floats, ours", "LightGCN", "ours", {"model.kind": "lightgcn", "model.dim": 64}),
        Row(FLOAT, "LightGCN", "ours", {"model.kind": "lightgcn", "model.dim": 128}, sweep=True),
        Row(f"HashLGN, 64 bits, paper's recipe{stated}", "HashLGN", "paper", paper, sweep=True),
    ]  # fmt: skip
    rows += [
        Row(f"HashLGN, {bits} bits + scale, ours", "HashLGN", "ours", {"model.bits": bits, "model.encoder": "lightgcn"},
            start=FLOAT, sweep=bits == 64)
        for bits in (32, 64, 128, 256)
    ]  # fmt: skip
    form = {"model.bits": 64, "model.hash": "mlp3", "model.decoder": "reweight", "model.encoder": "lightgcn"}
    rows.append(Row("HashLGN, 64 bits, mlp3 + reweight, ours", "HashLGN", "ours", form, start=FLOAT, sweep=True))
    rows += [
        Row(f"{name}, by activity", method, "activity", start=name, sweep=True)
        for name, method in ((FLOAT, "LightGCN"), ("HashLGN, 64 bits + scale, ours", "HashLGN"))
    ]
    rows += [Row(name, "reference", name) for name in ("popularity", "ease", "als")]
    for bits in (64,) if quick else (64, 128):
        for how in ("hyperplanes", "itq", "product", "residual-quantisation", "local-search"):
            for scale in (False, True):
                length = bits if scale else bits + 16  # with two bytes of scale, the same bytes an item
                name = f"{how}, {length} bits" + (" + scale" if scale else "")
                rows.append(Row(name, "quantiser", how, start=FLOAT, bits=length, scale=scale))
        rows.append(
            Row(
                f"hyperplanes-hamming, {bits + 16} bits",
                "quantiser",
                "hyperplanes-hamming",
                start=FLOAT,
                bits=bits + 16,
            )
        )
    return {row.name: row for row in rows}


def _hashgnn_rows(quick: bool) -> list[Row]:
    """HashGNN at two lengths, its guidance off, its answers re-ranked; and its form of codes under our training."""
    stated = f", {HASHGNN_EPOCHS} epochs" if quick else ""
    recipe = preset_changes("hashgnn") | ({"train.epochs": HASHGNN_EPOCHS} if quick else {})
    short = {"model.bits": 32, "train.temperature": 4.0}
    codes = ("bits", "hash", "decoder", "compression", "similarity", "scale", "guidance")
    ours = {f"model.{key}": recipe[f"model.{key}"] for key in codes}
    ours |= {"model.encoder": "lightgcn", "model.dim": 128, "train.temperature": 8.0}
    whole, form = f"HashGNN, 64 bits{stated}", "HashGNN's form, 64 bits, ours"
    again = "re-ranked by continuous vectors"
    return [
        Row(f"HashGNN, 32 bits{stated}", "HashGNN", "paper", recipe | short),
        Row(whole, "HashGNN", "paper", recipe, sweep=True),
        Row(f"HashGNN, 64 bits, no guidance{stated}", "HashGNN", "paper", recipe | {"model.guidance": False}),
        Row(f"{whole}, {again}", "HashGNN", "reranked", start=whole),
        Row(form, "HashGNN", "ours", ours, start=FLOAT),
        Row(f"{form}, {again}", "HashGNN", "reranked", start=form),
    ]


class Bench:
    """Builds rows over one data set, each once a seed; what is trained is kept under ``folder``.

    Args:
        train: what models learn from; a validation slice is cut from it under each seed, as training cuts it.
        folder: where trained models are kept.
        rows: by name, all that others may start from included.
        changes: from every row's configuration, such as fewer epochs for a trial.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: processor threads; all where None.
        quiet: show no progress bar.
    """

    def __init__(
        self,
        train: Interactions,
        folder: Path,
        rows: Mapping[str, Row],
        *,
        changes: Mapping[str, Any] | None = None,
        device: str = "auto",
        threads: int | None = None,
        quiet: bool = True,
    ) -> None:
        self.train, self.folder, self.rows, self.changes = train, folder, rows, dict(changes or {})
        self.device, self.threads, self.quiet = device, threads, quiet
        self._last: tuple[tuple[str, int], Built] | None = None  # the float model that a run of rows starts from

    def config(self, row: Row, seed: int) -> Config:
        """The configuration that a trained row has under a seed."""
        return Config().updated({**row.changes, **self.changes, "train.seed": seed})

    def slices(self, seed: int) -> tuple[Interactions, Interactions]:
        """(fit, held out), as training under this seed cuts them."""
        settings = Config().updated(self.changes).train
        return validation_slice(self.train, settings.validation_share, seed=seed, max_users=settings.validation_users)

    def identity(self, row: Row, seed: int) -> dict[str, Any]:
        """All that a built row depends on."""
        start = self.identity(self.rows[row.start], seed) if row.start else None
        trained = self.config(row, seed).to_dict() if row.changes else None
        return {
            "row": row.identity(),
            "config": trained,
            "seed": seed,
            "start": start,
            "train": self.train.fingerprint(),
            "version": provenance()["version"],
        }

    def build(self, row: Row, seed: int) -> Built:
        """The row under a seed; trained, quantised or computed where its folder is not there yet."""
        if row.method == "reference":
            return self._reference(row, seed)
        if row.how == "activity":
            return self._lengthened(row, seed)
        if row.how == "reranked":
            return self._reranked(row, seed)
        if not row.changes:
            return self._quantised(row, seed)
        place = self.folder / digest(self.identity(row, seed))
        if not (place / "fit").exists():
            self._train(row, seed, place)
        whole, fit = (load_artifact(place / part, encoder_state=True) for part in ("whole", "fit"))
        own = whole.provenance["seconds"]
        before = self._float(row.start, seed).seconds if row.start else 0.0
        return Built(whole, fit, before + own, own, whole.config, {"validation": whole.metrics})

    def _train(self, row: Row, seed: int, place: Path) -> None:
        from hashlgn.training.graph import Graph
        from hashlgn.training.trainer import train

        start = self._float(row.start, seed).whole.encoder_state if row.start else None
        place.mkdir(parents=True, exist_ok=True)
        checkpoint = place / "checkpoint"
        with training_bar("validation", quiet=self.quiet, title=f"{row.name}, seed {seed}: ") as bar:
            trained = train(
                self.train,
                self.config(row, seed),
                device=self.device,
                threads=self.threads,
                checkpoint=checkpoint,
                start=start,
                report=bar,
            )
        fit = self.slices(seed)[0]
        parts = {"whole": (self.train, trained.graph), "fit": (fit, Graph(fit, trained.graph.device))}
        for part, (data, graph) in parts.items():
            model = served_model(trained, data, graph)
            if trained.model.binary:  # what its signs are of, for re-ranking
                users, items = (side.cpu().numpy() for side in trained.model.continuous(graph))
                floats = replace(model, kind="continuous", users=users, items=FloatItems(items), fold_in=None)
                save_artifact(floats, place / f"{part}{_CONTINUOUS}")
            save_artifact(model, place / part)
        checkpoint.unlink(missing_ok=True)

    def _float(self, name: str, seed: int) -> Built:
        if self._last is None or self._last[0] != (name, seed):
            self._last = (name, seed), self.build(self.rows[name], seed)
        return self._last[1]

    def _quantised(self, row: Row, seed: int) -> Built:
        from hashlgn.experiments.baselines.quantizers import quantise

        source = self._float(row.start or FLOAT, seed)
        began, models = time.perf_counter(), []
        for model in (source.whole, source.fit):
            found = quantise(model.items.decode(), row.how, row.bits, scale=row.scale, seed=seed)
            models.append(
                replace(
                    model,
                    kind=row.how,
                    users=found.queries(model.users),
                    items=found.items,
                    fold_in=None,
                    encoder_state=None,
                )
            )
        own = (time.perf_counter() - began) / 2
        return Built(
            models[0],
            models[1],
            source.seconds + own,
            own,
            {"quantiser": row.how, "bits": row.bits, "scale": row.scale},
        )

    def _reranked(self, row: Row, seed: int) -> Built:
        """The continuous vectors of the row it starts from, which lie beside its codes."""
        source = self.rows[row.start or ""]
        codes, place = self.build(source, seed), self.folder / digest(self.identity(source, seed))
        whole, fit = (load_artifact(place / f"{part}{_CONTINUOUS}") for part in ("whole", "fit"))
        both = codes.whole.items.bytes_per_item + whole.items.bytes_per_item
        details = {"bytes_per_item": both, "candidates": CANDIDATES}
        return Built(whole, fit, codes.seconds, 0.0, codes.settings, details, RerankedRecommender)

    def _reference(self, row: Row, seed: int) -> Built:
        fit, held_out = self.slices(seed)
        began = time.perf_counter()
        chosen = tuned(row.how, fit, held_out, seed=seed, threads=self.threads)
        middle = time.perf_counter()
        whole = chosen.build(self.train)
        details = {"tuning_seconds": middle - began, "validation": list(chosen.values)}
        seconds = time.perf_counter() - middle
        return Built(whole, chosen.build(fit), seconds, seconds, dict(chosen.settings), details)

    def _lengthened(self, row: Row, seed: int) -> Built:
        """Queries times ``n_u^γ``, γ chosen on validation: no ranking changes, but who passes a threshold does.

        Under the cosine every query has length 1, so one threshold asks as much of a user with ten items, of whom few
        more are relevant, as of one with a thousand.
        """
        source = self.build(self.rows[row.start or FLOAT], seed)
        held_out = self.slices(seed)[1]
        began, values = time.perf_counter(), {}
        for power in POWERS:
            model = Recommender(_longer(source.fit, power), threads=self.threads)
            thresholds = thresholds_of(model.model, model.searcher, held_out)
            cuts = evaluate(model, held_out, (), threshold=thresholds, metrics=("f1",)).cuts
            values[power] = max(cut.mean("f1") for cut in cuts)
        best = max(values, key=values.__getitem__)
        own = time.perf_counter() - began
        details = {"validation": {str(power): value for power, value in values.items()}}
        whole, fit = _longer(source.whole, best), _longer(source.fit, best)
        return Built(whole, fit, source.seconds + own, own, source.settings | {"activity": best}, details)


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


def _longer(model: ServedModel, power: float) -> ServedModel:
    lengths = np.maximum(np.diff(model.seen[0]), 1).astype(np.float32) ** np.float32(power)
    return replace(model, users=model.users * lengths[:, None], fold_in=None, encoder_state=None)
