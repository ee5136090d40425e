"""Which encoder a data set gets, where none is named: the one that validates better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hashlgn.training.encoders.spectral
from conftest import clusters
from hashlgn.config import Config
from hashlgn.data import Interactions, validation_slice
from hashlgn.estimators import HashLGN
from hashlgn.training.encoders import LightGCN, Spectral
from hashlgn.training.graph import Graph
from hashlgn.training.start import choose_encoder
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


def test_the_encoder_that_validates_better_is_taken() -> None:
    """LightGCN where it is trained; where it stays at its random start, the closed form."""
    spectral = train(data(), config(train__init="random", train__lr=0.0))
    assert isinstance(spectral.model.encoder, Spectral) and spectral.config.model.encoder == "spectral"
    assert spectral.choice["spectral"] > spectral.choice["lightgcn"]
    assert spectral.config.model.similarity == "inner"
    trained = train(data(), config(model__power=8.0))  # a filter that leaves hardly more than one vector
    assert isinstance(trained.model.encoder, LightGCN) and trained.config.model.encoder == "lightgcn"
    assert trained.choice["lightgcn"] > trained.choice["spectral"] and trained.config.model.similarity == "cosine"
    named = train(data(), config(model__encoder="lightgcn"))
    assert isinstance(named.model.encoder, LightGCN) and named.choice == {}


def test_what_was_chosen_trains_as_if_it_had_been_named() -> None:
    for changes in ({}, {"train__init": "random", "train__lr": 0.0}):
        first = train(data(), config(**changes))
        named = train(data(), config(model__encoder=first.config.model.encoder, **changes))
        for x, y in zip(first.model.state_dict().values(), named.model.state_dict().values(), strict=True):
            np.testing.assert_array_equal(x.numpy(), y.numpy())
        assert first.config == named.config and first.metrics == named.metrics


def test_without_validation_nothing_is_tried() -> None:
    settings, values = choose_encoder(data(), config(train__validation_users=0))
    assert settings.model.encoder == "lightgcn" and settings.model.similarity == "cosine" and values == {}
    few = Interactions.from_pairs(np.repeat(np.arange(6), 2), np.arange(12) % 5)  # nobody has five to give one of
    assert train(few, config(train__pretrain_epochs=1, train__joint_epochs=1)).choice == {}
    float_model = train(data(), config(model__kind="float", train__pretrain_epochs=1, train__joint_epochs=1))
    assert isinstance(float_model.model.encoder, LightGCN) and float_model.choice == {}


def test_the_choice_stands_in_the_model() -> None:
    steps: list[Progress] = []
    model = HashLGN(config=config()).fit(data(), report=steps.append)
    values = model.info()["provenance"]["encoders"]
    assert set(values) == {"lightgcn", "spectral"}
    better = "lightgcn" if values["lightgcn"] >= 0.97 * values["spectral"] else "spectral"
    assert model.info()["config"]["model"]["encoder"] == better
    assert steps[0].stage == "trial"


class Killed(Exception):
    pass


@pytest.mark.parametrize("changes", [{}, {"train__init": "random", "train__lr": 0.0, "model__hash": "linear"}])
def test_a_resumed_training_does_not_choose_again(changes: dict[str, object], tmp_path: Path) -> None:
    def kill(step: Progress) -> None:
        if step.stage == "joint" and step.epoch_done:
            raise Killed

    want, path, rest = train(data(), config(**changes)), tmp_path / "checkpoint", list[Progress]()
    with pytest.raises(Killed):
        train(data(), config(**changes), checkpoint=path, report=kill)
    got = train(data(), config(**changes), checkpoint=path, report=rest.append)
    assert {step.stage for step in rest} == {"joint"}
    assert got.choice == want.choice and got.config == want.config and got.metrics == want.metrics


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
    fit, held_out = validation_slice(data(), 0.25, seed=1)
    done = train(fit, config(model__encoder="spectral"), report=steps.append)
    assert not steps
    queries, items, _ = done.model.export(Graph(fit))
    scores = queries.numpy() @ items.decode().T
    scores[fit.matrix.nonzero()] = -np.inf
    top = np.argsort(-scores, axis=1)[:, :10]
    hits = [np.isin(held_out.row(user), top[user]).mean() for user in range(120) if len(held_out.row(user))]
    assert np.mean(hits) > 0.8  # at random: 10 of about 57
