"""What a configuration says before data are seen: live tables of names, the paper's options, what is left open."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import clusters
from hashlgn.config import Config, ModelConfig, preset_changes
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, DataError
from hashlgn.training.encoders import ENCODERS, LightGCN
from hashlgn.training.graph import Graph
from hashlgn.training.hashes import HASHES, Tanh
from hashlgn.training.losses import LOSSES, Bpr
from hashlgn.training.model import Model
from hashlgn.training.resolve import check_data, resolve

pytestmark = pytest.mark.usefixtures("seeded")


def test_what_a_plugin_registers_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"model.encoder": "own-encoder", "model.hash": "own-hash", "model.decoder": "reweight"}
    changes |= {"train.loss": "own-loss", "train.joint_loss": "own-loss"}
    with pytest.raises(ArgumentError, match=r"model\.encoder must be one of"):
        resolve(Config().updated(changes))
    monkeypatch.setitem(ENCODERS, "own-encoder", LightGCN)
    monkeypatch.setitem(HASHES, "own-hash", Tanh)
    monkeypatch.setitem(LOSSES, "own-loss", Bpr)
    found = resolve(Config().updated(changes))
    assert (found.model.dim, found.model.similarity, found.train.joint_loss) == (128, "cosine", "own-loss")


def test_what_is_open_depends_on_the_kind_and_the_encoder() -> None:
    cases = [
        ({"model.encoder": "lightgcn", "model.kind": "float"}, ("lightgcn", 64, "cosine")),
        ({"model.encoder": "lightgcn"}, ("lightgcn", 128, "cosine")),
        ({"model.encoder": "spectral"}, ("spectral", None, "inner")),
        ({"model.encoder": "spectral", "model.dim": "auto"}, ("spectral", None, "inner")),
    ]
    for changes, want in cases:
        found = resolve(Config().updated(changes)).model
        assert (found.encoder, found.dim, found.similarity) == want
    for none in ({}, {"model.encoder": "auto"}):
        with pytest.raises(ArgumentError, match=r"model\.encoder must name an encoder here"):
            resolve(Config().updated(none))


def test_a_teacher_beside_an_encoder_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"student\.teacher must be left out where model\.encoder is named"):
        resolve(Config().updated({"model.encoder": "lightgcn", "student.teacher": "labels + ease"}))


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_layers_are_weighted_as_told(layers: int) -> None:
    data = clusters(12, 9)
    weights, graph = tuple(0.5 + k for k in range(layers + 1)), Graph(data)
    config = Config().updated({"model.layers": layers, "model.layer_weights": ",".join(map(str, weights))}).model
    encoder = LightGCN.create(graph, ModelConfig(dim=5, layers=layers, layer_weights=config.layer_weights))
    s = torch.from_numpy(graph.normalised.toarray())
    users, items = encoder.users, encoder.items
    want = [weights[0] * users, weights[0] * items]
    for weight in weights[1:]:
        users, items = s @ items, s.T @ users
        want = [want[0] + weight * users, want[1] + weight * items]
    for got, expected in zip(encoder(graph), want, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    if layers:  # somebody without an embedding of their own is folded in exactly
        with torch.no_grad():
            encoder.users[4] = 0
        history = data.row(4)
        folded = encoder.fold_in(graph)[history].sum(dim=0) / len(history) ** 0.5
        torch.testing.assert_close(folded, encoder(graph)[0][4], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -1.0, 1.0, 1.0), (0.0,) * 4, (1.0, float("nan"), 1.0, 1.0)])
def test_weights_of_layers_that_break_a_rule_are_named(weights: tuple[float, ...]) -> None:
    with pytest.raises(ArgumentError, match=r"model\.layer_weights must"):
        Config().updated({"model.layer_weights": weights})


@pytest.mark.parametrize("directions", [True, False])
def test_a_hash_sees_embeddings_as_they_are_where_told(directions: bool) -> None:
    graph = Graph(clusters(20, 30))
    config = ModelConfig(
        bits=16, hash="mlp3", decoder="reweight", similarity="inner", hash_directions=directions, code_start="random"
    )
    model = Model(LightGCN(20, 30, 8, 2), 30, config)
    before = [parameter.clone() for parameter in model.hash.parameters()]
    model.start_codes(graph)
    for parameter, drawn in zip(model.hash.parameters(), before, strict=True):
        assert torch.equal(parameter, drawn)  # a random start stays
    seen: list[torch.Tensor] = []
    model.hash.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    model(graph)
    items = model.embeddings(graph)[1]
    torch.testing.assert_close(seen[0], torch.nn.functional.normalize(items) if directions else items)
    served_queries, served, _ = model.export(graph)
    queries, decoded, _ = model(graph)
    want = (queries @ decoded.T).detach().numpy()
    np.testing.assert_allclose(served_queries.numpy() @ served.decode().T, want, rtol=2e-3, atol=1e-4)


def test_the_papers_preset_is_the_paper_word_for_word() -> None:
    config = resolve(Config().updated(preset_changes("paper")))
    assert not config.model.hash_directions and config.model.layer_weights is None  # α_k = 1 / (K + 1)
    assert (config.model.hash, config.model.decoder, config.model.layers) == ("mlp3", "reweight", 3)
    assert (config.train.joint_loss, config.train.pretrain_epochs) == ("bpr", 0)


def test_data_that_are_too_few_are_counted_in_words() -> None:
    with pytest.raises(DataError, match=r"2 users and 2 items \(got 1 user, 1 item, 1 interaction\)"):
        check_data(Interactions.from_pairs([1], [1]), Config())
