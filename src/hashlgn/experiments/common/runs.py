"""One runner of experiments: runs under seeds, each made and evaluated once, and kept by what it depends on."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hashlgn.config import Config
from hashlgn.data import Interactions, random_ratio
from hashlgn.errors import DataError, MissingExtraError
from hashlgn.estimators import HashLGN, served_model, train_model
from hashlgn.experiments.baselines.recommenders import tuned
from hashlgn.inference.artifact import load_artifact, save_artifact
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.fold_in import FoldIn
from hashlgn.scoring.rows import rows_of
from hashlgn.utils.console import training_bar, write_json
from hashlgn.utils.provenance import provenance

FLOATS = {"model.answers": "floats", "model.histories": "floats"}  # changes that make a float student
ENCODER_FLOATS = {"model.kind": "float"}  # and a float model with an encoder

Result = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """How a model is made: trained, or quantized from a float model, or computed as a baseline."""

    name: str  # of its row in the tables; the model does not depend on it
    changes: Mapping[str, Any] = field(default_factory=dict)  # from the default configuration
    start: Run | None = None  # the float model that a training goes on from, or whose items are quantized
    quantizer: str | None = None  # a key of ``QUANTIZERS``: codes of ``model.bits`` bits, a scale if ``model.scale``
    baseline: str | None = None  # a key of ``RECOMMENDERS``

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """The same run, and what it starts from, with more changes."""
        start = self.start and self.start.updated(changes)
        return replace(self, changes={**self.changes, **changes}, start=start)

    def config(self, seed: int = 0) -> Config:
        """The whole configuration under a seed, checked."""
        return checked(Config().updated({**self.changes, "train.seed": seed}))

    def identity(self, seed: int) -> Result:
        """All that the model depends on beside the data, JSON-able."""
        return {
            "config": self.config(seed).to_dict(),
            "start": self.start and self.start.identity(seed),
            "quantizer": self.quantizer,
            "baseline": self.baseline,
        }


@dataclass(frozen=True)
class Made:
    """A model, and what is known of its making.

    The part ``whole`` has everything it was trained on in its graph and in its seen lists, and is evaluated on the test
    part. The part ``fit`` is the model as its validation slice saw it, by which thresholds are chosen.
    """

    part: Callable[[str], ServedModel]
    seconds: float  # of training or computing, the start's included
    own_seconds: float  # without the start's
    settings: Mapping[str, Any]  # the configuration, or the settings chosen
    details: Mapping[str, Any] = field(default_factory=dict)  # more for the results, such as validation values

    @cached_property
    def whole(self) -> ServedModel:
        """The part ``whole``."""
        return self.part("whole")

    @cached_property
    def fit(self) -> ServedModel:
        """The part ``fit``."""
        return self.part("fit")


class Runner:
    """Makes models over one data set, and keeps results and models in a folder.

    Args:
        train: what models learn from. A validation slice is cut from it under each seed, as training cuts it.
        out: folder for ``runs/``, the results, and ``models/``.
        keep: keep every trained model, with its parts; else only those that others start from, ``whole`` alone.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: processor threads; all where None.
        quiet: show no progress bar.
        say: called with a line after every run.
    """

    def __init__(
        self,
        train: Interactions,
        out: Path,
        *,
        keep: bool = False,
        device: str = "auto",
        threads: int | None = None,
        quiet: bool = True,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.train, self.out, self.keep = train, out, keep
        self.device, self.threads, self.quiet = device, threads, quiet
        self.say = say or (lambda line: None)

    def results(
        self,
        runs: Sequence[Run],
        seeds: int,
        evaluate: Callable[[Run, int], Mapping[str, Any]],
        identity: Callable[[Run], Mapping[str, Any]],
        shown: Callable[[Result], str],
    ) -> dict[str, list[Result]]:
        """Evaluate every run under every seed, where it has not been done.

        A run whose package is missing, or for which the data do not suffice, is left out with a line. The error is
        raised where that is the first run and no baseline.

        Seeds are 0, 1, … this many. ``evaluate`` gives the run's result under a seed, ``identity`` what that depends on
        beside the model, ``shown`` the result as a line.

        Returns:
            By name of the run, which no other has: results, one for each seed.
        """
        found: dict[str, list[Result]] = {}
        for seed in range(seeds):  # a whole table after the first round, intervals after the second
            for run in runs:
                try:
                    result, fresh = self.result(
                        {**run.identity(seed), **identity(run)}, partial(evaluate, run, seed), seed
                    )
                except (MissingExtraError, DataError) as error:
                    if run == runs[0] and run.baseline is None:  # then none can be made
                        raise
                    self.say(f"left out: {run.name} ({error})")
                    continue
                found.setdefault(run.name, []).append({"name": run.name, **result})
                if fresh:
                    self.say(f"{run.name}, seed {seed}: {shown(result)}")
        return found

    def result(
        self, identity: Mapping[str, Any], evaluate: Callable[[], Mapping[str, Any]], seed: int
    ) -> tuple[Result, bool]:
        """A result: read from its file, else computed and written whole or not at all; and whether it is new."""
        whole = {**identity, "seed": seed, **self._given}
        path = self.out / "runs" / f"{_digest(whole)}.json"
        fresh = not path.exists()
        if fresh:
            found = {**whole, **evaluate(), **provenance(seed=seed, threads=self.threads, device=self.device)}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, found)
        read: Result = json.loads(path.read_text("utf-8"))
        return read, fresh

    @cached_property
    def _given(self) -> Result:
        return {"train": self.train.fingerprint(numbered=True), "version": provenance()["version"]}

    def slices(self, run: Run, seed: int) -> tuple[Interactions, Interactions]:
        """(fit, held out), as training under this seed cuts them."""
        settings = run.config(seed).train
        return random_ratio(self.train, settings.validation_share, seed=seed, max_users=settings.validation_users)

    def folder(self, run: Run, seed: int) -> Path:
        """Where a trained model is kept."""
        name = re.sub(r"[^A-Za-z0-9]+", "-", run.name)
        return self.out / "models" / f"{name}-{_digest({**run.identity(seed), **self._given})}"

    def model(self, run: Run, seed: int, *, keep: bool = False) -> Made:
        """The run's model under a seed; what is trained is read from its folder where it is there."""
        if run.baseline is not None:
            return self._baseline(run, run.baseline, seed)
        if run.quantizer is not None:
            return self._quantized(run, run.quantizer, seed)
        start = None if run.start is None else self.model(run.start, seed, keep=True)
        folder = self.folder(run, seed)
        if (folder / "whole" / "model.safetensors").exists():
            part: Callable[[str], ServedModel] = lambda name: load_artifact(folder / name)  # noqa: E731
        else:
            part = self._train(run, seed, start, folder if keep or self.keep else None)
        whole = part("whole")
        own = whole.provenance["seconds"]
        details = {"validation": whole.metrics["validation"]}
        return Made(part, own + (start.seconds if start else 0.0), own, whole.config, details)

    def _train(self, run: Run, seed: int, start: Made | None, folder: Path | None) -> Callable[[str], ServedModel]:
        checkpoint = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint = folder / "checkpoint"
        how: Result = {"device": self.device, "threads": self.threads, "checkpoint": checkpoint}
        with training_bar("validation", quiet=self.quiet, title=f"{run.name}, seed {seed}: ") as bar:
            state = None if start is None else start.whole.encoder_state
            trained = train_model(self.train, run.config(seed), start=state, report=bar, **how)
        models = {}
        if self.keep:
            from hashlgn.training.graph import Graph
            from hashlgn.training.trainer import Trained

            fit = self.slices(run, seed)[0]
            graph = Graph(fit, trained.graph.device) if isinstance(trained, Trained) else None  # a student has none
            models["fit"] = served_model(trained, fit, graph)
        models["whole"] = served_model(trained, self.train)
        if folder is not None and checkpoint is not None:
            for part, model in models.items():  # the whole comes last: where it is, the others are
                save_artifact(model, folder / part)
            checkpoint.unlink(missing_ok=True)
        return models.__getitem__

    def _quantized(self, run: Run, quantizer: str, seed: int) -> Made:
        from hashlgn.experiments.baselines.quantizers import quantize

        assert run.start is not None, "a quantizer is given the items of a float model"
        source, config = self.model(run.start, seed, keep=True), run.config(seed).model
        scale = config.scale and not quantizer.endswith("-hamming")  # distances have no scale

        def part(name: str) -> ServedModel:
            model = source.part(name)
            found = quantize(model.items.decode(), quantizer, config.bits, scale=scale, seed=seed)
            coded: dict[str, Any] = {
                "users": found.queries(model.queries_of(np.arange(len(model.user_ids)))),
                "items": found.items,
                "histories": None,
                "encoder_state": None,
            }
            return replace(model, kind=quantizer, **coded)

        began = time.perf_counter()
        whole = part("whole")
        own = time.perf_counter() - began
        settings = {"quantizer": quantizer, "bits": config.bits, "scale": scale}
        parts: Callable[[str], ServedModel] = lambda name: whole if name == "whole" else part(name)  # noqa: E731
        return Made(parts, source.seconds + own, own, settings, source.details)

    def _baseline(self, run: Run, baseline: str, seed: int) -> Made:
        fit, held_out = self.slices(run, seed)
        began = time.perf_counter()
        chosen = tuned(baseline, fit, held_out, seed=seed, threads=self.threads)
        middle = time.perf_counter()
        whole = chosen.build(self.train)
        seconds = time.perf_counter() - middle
        details = {"tuning_seconds": middle - began, "validation": list(chosen.values)}
        parts: Callable[[str], ServedModel] = lambda name: whole if name == "whole" else chosen.build(fit)  # noqa: E731
        return Made(parts, seconds, seconds, chosen.settings, details)


def checked(config: Config) -> Config:
    """With what is open filled in where it names an encoder; a student fills it in as it is trained."""
    from hashlgn.training.resolve import resolve

    return config if config.model.encoder is None else resolve(config)


def has_encoder(config: Config) -> bool:
    """Whether there is an encoder with parameters."""
    from hashlgn.training.encoders import ENCODERS

    return config.model.encoder is not None and ENCODERS[config.model.encoder].trainable


def left_out(model: ServedModel, users: npt.NDArray[np.int64]) -> Exclusion:
    """What users have, which they are not answered."""
    return Exclusion.build(len(model.items), seen=rows_of(model.seen, users))


def recommender(
    data: Interactions, changes: Mapping[str, Any] | None, *, seed: int, threads: int | None
) -> Recommender:
    """The default training with changes; users and items without an interaction are not known to the model."""
    model = HashLGN(config=Config().updated(dict(changes or {})), seed=seed, threads=threads)
    return Recommender(model.fit(data.without_empty(), progress=False).model, threads=threads)


def sizes(model: ServedModel) -> dict[str, float]:
    """Bytes of a model that grow with the catalogue or with the users, without ids, titles and stored histories."""
    known = model.histories
    history = known.item_vectors.nbytes / len(model.items) if isinstance(known, FoldIn) else 0.0
    history = history if known is None or isinstance(known, FoldIn) else known.bytes_per_item
    user = 0.0 if model.users is None else float(model.users.nbytes / len(model.users))
    return {"bytes/answer": model.items.bytes_per_item, "bytes/history item": history, "bytes/user": user}


def _digest(value: Any) -> str:
    """A short name for a JSON-able value: equal values have equal names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
