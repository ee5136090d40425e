"""The encoder at its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError
from hashlgn.evaluation.metrics import Floats
from hashlgn.training.encoders import ENCODERS, Encoder
from hashlgn.training.graph import Graph
from hashlgn.training.validation import ranking_values

__all__ = ["make_encoder"]

Parameters = Mapping[str, np.ndarray[Any, Any]]


def make_encoder(
    graph: Graph,
    config: Config,
    fit: Interactions,
    held_out: Interactions | None,
    start: Parameters | None = None,
) -> tuple[Config, Encoder]:
    """The encoder that the configuration names, at its start, and the configuration with the encoder's settings.

    What is held out chooses the open settings; ``start`` is a float model's parameters, in place of ``train.init``.

    Raises:
        ArgumentError: ``start`` does not fit the encoder.
    """
    model, settings = config.model, config.train
    assert model.encoder is not None  # ``resolve`` has seen to it
    kind = ENCODERS[model.encoder]
    evaluate = None if held_out is None else partial(_evaluate, graph, config, fit, held_out)
    encoder = kind.select(graph, model, settings.seed, evaluate).to(graph.device)
    if start is not None:
        _load(encoder, start)
    elif encoder.trainable and settings.init == "svd":
        encoder.start_from_svd(graph, settings.seed)
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
