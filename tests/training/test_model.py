"""The model that joins the rooms: what is served scores as what was trained."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from conftest import clusters
from hashlgn.config import ModelConfig
from hashlgn.errors import ArgumentError
from hashlgn.scoring.items import CodedItems
from hashlgn.training.decoders import COMPRESSIONS, DECODERS
from hashlgn.training.encoders import LightGCN
from hashlgn.training.graph import Graph
from hashlgn.training.hashes import HASHES
from hashlgn.training.model import Model

pytestmark = pytest.mark.usefixtures("seeded")


CHOICES = [
    (h, d, similarity, scale, f)
    for h, d, similarity, scale, f in itertools.product(
        HASHES, DECODERS, ("cosine", "inner"), (True, False), COMPRESSIONS
    )
    if HASHES[h].decoder in (None, d)
]


@pytest.mark.parametrize(("hash_", "decoder", "similarity", "scale", "f"), CHOICES)
def test_what_is_served_scores_as_what_was_trained(
    hash_: str, decoder: str, similarity: str, scale: bool, f: str
) -> None:
    data = clusters(20, 30)
    graph = Graph(data)
    how = {"hash": hash_, "decoder": decoder, "similarity": similarity, "scale": scale, "compression": f}
    model = Model(LightGCN(20, 30, 8, 2), 30, ModelConfig(bits=16, **how))
    model.start_codes(graph)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()
    queries, items, _ = model(graph)
    served_queries, served, fold_in = model.export(graph)
    assert isinstance(served, CodedItems) and (served.scale is None) == (not scale)
    want = (queries @ items.T).detach().numpy()
    got = served_queries.numpy() @ served.decode().T
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3 * np.abs(want).max())
    folded = fold_in.queries(data.indptr, data.indices)
    assert folded.shape == served_queries.shape
    if similarity == "cosine":
        np.testing.assert_allclose(np.linalg.norm(folded, axis=1), 1, rtol=1e-4)


@pytest.mark.parametrize("similarity", ["cosine", "inner"])
def test_decoded_items_begin_with_the_lengths_of_their_embeddings(similarity: str) -> None:
    graph = Graph(clusters(20, 30))
    model = Model(LightGCN(20, 30, 8, 2), 30, ModelConfig(bits=16, similarity=similarity))
    model.start_codes(graph)
    lengths = model(graph).items.norm(dim=1)
    torch.testing.assert_close(lengths, model.embeddings(graph)[1].norm(dim=1))
    assert lengths.std() > 1e-3 or similarity == "cosine"


@pytest.mark.parametrize("similarity", ["cosine", "inner"])
@pytest.mark.parametrize("f", COMPRESSIONS)
def test_a_history_alone_is_served_as_a_training_user_without_an_embedding(similarity: str, f: str) -> None:
    data = clusters(20, 30)
    graph = Graph(data)
    config = ModelConfig(bits=16, similarity=similarity, compression=f)
    model = Model(LightGCN(20, 30, 8, 2), 30, config)
    model.start_codes(graph)
    with torch.no_grad():
        for parameter in model.compression.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        model.get_parameter("encoder.users")[7] = 0
    queries, _, fold_in = model.export(graph)
    folded = fold_in.queries(np.array([0, len(data.row(7))]), data.row(7))
    np.testing.assert_allclose(folded[0], queries[7], rtol=1e-4, atol=1e-5)


def test_lengths_without_a_scale_cost_a_penalty_under_the_cosine() -> None:
    graph = Graph(clusters(20, 60))
    penalties = {}
    for similarity, scale, weight in itertools.product(("cosine", "inner"), (True, False), (0.0, 3.0)):
        torch.manual_seed(0)
        config = ModelConfig(bits=8, similarity=similarity, scale=scale, norm_penalty=weight)
        model = Model(LightGCN(20, 60, 8, 2), 60, config)
        model.start_codes(graph)
        with torch.no_grad():
            _, decoded, penalty = model(graph)
        want = weight * (decoded.norm(dim=1) - 1).square().mean() if similarity == "cosine" and not scale else 0.0
        penalties[similarity, scale, weight] = penalty.item()
        assert penalty.item() == pytest.approx(float(want), abs=1e-7)
    assert penalties["cosine", False, 3.0] > 1e-4


def test_a_hash_without_a_gradient_is_passed_straight_by() -> None:
    """What the decoded vector's gradient asks for, the item's direction gets."""
    graph, asked = Graph(clusters(20, 30)), torch.randn(30, 8)
    model = Model(LightGCN(20, 30, 8, 2), 30, ModelConfig(bits=16, similarity="cosine", scale=False))
    model.start_codes(graph)
    start = model.get_parameter("encoder.items")
    (got,) = torch.autograd.grad((model(graph).items * asked).sum(), start)
    direction = torch.nn.functional.normalize(model.encoder(graph)[1])
    (want,) = torch.autograd.grad((direction * asked).sum(), start)
    assert want.abs().sum() > 0
    torch.testing.assert_close(got, want)


def test_gradients_reach_every_part() -> None:
    data = clusters(20, 30)
    graph = Graph(data)
    for hash_, decoder in (("residual", "codebook"), ("mlp3", "reweight"), ("tanh", "codebook")):
        config = ModelConfig(bits=16, hash=hash_, decoder=decoder, similarity="cosine", scale=False)
        model = Model(LightGCN(20, 30, 8, 2), 30, config)
        model.start_codes(graph)
        model.train()
        queries, items, penalty = model(graph)
        ((queries @ items.T) * torch.randn(20, 30)).sum().add(penalty).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_choices_that_do_not_fit_are_named() -> None:
    encoder = LightGCN(3, 4, 8)
    for change, message in (
        ({"hash": "residual", "decoder": "reweight"}, "hash 'residual' needs decoder 'codebook'"),
        ({"hash": "lsh"}, "hash must be one of"),
        ({"decoder": "none"}, "decoder must be one of"),
        ({"compression": "zip"}, "compression must be one of"),
        ({"bits": 10}, "bits must be a positive multiple of 8"),
        ({"similarity": "auto"}, "similarity must be"),
        ({"similarity": None}, "similarity must be"),
        ({"norm_penalty": -1.0}, "norm_penalty must lie in 0 … 1,000,000"),
        ({"norm_penalty": float("nan")}, "norm_penalty must lie in"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Model(encoder, 4, ModelConfig(**({"similarity": "cosine", "hash": "mlp3", "bits": 16} | change)))
