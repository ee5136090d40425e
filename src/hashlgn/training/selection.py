"""Which encoder a data set gets, and what the encoder starts from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError
from hashlgn.evaluation.metrics import Floats
from hashlgn.training.encoders import CANDIDATES, ENCODERS, Encoder
from hashlgn.training.graph import Graph
from hashlgn.training.model import Model
from hashlgn.training.resolve import resolve, resolve_device
from hashlgn.training.stages import Run, plan_stages, seeded, train_stage
from hashlgn.training.validation import cut_slice, ranking_values
from hashlgn.utils.progress import Progress

__all__ = ["choose_encoder", "make_encoder", "select_encoder"]

# A trainable encoder is compared after this share of its pre-training. It may be behind by so much, which the rest of
# its training brings.
_TRIAL_SHARE, _MAY_BE_BEHIND = 0.25, 0.03

Parameters = Mapping[str, np.ndarray[Any, Any]]


def choose_encoder(data: Interactions, config: Config, *, device: str = "auto") -> tuple[Config, dict[str, float]]:
    """What ``train`` would choose for these interactions; see ``select_encoder``."""
    config = resolve(config)
    fit, held_out = cut_slice(data, config.train)
    return select_encoder(Graph(fit, resolve_device(device)), config, fit, held_out)


def select_encoder(
    graph: Graph,
    config: Config,
    fit: Interactions,
    held_out: Interactions | None,
    report: Callable[[Progress], None] | None = None,
) -> tuple[Config, dict[str, float]]:
    """The configuration with an encoder where it names none, and the validation value of each that was tried.

    It is the one of ``CANDIDATES`` that validates better as a float model: the spectral encoder in closed form, or
    LightGCN after a quarter of its pre-training. LightGCN may be 3% behind: the rest of its training brings more.
    Without a validation slice it is LightGCN, and none is tried.
    """
    if config.model.encoder is not None:
        return config, {}
    candidates = {name: resolve(config.updated({"model.encoder": name})) for name in CANDIDATES}
    if held_out is None:
        return candidates[CANDIDATES[0]], {}
    values = {}
    epochs = math.ceil(_TRIAL_SHARE * config.train.pretrain_epochs)
    for name, candidate in candidates.items():
        how = {"model.kind": "float", "train.pretrain_epochs": epochs, "train.joint_epochs": 0}
        with seeded(config.train.seed, graph.device):
            trial, encoder = make_encoder(graph, candidate.updated(how), fit, held_out)
            (stage,) = plan_stages(trial, encoder, fit, started=False)
            stages = [replace(stage, name="trial")]
            model = Model(encoder, graph.n_items, trial.model).to(graph.device)
            run = Run(trial, model, graph, fit, held_out, stages, report=report)
            train_stage(run, stages[0])
        values[name] = run.metrics["trial"]
        candidates[name] = replace(candidate, model=replace(candidate.model, **encoder.settings()))
    allowed = {name: values[name] / (1 - _MAY_BE_BEHIND * ENCODERS[name].trainable) for name in CANDIDATES}
    return candidates[max(allowed, key=allowed.__getitem__)], values


def make_encoder(
    graph: Graph,
    config: Config,
    fit: Interactions,
    held_out: Interactions | None,
    start: Parameters | None = None,
) -> tuple[Config, Encoder]:
    """The encoder that the configuration names, at its start, and the configuration with the encoder's settings.

    Args:
        graph: of ``fit``.
        config: with an encoder.
        fit: what it is created from.
        held_out: what chooses the settings that are open, if there are any; None without validation.
        start: its parameters from a float model, in place of ``train.init``.

    Raises:
        ArgumentError: ``start`` or ``train.init`` does not fit the encoder.
    """
    model, settings = config.model, config.train
    kind = ENCODERS[model.encoder or CANDIDATES[0]]
    evaluate = None if held_out is None else partial(_evaluate, graph, config, fit, held_out)
    encoder = kind.select(graph, model, settings.seed, evaluate).to(graph.device)
    if start is not None:
        _load(encoder, start)
    elif encoder.trainable and settings.init == "svd":
        encoder.start_from_svd(graph, settings.seed)
    elif encoder.trainable and settings.init != "random":
        raise ArgumentError(
            "train.init must be 'svd', 'random' or a saved float model, whose parameters train() takes as start (got "
            f"{settings.init!r})"
        )
    return replace(config, model=replace(model, **encoder.settings())), encoder


def _evaluate(graph: Graph, config: Config, fit: Interactions, held_out: Interactions, encoder: Encoder) -> Floats:
    """The validation metric of an encoder as it is, one value per user."""
    users, items = encoder(graph)
    return ranking_values(users, items, fit, held_out, config)


def _load(encoder: Encoder, start: Parameters) -> None:
    """Give an encoder the parameters of a float model."""
    if not encoder.trainable:
        raise ArgumentError(f"start needs an encoder with parameters (got {type(encoder).__name__})")
    shapes = {name: tuple(value.shape) for name, value in start.items()}
    expected = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    if shapes != expected:
        raise ArgumentError(f"start must hold the encoder's parameters {expected} (got {shapes})")
    if not all(np.isfinite(value).all() for value in start.values()):
        raise ArgumentError("start must be finite")
    encoder.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in start.items()})
