"""What a user fits: ``HashLGN`` and ``LightGCN``, recommenders that are trained first."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from hashlgn.config import Config, preset_changes
from hashlgn.config.loading import by_key
from hashlgn.data import Interactions, read_interactions
from hashlgn.errors import ArgumentError, choose, flag, need, thread_count
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.stored import Stored
from hashlgn.search import SEARCHERS
from hashlgn.utils.console import say, training_bar
from hashlgn.utils.provenance import provenance

if TYPE_CHECKING:  # PyTorch is imported where a model is trained, and nowhere else
    from hashlgn.training.graph import Graph
    from hashlgn.training.student import TrainedStudent
    from hashlgn.training.trainer import Trained
    from hashlgn.utils.progress import Progress

__all__ = ["HashLGN", "LightGCN", "served_model", "train_model"]


class _Int(int):
    """An integer that stands in a signature as a default, so that a preset or a configuration goes before it."""


class _Text(str):
    """The same for text."""

    __slots__ = ()


class _Trainable(Recommender):
    """What ``HashLGN`` and ``LightGCN`` share: parameters in the manner of scikit-learn, and ``fit``.

    Each parameter of the constructor is an attribute of that name. One that was left open has the value that ``preset``
    and ``config`` give it.
    """

    _kind: ClassVar[str]
    _keys: ClassVar[dict[str, str]]  # configuration key of each parameter that is one
    config: Config | Mapping[str, Any] | None
    preset: str | None
    device: str

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._model = None
        self.set_params(**{name: parameters[name] for name in self._names()})

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls).parameters if name != "self"]

    @property
    def configuration(self) -> Config:
        """The whole configuration: defaults, then ``preset``, then ``config``, then the other parameters.

        Raises:
            ArgumentError: there is no such preset or key, or a value has the wrong type.
        """
        given = {key: getattr(self, name) for name, key in self._keys.items()}
        changes = {key: value for key, value in given.items() if value is not None and type(value) not in (_Int, _Text)}
        if self._kind == "float" and "train.pretrain_epochs" in changes:  # which are all that a float model has
            changes["train.joint_epochs"] = 0
        return _config(self.config, self._kind, changes, self.preset)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters of the constructor by name: as they were given, or as ``preset`` and ``config`` say."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **parameters: Any) -> Self:
        """Change parameters of the constructor; the next ``fit`` uses them, ``engine`` and ``threads`` the next answer.

        Raises:
            ArgumentError: there is no such parameter, or a value breaks its rule; nothing is changed then.
        """
        for name in parameters:
            choose("parameter", name, dict.fromkeys(self._names()))
        choose("engine", parameters.get("engine", "auto"), {"auto": None, **SEARCHERS})
        choose("device", parameters.get("device", "auto"), dict.fromkeys(("auto", "cpu", "cuda")))
        thread_count("threads", parameters.get("threads"))
        before = dict(self.__dict__)
        self.__dict__.update(parameters)
        try:
            whole = self.configuration.to_dict()
        except ArgumentError:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        for name, key in self._keys.items():  # what was left open says what the configuration makes of it
            section, _, field = key.partition(".")
            held, value = getattr(self, name), whole[section][field]
            if held == value:
                continue
            if held is None or type(held) in (_Int, _Text):
                value = _Text(value) if isinstance(value, str) else None if value is None else _Int(value)
            setattr(self, name, value)
        return self

    def fit(
        self,
        train: Any,
        *,
        progress: bool | None = None,
        checkpoint: str | Path | None = None,
        report: Callable[[Progress], None] | None = None,
        **reading: Any,
    ) -> Self:
        """Train on interactions.

        Args:
            train: interactions, or anything that ``read_interactions`` takes.
            progress: show a bar on a terminal and in a notebook; elsewhere, one line per stage of a training that takes
                longer than a few seconds, with the time left. Default: shown where there is no ``report``.
            checkpoint: file to write after every epoch, and to go on from where it exists. Default: none.
            report: called with the ``Progress`` after every step. Default: none.
            reading: options of ``read_interactions``, such as ``user="who"`` or ``min_rating=4``.

        Raises:
            ArgumentError: the configuration breaks a rule, or the checkpoint belongs to another training.
            DataError: there is nothing to learn from.
            MissingExtraError: PyTorch is not installed.
        """
        need("torch", "train", "training")
        from hashlgn.training.resolve import resolve_device

        resolve_device(self.device)
        shows = report is None if progress is None else flag("progress", progress)
        config, data = self.configuration, _read(train, reading)
        if not isinstance(train, Interactions):
            for note in data.notes:
                say(not shows, note)
        with training_bar(f"{config.train.monitor}@{config.train.monitor_k}", quiet=not shows) as bar:

            def tell(step: Progress) -> None:
                bar(step)
                if report is not None:
                    report(step)

            trained = train_model(
                data, config, threads=self.threads, device=self.device, checkpoint=checkpoint, report=tell
            )
        self._model = served_model(trained, data)
        return self


class HashLGN(_Trainable):
    """A recommender whose items are short codes, and whose users are their histories.

    The score of a user and an item is ``q_u · o_i``, with ``q_u = normalise(Σ_{j∈H_u} a_uj p_j)``: both the answer
    ``o`` and the item in a history ``p`` are codes. A configuration that names an encoder, as the presets do, trains
    the paper's kind of model instead, with a vector for each user of the training.

    Args:
        bits: length of an item's code as an answer, a multiple of 8. Default: 128.
        history_bits: length of its code in a history, a multiple of 8. Default: None, which means four times ``bits``,
            but at most 320 (beyond 10,000 items at least twice ``bits``).
        dim: width of the vectors behind the codes. Default: None, which means 256 (192 beyond 10,000 items), or the
            encoder's own choice.
        seed: fixes every draw. Default: 0.
        config: everything else: a ``Config``, or a mapping such as ``{"student.epochs": 20}`` or
            ``{"student": {"epochs": 20}}``. What is given above goes before it; a default above does not.
            Default: None.
        preset: a key of ``hashlgn.config.PRESETS``, whose values stand where none is given: ``paper`` is the paper's
            own recipe, ``hashgnn`` is HashGNN. It needs a mapping, since a ``Config`` leaves nothing open.
            Default: None.
        device: ``auto`` (default), ``cpu`` or ``cuda``.
        engine: searcher by name, as of ``Recommender``. Default: ``auto``.
        threads: processor threads. Default: None, which means all.

    Raises:
        ArgumentError: a parameter breaks its rule.
    """

    _kind = "hashlgn"
    _keys: ClassVar[dict[str, str]] = {
        "bits": "model.bits",
        "history_bits": "model.history_bits",
        "dim": "model.dim",
        "seed": "train.seed",
    }

    def __init__(
        self,
        bits: int = _Int(128),
        *,
        history_bits: int | None = None,
        dim: int | None = None,
        seed: int = _Int(0),
        config: Config | Mapping[str, Any] | None = None,
        preset: str | None = None,
        device: str = "auto",
        engine: str = "auto",
        threads: int | None = None,
    ) -> None:
        super().__init__(locals())


class LightGCN(_Trainable):
    """A float model with an encoder, LightGCN where the configuration names none: no hash, no decoder. A score is
    ``q_u · o_i``, and every user of the training has a vector.

    Args:
        dim: length of an embedding. Default: None, which means chosen by the encoder.
        loss: ``softmax`` (default), ``bpr``, ``hashgnn`` or ``hashgnn-code``.
        epochs: passes over the data, at most. Default: 90.
        seed: fixes every draw. Default: 0.
        config: everything else: a ``Config``, or a mapping such as ``{"train.lr": 0.01}`` or
            ``{"train": {"lr": 0.01}}``. What is given above goes
            before it; a default above does not. Default: None.
        preset: a key of ``hashlgn.config.PRESETS``, whose values stand where none is given: ``paper`` is the paper's
            own recipe. It needs a mapping, since a ``Config`` leaves nothing open. Default: None.
        device: ``auto`` (default), ``cpu`` or ``cuda``.
        engine: searcher by name, as of ``Recommender``. Default: ``auto``.
        threads: processor threads. Default: None, which means all.

    Raises:
        ArgumentError: a parameter breaks its rule.
    """

    _kind = "float"
    _keys: ClassVar[dict[str, str]] = {
        "dim": "model.dim",
        "loss": "train.loss",
        "epochs": "train.pretrain_epochs",
        "seed": "train.seed",
    }

    def __init__(
        self,
        dim: int | None = None,
        *,
        loss: str = _Text("softmax"),
        epochs: int = _Int(90),
        seed: int = _Int(0),
        config: Config | Mapping[str, Any] | None = None,
        preset: str | None = None,
        device: str = "auto",
        engine: str = "auto",
        threads: int | None = None,
    ) -> None:
        super().__init__(locals())


def served_model(trained: Trained | TrainedStudent, data: Interactions, graph: Graph | None = None) -> ServedModel:
    """A training's result as it is served.

    Args:
        trained: what ``train`` or ``train_student`` returned.
        data: what the users have seen.
        graph: of a model with an encoder, what the embeddings are propagated over; the graph of everything trained on
            where None. The graph of the fitted part alone, with that part as ``data``, gives the model as its
            validation slice saw it.
    """
    config, how = trained.config, dict(trained.told)
    return ServedModel(
        kind=config.model.kind,
        config=config.to_dict(),
        user_ids=data.user_ids,
        item_ids=data.item_ids,
        stored=Stored.of(data.indptr, data.indices, getattr(trained, "strengths", None), data.times),
        titles=None if data.titles is None else list(data.titles),
        genres=None if data.genres is None else list(data.genres),
        metrics={"validation": trained.metrics, "monitor": f"{config.train.monitor}@{config.train.monitor_k}"},
        provenance=provenance(
            data={"fingerprint": data.fingerprint(), **data.stats()},
            seed=config.train.seed,
            device=trained.device,
            threads=trained.threads,
            seconds=round(trained.seconds, 3),
            **how,
        ),
        **trained.parts(graph),
    )


def train_model(
    data: Interactions,
    config: Config,
    *,
    start: dict[str, npt.NDArray[np.float32]] | None = None,
    threads: int | None = None,
    **how: Any,
) -> Trained | TrainedStudent:
    """The training that a configuration names: of a student where it names no encoder.

    Args:
        data: the interactions to learn from.
        config: the whole configuration.
        start: of a model with an encoder, the encoder's parameters.
        threads: processor threads; all where None.
        how: device, checkpoint and report, as for both trainings.
    """
    from hashlgn.training.student import train_student
    from hashlgn.training.trainer import train

    how["threads"] = thread_count("threads", threads)
    if config.model.encoder is None:
        return train_student(data, config, **how)
    return train(data, config, start=start, **how)


def _read(train: Any, options: dict[str, Any]) -> Interactions:
    """Interactions as they are, or read with options."""
    known = [name for name in inspect.signature(read_interactions).parameters if name != "source"]
    for name in options:
        choose("option of fit", name, dict.fromkeys([*known, "progress", "checkpoint", "report"]))
    if not isinstance(train, Interactions):
        return read_interactions(train, **options)
    if options:
        raise ArgumentError(f"{', '.join(options)} must be left out for interactions that are read already (got them)")
    return train


def _config(
    config: Config | Mapping[str, Any] | None, kind: str, changes: dict[str, Any], preset: str | None
) -> Config:
    if config is not None and not isinstance(config, Config | Mapping):
        raise ArgumentError(f"config must be a Config or a mapping (got {type(config).__name__})")
    if isinstance(config, Mapping) and (other := by_key(config).get("model.kind", kind)) != kind:
        raise ArgumentError(f"model.kind must be {kind!r} here (got {other!r})")
    if isinstance(config, Config):
        if preset is not None:
            raise ArgumentError(f"preset must be left out where config is a whole Config (got {preset!r})")
        whole = config
    else:
        whole = Config().updated(preset_changes(preset)).updated(config or {})
    if kind == "float" and whole.model.encoder is None:
        whole = whole.updated({"model.encoder": "lightgcn"})
    return whole.updated({"model.kind": kind} | {name: value for name, value in changes.items() if value is not None})
