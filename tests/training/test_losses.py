"""Losses against numbers worked by hand and plain autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import clusters
from hashlgn.config import TrainConfig
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError
from hashlgn.training.encoders import LightGCN
from hashlgn.training.graph import Graph
from hashlgn.training.losses import LOSSES, Bpr, Distillation, Softmax
from hashlgn.training.objectives import label_loss

pytestmark = pytest.mark.usefixtures("seeded")


SCORES = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]])  # of two users over three items
TINY = Interactions.from_pairs([0, 0, 1], [0, 1, 2])


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_falls_along_its_gradient(name: str) -> None:
    data = clusters(20, 15)
    queries, items = torch.randn(20, 4, requires_grad=True), torch.randn(15, 4, requires_grad=True)
    loss = LOSSES[name](TrainConfig(), "inner")
    if loss.needs_teacher:
        loss.restore((torch.randn(20, 4), torch.randn(15, 4)))
    batches = list(loss.batches(data, np.random.default_rng(0)))
    assert len(batches) == loss.steps(data)
    before = loss(queries, items, batches[0])
    before.backward()
    with torch.no_grad():
        after = loss(queries - 0.1 * queries.grad, items - 0.1 * items.grad, batches[0])
    assert after < before


def test_softmax_by_hand() -> None:
    loss = Softmax(TrainConfig(temperature=0.5, user_weight=-0.5), "cosine")
    (batch,) = loss.batches(TINY, np.random.default_rng(0))
    got = loss(torch.eye(2), SCORES.T.contiguous(), batch)
    log = torch.log_softmax(SCORES / 0.5, dim=1)
    want = -(2**-0.5 * (log[0, 0] + log[0, 1]) + log[1, 2]) / (2 * 2**-0.5 + 1)
    torch.testing.assert_close(got, want)


def test_the_fused_gradient_is_autograds() -> None:
    rows, columns = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([1, 2, 0, 3, 5])
    weights, log_weight = torch.rand(3).double(), torch.randn(6).double()
    q, x = torch.randn(3, 4).double().requires_grad_(), torch.randn(6, 4).double().requires_grad_()
    scores = q @ x.T + log_weight
    plain = (weights[rows] * (torch.logsumexp(scores, 1)[rows] - scores[rows, columns])).sum()
    plain = plain / weights[rows].sum()
    fused = label_loss(q, x, (rows, columns), None, weights, log_weight)
    torch.testing.assert_close(fused, plain)
    for got, want in zip(torch.autograd.grad(3 * fused, (q, x)), torch.autograd.grad(3 * plain, (q, x)), strict=True):
        torch.testing.assert_close(got, want)


def test_sampled_softmax_is_unbiased_inside_the_logarithm() -> None:
    data = clusters(8, 60, groups=2)
    data = data.select(data.indices < 10)  # most items are nobody's here, and have to be sampled
    full, sampled = (Softmax(TrainConfig(candidates=c, temperature=1.0), "inner") for c in (60, 20))
    queries, items = torch.randn(8, 3), torch.randn(60, 3)
    users, _, _, candidates, log_weight = next(iter(sampled.batches(data, np.random.default_rng(0))))
    assert len(candidates) < 60 and len(np.unique(candidates)) == len(candidates)
    sums = []
    for seed in range(400):
        users, _, _, candidates, log_weight = next(iter(sampled.batches(data, np.random.default_rng(seed))))
        order = np.argsort(users)
        scores = queries[users] @ items[candidates].T + torch.from_numpy(log_weight)
        sums.append(scores.exp().sum(dim=1)[torch.from_numpy(order)])
    torch.testing.assert_close(torch.stack(sums).mean(dim=0), (queries @ items.T).exp().sum(dim=1), rtol=0.05, atol=0.1)
    batch = next(iter(full.batches(data, np.random.default_rng(0))))
    assert batch[3] is None


def test_a_batch_with_every_item_is_the_whole_softmax_whatever_the_sample() -> None:
    data, queries, items = clusters(20, 15), torch.randn(20, 4), torch.randn(15, 4)
    values = []
    for candidates in (15, 3):
        loss = Softmax(TrainConfig(candidates=candidates), "cosine")
        (batch,) = loss.batches(data, np.random.default_rng(0))
        assert (batch[3] is None) == (candidates == 15)
        values.append(loss(queries, items, batch))
    torch.testing.assert_close(*values)


def test_bpr_by_hand() -> None:
    loss = Bpr(TrainConfig(l2=0.1, temperature=0.15), "inner")
    batch = (np.array([0, 1]), np.array([0, 2]), np.array([2, 0]))
    got = loss(torch.eye(2), SCORES.T.contiguous(), batch)
    want = -(torch.nn.functional.logsigmoid(torch.tensor(2.0)) + torch.nn.functional.logsigmoid(torch.tensor(1.5))) / 2
    torch.testing.assert_close(got, want)
    cosine = Bpr(TrainConfig(temperature=0.5), "cosine")(torch.eye(2), SCORES.T.contiguous(), batch)
    want = -(torch.nn.functional.logsigmoid(torch.tensor(4.0)) + torch.nn.functional.logsigmoid(torch.tensor(3.0))) / 2
    torch.testing.assert_close(cosine, want)
    encoder = LightGCN(2, 3, 4)
    squares = encoder.users.square().sum() + encoder.items[[0, 2, 2, 0]].square().sum()
    torch.testing.assert_close(loss.regularize(encoder, batch), 0.1 * squares / 2)


@pytest.mark.parametrize("name", ["temperature", "joint_temperature"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_is_positive_and_finite(name: str, value: float) -> None:
    with pytest.raises(ArgumentError, match=rf"train\.{name} must lie in 0.0001 … 10,000"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("candidates", [50, 12])
def test_distillation_is_the_divergence_from_the_teacher(candidates: int) -> None:
    data = clusters(20, 48)
    loss = Distillation(TrainConfig(joint_temperature=0.3, user_weight=-0.5, candidates=candidates), "cosine")
    batch = next(iter(loss.batches(data, np.random.default_rng(0))))
    users, rows, _, chosen, log_weight = (None if part is None else torch.from_numpy(part) for part in batch)
    assert users is not None and rows is not None and (chosen is None) == (candidates == 50)
    teacher = torch.randn(20, 3), torch.randn(48, 3)
    loss.restore(teacher)
    q, x = torch.randn(20, 5).requires_grad_(), torch.randn(48, 5).requires_grad_()

    def log_softmax(queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        scores = queries[users] @ (items if chosen is None else items[chosen]).T / 0.3
        return torch.log_softmax(scores if log_weight is None else scores + log_weight, dim=1)

    weights = torch.bincount(rows).sqrt()
    plain = -(log_softmax(*teacher).exp() * log_softmax(q, x)).sum(dim=1) @ weights / weights.sum()
    fused = loss(q, x, batch)
    torch.testing.assert_close(fused, plain)
    for got, want in zip(torch.autograd.grad(2 * fused, (q, x)), torch.autograd.grad(2 * plain, (q, x)), strict=True):
        torch.testing.assert_close(got, want)


def test_a_student_that_scores_as_its_teacher_has_nothing_to_learn() -> None:
    loss = Distillation(TrainConfig(), "cosine")
    (batch,) = loss.batches(TINY, np.random.default_rng(0))
    q, x = torch.eye(2).requires_grad_(), SCORES.T.clone().requires_grad_()
    with pytest.raises(ArgumentError, match="prepare must be called before"):
        loss(q, x, batch)
    loss.restore((q.detach().clone(), x.detach().clone()))
    for gradient in torch.autograd.grad(loss(q, x, batch), (q, x)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_distillation_takes_its_teacher_from_the_model() -> None:
    from hashlgn.config import ModelConfig
    from hashlgn.training.model import Model

    data = clusters(20, 15)
    graph, loss = Graph(data), Distillation(TrainConfig(), "cosine")
    model = Model(LightGCN(20, 15, 4), 15, ModelConfig(bits=8, similarity="cosine"))
    loss.prepare(model, graph)
    for got, want in zip(loss.state(), model.embeddings(graph), strict=True):
        torch.testing.assert_close(got, want)
        assert not got.requires_grad
