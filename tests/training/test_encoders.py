"""Encoders: a contract over all, and the propagation rule of each against dense arithmetic in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import clusters
from hashlgn.config import ModelConfig
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError
from hashlgn.training.encoders import DGCF, ENCODERS, GCN, NGCF, FreeEmbeddings, LightGCN, Sage
from hashlgn.training.graph import Graph

pytestmark = pytest.mark.usefixtures("seeded")

Dense = npt.NDArray[np.float64]
FREE = [name for name, encoder in ENCODERS.items() if encoder.trainable]


def with_empty_rows() -> Interactions:
    """Data in which a user and an item have no interactions."""
    data = clusters(12, 9)
    return data.select((data.rows != 3) & (data.indices != 2))


def adjacency(data: Interactions) -> Dense:
    """A, users first."""
    r = data.matrix.toarray().astype(np.float64)
    return np.block([[np.zeros((len(r), len(r))), r], [r.T, np.zeros((r.shape[1], r.shape[1]))]])


def divided(a: Dense) -> Dense:
    """``D^-1/2 A D^-1/2``, degrees of 0 counted as 1."""
    d = np.maximum(a.sum(axis=1), 1)
    return a / np.sqrt(np.outer(d, d))


def array(tensor: torch.Tensor) -> Dense:
    return tensor.detach().numpy().astype(np.float64)


def start(encoder: FreeEmbeddings) -> Dense:
    return np.concatenate((array(encoder.users), array(encoder.items)))


def check(encoder: FreeEmbeddings, data: Interactions, want: Dense) -> None:
    users, items = encoder.eval()(Graph(data))
    assert users.shape == (data.n_users, encoder.dim) and items.shape == (data.n_items, encoder.dim)
    np.testing.assert_allclose(np.concatenate((array(users), array(items))), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_lightgcn_is_the_mean_over_the_powers_of_the_adjacency(layers: int) -> None:
    data = with_empty_rows()
    encoder = LightGCN(12, 9, dim=5, layers=layers)
    a = divided(adjacency(data))
    powers = [np.linalg.matrix_power(a, k) @ start(encoder) for k in range(layers + 1)]
    check(encoder, data, sum(powers, np.zeros_like(powers[0])) / (layers + 1))


@pytest.mark.parametrize(("dim", "layers"), [(5, 0), (8, 1), (13, 3)])
def test_gcn_is_kipf_and_wellings_rule_over_concatenated_layers(dim: int, layers: int) -> None:
    data = with_empty_rows()
    encoder = GCN(12, 9, dim, layers)
    for convolution in encoder.convolutions:
        torch.nn.init.normal_(convolution.bias)
    with_loops = divided(adjacency(data) + np.eye(21))
    parts = [start(encoder)]
    for convolution in encoder.convolutions:
        parts.append(np.maximum(with_loops @ parts[-1] @ array(convolution.weight).T + array(convolution.bias), 0))
    check(encoder, data, np.concatenate(parts, axis=1))


@pytest.mark.parametrize(("dim", "layers"), [(5, 0), (8, 1), (13, 3)])
def test_ngcf_is_its_matrix_form(dim: int, layers: int) -> None:
    """``E' = LeakyReLU((L + I) E W_1 + L E ⊙ E W_2)``."""
    data = with_empty_rows()
    encoder = NGCF(12, 9, dim, layers)
    a = divided(adjacency(data))
    parts = [start(encoder)]
    for first, second in zip(encoder.first, encoder.second, strict=True):
        e = parts[-1]
        x = (a + np.eye(21)) @ e @ array(first.weight).T + (a @ e * e) @ array(second.weight).T
        parts.append(np.where(x > 0, x, 0.2 * x))
    check(encoder, data, np.concatenate(parts, axis=1))


def routed(a: Dense, e: Dense, intents: int, turns: int) -> Dense:
    """One layer of DGCF, an edge at a time: row x, column y is the edge from y into x."""
    ends = np.argwhere(a)
    parts = np.split(e, intents, axis=1)
    scores = {(x, y): np.ones(intents) for x, y in ends}
    users = int(np.flatnonzero(a[0])[0])
    for turn in range(turns):
        shares = {edge: np.exp(s) / np.exp(s).sum() for edge, s in scores.items()}
        new = [np.zeros_like(part) for part in parts]
        for k in range(intents):
            # The edges into users have scores of their own, and so have those into items.
            weight = np.zeros_like(a)
            for (x, y), share in shares.items():
                weight[x, y] = share[k]
            for x, y in shares:
                same_side = (np.arange(len(a)) < len(a)) & ((np.arange(len(a)) < users) == (x < users))
                own, other = weight[x].sum(), weight[same_side, y].sum()
                new[k][x] += weight[x, y] / np.sqrt(own * other) * parts[k][y]
        if turn + 1 < turns:
            for (x, y), score in scores.items():
                for k in range(intents):
                    u, i = new[k][x], parts[k][y]
                    score[k] += u @ np.tanh(i / np.linalg.norm(i)) / np.linalg.norm(u)
    return np.concatenate(new, axis=1)


@pytest.mark.parametrize(("layers", "intents", "turns"), [(0, 2, 2), (1, 2, 1), (1, 4, 2), (2, 2, 3)])
def test_dgcf_routes_every_edge(layers: int, intents: int, turns: int) -> None:
    data = with_empty_rows()
    encoder = DGCF(12, 9, 8, layers, intents, turns)
    a, layer = adjacency(data), start(encoder)
    total = layer
    for _ in range(layers):
        layer = routed(a, layer, intents, turns)
        total = total + layer
    check(encoder, data, total / (layers + 1))


def test_dgcf_with_one_turn_is_lightgcn() -> None:
    graph, routing, plain = Graph(clusters(12, 9)), DGCF(12, 9, 8, 3, turns=1), LightGCN(12, 9, 8, 3)
    plain.load_state_dict(routing.state_dict())
    for got, want in zip(routing(graph), plain(graph), strict=True):
        torch.testing.assert_close(got, want)


def test_sage_is_served_with_the_means_of_all_neighbours() -> None:
    data = with_empty_rows()
    encoder = Sage(12, 9, 6)
    a = adjacency(data)
    mean, e = a / np.maximum(a.sum(axis=1, keepdims=True), 1), start(encoder)

    def layer(weights: torch.nn.Module, own: Dense, near: Dense) -> Dense:
        x = np.concatenate((own, near), axis=1) @ array(weights.weight).T
        return np.where(x > 0, x, 0.2 * x)

    hidden = layer(encoder.near, e, mean @ e)
    users = layer(encoder.far, hidden, mean @ hidden)[:12]
    items = layer(encoder.item, e, mean @ e)[12:]
    check(encoder, data, np.concatenate((users, items)))


def test_sage_is_trained_on_drawn_neighbours_that_are_right_on_average() -> None:
    graph, encoder = Graph(clusters(12, 9, share=0.9)), Sage(12, 9, 6)
    served, draws = encoder.eval()(graph), []
    encoder.train()
    for _ in range(400):
        draws.append(encoder(graph)[1].detach())
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(torch.stack(draws).mean(dim=0), served[1].detach(), rtol=0.05, atol=0.01)
    torch.manual_seed(5)
    first = encoder(graph)
    torch.manual_seed(5)
    for again, before in zip(encoder(graph), first, strict=True):
        assert torch.equal(again, before)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 12), st.floats(0.05, 1.0))
def test_means_over_drawn_neighbours(seed: int, fan_out: int, share: float) -> None:
    """Of vectors that are 1 at their own place, a mean has shares of ``1 / fan_out`` at neighbours alone."""
    data = clusters(15, 12, groups=3, share=share, seed=seed)
    data = data.select((data.rows != 3) & (data.rows != 14) & (data.indices != 0))
    graph = Graph(data)
    torch.manual_seed(seed)
    shares = graph.to_users.mean(torch.eye(12), fan_out).numpy()
    r = data.matrix.toarray()
    assert (shares[r == 0] == 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), r.any(axis=1), atol=1e-5)
    np.testing.assert_allclose(shares * fan_out, np.round(shares * fan_out), atol=1e-4)
    np.testing.assert_allclose(graph.to_users.mean(torch.eye(12)), r / np.maximum(r.sum(axis=1), 1)[:, None], atol=1e-6)


def test_weights_of_edges_take_the_place_of_the_graphs_own() -> None:
    data = with_empty_rows()
    graph, r = Graph(data), data.matrix.tocoo()
    into_users, into_items = torch.rand(len(data)), torch.rand(len(data))
    down, up = np.zeros((12, 9)), np.zeros((9, 12))
    down[data.rows, data.indices] = into_users
    turned = data.matrix.T.tocsr()
    up[np.repeat(np.arange(9), np.diff(turned.indptr)), turned.indices] = into_items
    users, items = torch.randn(12, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    new_users, new_items = graph.propagate(users, items, (into_users, into_items))
    np.testing.assert_allclose(array(new_users), down @ array(items), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(array(new_items), up @ array(users), rtol=1e-4, atol=1e-6)
    got = torch.autograd.grad(new_users.sum() + 2 * new_items.sum(), (users, items))
    np.testing.assert_allclose(array(got[0]), 2 * up.T @ np.ones((9, 4)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(array(got[1]), down.T @ np.ones((12, 4)), rtol=1e-4, atol=1e-6)
    inner = graph.to_items.inner(items, users)
    np.testing.assert_allclose(array(inner), (array(items) @ array(users).T)[up > 0], rtol=1e-4, atol=1e-6)
    assert r.nnz == len(data)


def made(name: str, data: Interactions, dim: int = 8) -> torch.nn.Module:
    torch.manual_seed(0)
    return ENCODERS[name].create(Graph(data), ModelConfig(dim=dim), seed=0)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_fixed_by_its_seed_and_served_alike_every_time(name: str) -> None:
    data = with_empty_rows()
    graph = Graph(data)
    one, two = (made(name, data, 4).eval() for _ in range(2))
    for a, b, c in zip(one(graph), two(graph), one(graph), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c) and torch.isfinite(a).all()
    assert one.dim == one(graph)[0].shape[1] == one(graph)[1].shape[1] == 4


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", FREE)
def test_a_gradient_reaches_every_parameter(name: str, training: bool) -> None:
    data = clusters(12, 9)
    encoder = made(name, data).train(training)
    users, items = encoder(Graph(data))
    ((users @ items.T) * torch.randn(12, 9)).sum().backward()
    for what, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, what


@pytest.mark.parametrize("name", [name for name in FREE if name not in ("sage", "dgcf")])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """DGCF's scores are held by rule, and sage's neighbours by none: those two are left out."""
    data = clusters(8, 6)
    encoder, graph = made(name, data).double(), Graph(data)
    graph.to_users, graph.to_items = (
        rows._replace(values=rows.values.double()) for rows in (graph.to_users, graph.to_items)
    )

    def loss() -> torch.Tensor:
        users, items = encoder(graph)
        return (users @ items.T).square().sum()

    for parameter in encoder.parameters():
        (gradient,) = torch.autograd.grad(loss(), parameter)
        place = int(gradient.abs().argmax())
        flat, step = parameter.data.view(-1), 1e-6
        flat[place] += step
        above = loss().item()
        flat[place] -= 2 * step
        slope = (above - loss().item()) / (2 * step)
        flat[place] += step
        assert slope == pytest.approx(gradient.view(-1)[place].item(), rel=1e-4)


@pytest.mark.parametrize("name", FREE)
def test_the_svd_starts_users_next_to_their_items(name: str) -> None:
    data = clusters(40, 24, groups=4, share=0.8)
    encoder = made(name, data, 16)
    assert isinstance(encoder, FreeEmbeddings)
    encoder.start_from_svd(Graph(data))
    scores = array(encoder.users @ encoder.items.T)
    own = np.arange(40)[:, None] % 4 == np.arange(24) % 4
    assert scores[own].mean() > scores[~own].mean() + 0.2
    np.testing.assert_allclose(encoder.items.detach().norm(dim=1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in FREE if name != "lightgcn"])
def test_folding_in_is_the_closest_linear_map_of_what_items_send(name: str) -> None:
    """No other map of the sums over histories comes closer to the embeddings that the users have, and this one comes
    close enough to tell groups apart.
    """
    data = clusters(60, 40, groups=4, share=0.6)
    graph, encoder = Graph(data), made(name, data).eval()
    encoder.start_from_svd(graph)
    users, items = (array(side) for side in encoder(graph))
    sums = graph.normalised @ items
    folded = data.matrix @ array(encoder.fold_in(graph)) / np.sqrt(graph.user_degree)[:, None]
    best = sums @ np.linalg.lstsq(sums, users, rcond=None)[0]
    errors = [np.square(users - found).sum() for found in (folded, best)]
    assert errors[1] <= errors[0] * (1 + 1e-6) and errors[0] < errors[1] + 0.005 * np.square(users).sum()

    def unit(rows: Dense) -> Dense:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    alike = unit(folded) @ unit(users).T
    own = np.arange(60)[:, None] % 4 == np.arange(60) % 4
    assert np.diag(alike).mean() > 0.7 and alike[own].mean() > alike[~own].mean() + 0.05


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LightGCN(3, 3, 0, 3), "dim must be a positive integer"),
        (lambda: LightGCN(3, 3, 4, -1), "layers must be an integer of at least 0"),
        (lambda: LightGCN(3, 3, 4, 1.5), "layers must be"),
        (lambda: GCN(3, 3, 3, 3), r"dim must be more than layers, 3, .* \(got 3\)"),
        (lambda: NGCF(3, 3, 8, -1), "layers must be"),
        (lambda: DGCF(3, 3, 6), r"dim must be a multiple of the number of intents, 4 \(got 6\)"),
        (lambda: DGCF(3, 3, 8, turns=0), "turns must be a positive integer"),
        (lambda: Sage(3, 3, -2), "dim must be a positive integer"),
    ],
)
def test_bad_sizes(make: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()  # type: ignore[operator]
