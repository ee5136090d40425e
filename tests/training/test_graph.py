"""Graph, encoders and sampling against dense arithmetic and counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hashlgn.training.graph
from conftest import clusters
from hashlgn.config import ModelConfig
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError
from hashlgn.training.encoders import LightGCN, Spectral
from hashlgn.training.graph import Graph
from hashlgn.training.sampling import interaction_batches, sample_negatives, user_batches


def dense(data: Interactions) -> np.ndarray:
    """``S = D_u^-1/2 R D_i^-1/2`` as a dense float64 matrix, degrees of 0 counted as 1."""
    r = data.matrix.toarray().astype(np.float64)
    du, di = np.maximum(r.sum(axis=1), 1), np.maximum(r.sum(axis=0), 1)
    return r / np.sqrt(du)[:, None] / np.sqrt(di)


def with_empty_rows() -> Interactions:
    """Data in which a user and an item have no interactions."""
    data = clusters(12, 9)
    return data.select((data.rows != 3) & (data.indices != 2))


@pytest.mark.parametrize("data", [clusters(12, 9), with_empty_rows()], ids=["full", "empty rows"])
def test_propagation_and_its_gradient(data: Interactions) -> None:
    s = torch.from_numpy(dense(data))
    s = s.float()
    users, items = torch.randn(12, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    new_users, new_items = Graph(data).propagate(users, items)
    torch.testing.assert_close(new_users, s @ items, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(new_items, s.T @ users, rtol=1e-5, atol=1e-6)
    weights = torch.randn(12, 4), torch.randn(9, 4)
    got = torch.autograd.grad((new_users * weights[0]).sum() + (new_items * weights[1]).sum(), (users, items))
    torch.testing.assert_close(got[0], s @ weights[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got[1], s.T @ weights[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_folding_in_a_history_is_propagation_to_a_user_without_an_embedding(layers: int) -> None:
    """A training user whose own ``E^(0)`` is 0 gets from propagation what their history alone gives."""
    data = with_empty_rows()
    encoder, graph = LightGCN(12, 9, dim=5, layers=layers), Graph(data)
    with torch.no_grad():
        encoder.users[4] = 0
    history = data.row(4)
    vectors, users = encoder.fold_in(graph).detach().numpy(), encoder(graph)[0].detach().numpy()
    np.testing.assert_allclose(vectors[history].sum(axis=0) / len(history) ** 0.5, users[4], rtol=1e-4, atol=1e-6)


def test_without_layers_folding_in_takes_one_step() -> None:
    """Matrix factorisation sends nothing along edges: by the sum alone everybody new would be 0."""
    data = clusters(12, 9)
    encoder, graph = LightGCN(12, 9, dim=5, layers=0), Graph(data)
    want = encoder.items.detach().numpy() / np.sqrt(graph.item_degree)[:, None]
    np.testing.assert_allclose(encoder.fold_in(graph).detach().numpy(), want, rtol=1e-5)


def test_spectral_is_the_filtered_item_item_similarity() -> None:
    data = clusters(30, 20)
    s = dense(data)
    _, values, vt = np.linalg.svd(s)
    for power in (0.0, 1.0):
        users, items = (x.numpy() for x in Spectral.create(Graph(data), ModelConfig(dim=6, power=power))(Graph(data)))
        di = np.bincount(data.indices, minlength=20)
        keep = np.diag((values[:6] / values[0]) ** power)
        want = s @ vt[:6].T @ keep @ vt[:6] @ np.diag(np.sqrt(di))
        np.testing.assert_allclose(users @ items.T, want, rtol=1e-3, atol=1e-4)


def test_spectral_folds_a_training_user_in_exactly() -> None:
    data = clusters(30, 20)
    graph = Graph(data)
    encoder = Spectral.create(graph, ModelConfig(dim=6))
    vectors, users = encoder.fold_in(graph).numpy(), encoder(graph)[0].numpy()
    for user in range(5):
        history = data.row(user)
        np.testing.assert_allclose(
            vectors[history].sum(axis=0) / len(history) ** 0.5, users[user], rtol=1e-4, atol=1e-6
        )


def test_singular_vectors_are_numpys_up_to_sign_and_the_same_every_time() -> None:
    data = clusters(30, 20)
    values, vectors = Graph(data).singular_vectors(5)
    _, want, vt = np.linalg.svd(dense(data))
    np.testing.assert_allclose(values, want[:5], rtol=1e-4)
    np.testing.assert_allclose(np.abs(vectors.T @ vectors), np.eye(5), atol=1e-4)
    np.testing.assert_allclose(vectors @ vectors.T, vt[:5].T @ vt[:5], atol=1e-3)
    np.testing.assert_array_equal(Graph(data).singular_vectors(5)[1], vectors)
    with pytest.raises(ArgumentError, match=r"dim must be smaller than .*20"):
        Graph(data).singular_vectors(20)


@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
def test_many_singular_vectors_span_about_the_leading_space(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By subspace iteration: what it misses lies among values close to the smallest kept."""
    monkeypatch.setattr(hashlgn.training.graph, "_LANCZOS", 0)
    data = clusters(*shape, groups=6, share=0.2)
    values, vectors = Graph(data).singular_vectors(20)
    want = np.linalg.svd(dense(data), compute_uv=False)[:20]
    np.testing.assert_allclose(values[:6], want[:6], rtol=1e-4)
    np.testing.assert_allclose(values, want, rtol=0.04)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(20), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(dense(data) @ vectors, axis=0), values, rtol=0.01)
    np.testing.assert_array_equal(Graph(data).singular_vectors(20)[1], vectors)


@pytest.mark.parametrize("lanczos", [0, 256])
@pytest.mark.parametrize("shape", [(20, 12), (12, 20)])
def test_singular_vectors_of_few_kinds_of_users_are_the_same_every_time(
    shape: tuple[int, int], lanczos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three kinds of users: three singular values are 1 and all others 0, whose vectors are free but for a seed."""
    monkeypatch.setattr(hashlgn.training.graph, "_LANCZOS", lanczos)
    users, items = np.nonzero(np.arange(shape[0])[:, None] % 3 == np.arange(shape[1]) % 3)
    data = Interactions.from_pairs(users, items)
    values, vectors = Graph(data).singular_vectors(8)
    np.testing.assert_allclose(values, [1, 1, 1, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-5)
    for _ in range(3):
        np.testing.assert_array_equal(Graph(data).singular_vectors(8)[1], vectors)
    with pytest.raises(ArgumentError, match=r"dim must be a positive integer \(got -3\)"):
        Graph(data).singular_vectors(-3)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_negatives_are_never_positives(seed: int, share: float) -> None:
    data = clusters(20, 16, groups=2, share=share, seed=seed % 100)
    users = np.random.default_rng(seed).integers(0, 20, 500)
    negatives = sample_negatives(data, users, np.random.default_rng(seed))
    assert not data.matrix[users, negatives].any()
    np.testing.assert_array_equal(negatives, sample_negatives(data, users, np.random.default_rng(seed)))


def test_negatives_are_uniform_and_a_user_with_everything_ends() -> None:
    data = Interactions.from_pairs([0, 0, 1, 1, 1, 1, 1], [0, 1, 0, 1, 2, 3, 4])
    drawn = sample_negatives(data, np.zeros(30_000, np.int64), np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=5)
    assert (counts[:2] == 0).all() and (np.abs(counts[2:] - 10_000) < 400).all()
    full = sample_negatives(data, np.ones(10, np.int64), np.random.default_rng(0))
    assert ((full >= 0) & (full < 5)).all()


def test_users_who_have_nearly_everything_get_what_is_left() -> None:
    n = 3000  # drawing until something fits would take millions of draws
    data = Interactions.from_pairs(np.r_[np.zeros(n - 1, int), 1], np.r_[0:1234, 1235:n, 1234])
    users = np.r_[np.zeros(n - 1, int), 1, 1]
    drawn = sample_negatives(data, users, np.random.default_rng(0))
    left = data.row(1)[0]
    assert (drawn[:-2] == left).all() and (drawn[-2:] != left).all()


def test_a_user_without_interactions_may_get_any_item() -> None:
    data = with_empty_rows()
    drawn = sample_negatives(data, np.full(9_000, 3), np.random.default_rng(0))
    assert (np.abs(np.bincount(drawn, minlength=9) - 1000) < 150).all()


def test_spectral_gives_nothing_to_those_without_interactions() -> None:
    graph = Graph(with_empty_rows())
    encoder = Spectral.create(graph, ModelConfig(dim=3))
    users, items = encoder(graph)
    assert (users[3] == 0).all() and (items[2] == 0).all()
    assert torch.isfinite(encoder.fold_in(graph)).all()


def test_an_epoch_has_every_interaction_once() -> None:
    data = clusters(23, 17)
    rng = np.random.default_rng(3)
    pairs = np.concatenate([np.stack(batch[:2], axis=1) for batch in interaction_batches(data, 7, rng)])
    assert sorted(map(tuple, pairs.tolist())) == sorted(zip(data.rows.tolist(), data.indices.tolist(), strict=True))
    batches = list(user_batches(data, 5, rng))
    pairs = np.concatenate([np.stack((users[rows], items), axis=1) for users, rows, items in batches])
    assert sorted(map(tuple, pairs.tolist())) == sorted(zip(data.rows.tolist(), data.indices.tolist(), strict=True))
    assert sorted(np.concatenate([users for users, _, _ in batches]).tolist()) == list(range(23))


def test_epochs_differ_in_order_and_repeat_with_the_generator() -> None:
    data = clusters(23, 17)

    def epoch(rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([np.stack(batch, axis=1) for batch in interaction_batches(data, 7, rng)])

    rng = np.random.default_rng(3)
    first, second = epoch(rng), epoch(rng)
    assert (first[:, 0] != second[:, 0]).any() and (np.diff(first[:, 0]) < 0).any()
    np.testing.assert_array_equal(epoch(np.random.default_rng(3)), first)
