"""What validation chooses of the spectral encoder, and its codes in closed form."""

from __future__ import annotations

import numpy as np
import pytest

import hashlgn.training.encoders.spectral
from conftest import clusters
from hashlgn.config import Config
from hashlgn.data import Interactions, random_ratio
from hashlgn.training.graph import Graph
from hashlgn.training.trainer import train
from hashlgn.utils.progress import Progress

SMALL = {
    "model.bits": 32,
    "train.pretrain_epochs": 8,
    "train.joint_epochs": 4,
    "train.validation_users": 60,
    "train.monitor_k": 5,
}


def config(**changes: object) -> Config:
    return Config().updated(SMALL | {name.replace("__", "."): value for name, value in changes.items()})


def data() -> Interactions:
    return clusters(120, 60, groups=6, share=0.3)


def test_the_width_of_the_closed_form_is_the_one_that_validates_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashlgn.training.encoders.spectral, "_DIMS", (2, 12, 60))
    made = clusters(400, 300, groups=12, share=0.2, seed=1)
    how = {"model__kind": "float", "model__encoder": "spectral"}
    by_width = {dim: train(made, config(model__dim=dim, **how)).metrics["encoder"] for dim in (2, 12, 60)}
    done = train(made, config(**how))
    assert done.metrics["encoder"] == max(by_width.values()) > min(by_width.values())
    assert by_width[done.config.model.dim] == done.metrics["encoder"]


def test_codes_of_a_closed_form_are_closed_too() -> None:
    steps: list[Progress] = []
    fit, held_out = random_ratio(data(), 0.25, seed=1)
    done = train(fit, config(model__encoder="spectral"), report=steps.append)
    assert not steps
    queries, items, _ = done.model.export(Graph(fit))
    scores = queries.numpy() @ items.decode().T
    scores[fit.matrix.nonzero()] = -np.inf
    top = np.argsort(-scores, axis=1)[:, :10]
    hits = [np.isin(held_out.row(user), top[user]).mean() for user in range(120) if len(held_out.row(user))]
    assert np.mean(hits) > 0.8  # at random: 10 of about 57
