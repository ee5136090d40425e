"""What a user fits: ``HashLGN`` and ``LightGCN``, recommenders that are trained first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from hashlgn.config import Config, preset_changes
from hashlgn.data import Interactions, read_interactions
from hashlgn.errors import ArgumentError, need
from hashlgn.inference.artifact import load_artifact
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.utils.provenance import provenance

if TYPE_CHECKING:  # PyTorch is imported where a model is trained, and nowhere else
    from hashlgn.training.graph import Graph
    from hashlgn.training.trainer import Trained
    from hashlgn.utils.progress import Progress

__all__ = ["HashLGN", "LightGCN", "served_model"]

_SLICE = ("seed", "validation_users", "validation_share")  # what fixes the validation slice of given data


class _Trainable(Recommender):
    """What ``HashLGN`` and ``LightGCN`` share: a configuration, and ``fit``."""

    def __init__(self, config: Config, device: str, threads: int | None) -> None:
        self._model, self.config = None, config
        self.device, self.engine, self.threads = device, "auto", threads

    def fit(
        self,
        train: Any,
        *,
        checkpoint: str | Path | None = None,
        report: Callable[[Progress], None] | None = None,
    ) -> Self:
        """Train on interactions.

        Args:
            train: interactions, or anything that ``read_interactions`` takes.
            checkpoint: file to write after every epoch, and to go on from where it exists.
            report: called with the ``Progress`` after every step.

        Raises:
            ArgumentError: the configuration breaks a rule, or the checkpoint belongs to another training.
            DataError: there is nothing to learn from.
            MissingExtraError: PyTorch is not installed.
        """
        need("torch", "train", "training")
        from hashlgn.training.trainer import train as run

        data = train if isinstance(train, Interactions) else read_interactions(train)
        start = _start(self.config, data)
        trained = run(
            data,
            self.config,
            device=self.device,
            threads=self.threads,
            checkpoint=checkpoint,
            start=start,
            report=report,
        )
        self._model = served_model(trained, data)
        for name in ("searcher", "_similarity"):  # of an earlier fit
            self.__dict__.pop(name, None)
        return self


class HashLGN(_Trainable):
    """LightGCN encoder, learned item codes and a learned decoder, trained jointly.

    Args:
        bits: length of an item's code, a multiple of 8.
        dim: length of an embedding.
        loss: ``softmax``, ``bpr``, ``hashgnn`` or ``hashgnn-code``.
        pretrain_epochs: passes over the data in which the encoder is trained alone, at most.
        joint_epochs: passes over the data in which all parts are trained together, at most.
        seed: fixes every draw.
        config: everything else: a ``Config``, or a mapping such as ``{"train.lr": 0.01}``. What is given above goes
            before.
        preset: a key of ``hashlgn.config.PRESETS``, whose values stand where none is given: ``paper`` is the paper's
            own recipe, ``hashgnn`` is HashGNN. It needs a mapping, since a ``Config`` leaves nothing open.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: processor threads; all where None.
    """

    def __init__(
        self,
        bits: int | None = None,
        *,
        dim: int | None = None,
        loss: str | None = None,
        pretrain_epochs: int | None = None,
        joint_epochs: int | None = None,
        seed: int | None = None,
        config: Config | Mapping[str, Any] | None = None,
        preset: str | None = None,
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        changes = {"model.bits": bits, "model.dim": dim, "train.loss": loss, "train.seed": seed}
        changes |= {"train.pretrain_epochs": pretrain_epochs, "train.joint_epochs": joint_epochs}
        super().__init__(_config(config, "hashlgn", changes, preset), device, threads)


class LightGCN(_Trainable):
    """The float model in the same frame: no hash, no decoder.

    Args:
        dim: length of an embedding.
        loss: ``softmax``, ``bpr``, ``hashgnn`` or ``hashgnn-code``.
        epochs: passes over the data, at most.
        seed: fixes every draw.
        config: everything else: a ``Config``, or a mapping such as ``{"train.lr": 0.01}``. What is given above goes
            before.
        preset: a key of ``hashlgn.config.PRESETS``, whose values stand where none is given: ``paper`` is the paper's
            own recipe. It needs a mapping, since a ``Config`` leaves nothing open.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: processor threads; all where None.
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        loss: str | None = None,
        epochs: int | None = None,
        seed: int | None = None,
        config: Config | Mapping[str, Any] | None = None,
        preset: str | None = None,
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        changes = {"model.dim": dim, "train.loss": loss, "train.seed": seed}
        changes |= {"train.pretrain_epochs": epochs, "train.joint_epochs": None if epochs is None else 0}
        super().__init__(_config(config, "float", changes, preset), device, threads)


def served_model(trained: Trained, data: Interactions, graph: Graph | None = None) -> ServedModel:
    """A training's result as it is served.

    Args:
        trained: what ``train`` returned.
        data: what the users have seen.
        graph: what the embeddings are propagated over; the graph of everything trained on where None. The graph of the
            fitted part alone, with that part as ``data``, gives the model as its validation slice saw it.
    """
    queries, items, fold_in = trained.model.export(trained.graph if graph is None else graph)
    encoder = trained.model.get_submodule("encoder")
    state = {name: value.cpu().numpy() for name, value in encoder.state_dict().items()}
    return ServedModel(
        kind=trained.config.model.kind,
        config=trained.config.to_dict(),
        user_ids=data.user_ids,
        item_ids=data.item_ids,
        users=queries.numpy(),
        items=items,
        seen=(data.indptr, data.indices),
        fold_in=fold_in,
        titles=None if data.titles is None else list(data.titles),
        genres=None if data.genres is None else list(data.genres),
        metrics={"validation": trained.metrics, "monitor": trained.monitor},
        provenance=provenance(
            data={"fingerprint": data.fingerprint(), **data.stats()},
            seed=trained.config.train.seed,
            device=trained.device,
            threads=trained.threads,
            seconds=round(trained.seconds, 3),
            **({"encoders": trained.choice} if trained.choice else {}),
        ),
        encoder_state=state if trained.config.model.kind == "float" else None,
    )


def _config(
    config: Config | Mapping[str, Any] | None, kind: str, changes: dict[str, Any], preset: str | None
) -> Config:
    if config is not None and not isinstance(config, Config | Mapping):
        raise ArgumentError(f"config must be a Config or a mapping (got {type(config).__name__})")
    if isinstance(config, Mapping) and config.get("model.kind", kind) != kind:
        raise ArgumentError(f"model.kind must be {kind!r} here (got {config['model.kind']!r})")
    if isinstance(config, Config):
        if preset is not None:
            raise ArgumentError(f"preset must be left out where config is a whole Config (got {preset!r})")
        whole = config
    else:
        whole = Config().updated(preset_changes(preset)).updated(config or {})
    return whole.updated({"model.kind": kind} | {name: value for name, value in changes.items() if value is not None})


def _start(config: Config, data: Interactions) -> dict[str, npt.NDArray[np.float32]] | None:
    """The encoder's parameters from the saved float model that ``train.init`` names, or None where it names none."""
    if config.train.init in ("svd", "random"):
        return None
    model = load_artifact(config.train.init)
    if model.encoder_state is None:
        raise ArgumentError(f"train.init must be 'svd', 'random' or a float model's folder (got {config.train.init!r})")
    if model.user_ids != data.user_ids or model.item_ids != data.item_ids:
        raise ArgumentError(
            f"train.init must be a model of the same users and items (got {config.train.init!r}, of others)"
        )
    # Another validation slice would hold interactions that the start was trained on.
    mine = {"data": data.fingerprint()} | {key: getattr(config.train, key) for key in _SLICE}
    trained = {"data": model.provenance.get("data", {}).get("fingerprint")}
    trained |= {key: model.config.get("train", {}).get(key) for key in _SLICE}
    if mine != trained:
        differ = ", ".join(key for key in mine if mine[key] != trained[key])
        raise ArgumentError(
            f"train.init must be a model of the same training and validation data (got {config.train.init!r}, which "
            f"differs in {differ})"
        )
    return model.encoder_state
