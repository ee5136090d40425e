"""Hash functions, decoders, losses and the model that joins them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from conftest import clusters
from hashlgn.codes import pack_signs
from hashlgn.config import ModelConfig, TrainConfig
from hashlgn.data import Interactions
from hashlgn.decoders import COMPRESSIONS, DECODERS, Codebook, compression, compression_layers
from hashlgn.encoders import LightGCN
from hashlgn.errors import ArgumentError
from hashlgn.graph import Graph
from hashlgn.hashing import HASHES, SIGNS, Residual, Start, iterative_quantisation, sign
from hashlgn.losses import LOSSES, Bpr, Softmax, _cross_entropy
from hashlgn.model import Model
from hashlgn.scoring import CodedItems, FoldIn


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def unit(n: int, dim: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, dim))


# --- hash functions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "gradient"), list(itertools.product(HASHES, SIGNS)))
def test_codes_are_signs_and_come_from_the_embedding(name: str, gradient: str) -> None:
    items = unit(50, 12)
    made = HASHES[name](50, 12, 16, gradient)
    started = made.start(items)
    assert (started.codewords is None) != (started.projection is None)
    made.eval()
    codes = made(items)
    assert codes.shape == (50, 16) and set(codes.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(made(items), codes)
    # Near items have near codes: what the start is for.
    if name == "residual":  # whose words have no order: how near their vectors come is tested below
        return
    alike = (codes @ codes.T).fill_diagonal_(-99).argmax(dim=1)
    cosine = (items @ items.T).fill_diagonal_(0)
    assert cosine[torch.arange(50), alike].mean() > 0.2


@pytest.mark.parametrize("gradient", SIGNS)
@pytest.mark.parametrize("name", [name for name in HASHES if name != "residual"])
def test_training_reaches_what_comes_before_the_sign(name: str, gradient: str) -> None:
    items = unit(50, 12)
    made = HASHES[name](50, 12, 16, gradient)
    made.start(items)
    made.train()
    made.progress = 0.3
    (made(items) * torch.randn(50, 16)).sum().backward()
    gradients = [p.grad for p in made.parameters()]
    assert all(g is not None for g in gradients) and any(g.abs().sum() > 0 for g in gradients)


def test_zero_is_positive_and_gradients_are_as_their_names_say() -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    assert sign(x).tolist() == [-1, -1, 1, 1, 1]
    hard = SIGNS["straight_through"](x, 0.0)
    assert hard.tolist() == [-1, -1, 1, 1, 1]
    assert torch.autograd.grad(hard.sum(), x)[0].tolist() == [0, 1, 1, 1, 0]
    soft = SIGNS["tanh"](x, 0.0)
    torch.testing.assert_close(soft, torch.tanh(x))
    torch.testing.assert_close(SIGNS["tanh"](x, 0.5), torch.tanh(10**0.5 * x))
    assert SIGNS["tanh"](x, 1.0).tolist() == [-1, -1, 1, 1, 1]


@pytest.mark.parametrize(("bits", "dim"), [(8, 12), (16, 12), (12, 12)])
def test_iterative_quantisation_is_orthonormal_and_better_than_chance(bits: int, dim: int) -> None:
    items = unit(200, dim)
    p = iterative_quantisation(items, bits)
    small = p @ p.T if bits <= dim else p.T @ p
    torch.testing.assert_close(small, torch.eye(min(bits, dim)), rtol=1e-4, atol=1e-4)

    def loss(q: torch.Tensor) -> float:
        x = items @ q.T * max(bits, dim) ** 0.5
        return float((x - sign(x)).square().mean())

    rotation = torch.linalg.qr(torch.randn(max(bits, dim), max(bits, dim))).Q
    assert loss(p) < loss(rotation[:bits, :dim]) - 0.01


def test_residual_words_come_closer_with_bits_and_are_found_again() -> None:
    items = unit(300, 16)
    errors = []
    for bits in (16, 32, 64):
        made = Residual(300, 16, bits)
        codewords = made.start(items).codewords
        assert codewords is not None and codewords.shape == (bits // 4, 16, 16)
        decoder = Codebook(bits, 16)
        decoder.start(Start(codewords=codewords))
        errors.append((decoder(made(items)) - items).square().sum(dim=1).mean().item())
        again = made.assign(items, codewords)
        assert (decoder(again) - items).square().sum(dim=1).mean().item() <= errors[-1] + 1e-4
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("name", HASHES)
@pytest.mark.parametrize("items", [unit(2, 4), unit(7, 4), unit(1, 4).repeat(5, 1), torch.zeros(3, 4)])
def test_tiny_and_degenerate_catalogues(name: str, items: torch.Tensor) -> None:
    made = HASHES[name](len(items), 4, 8, "straight_through")
    made.start(items)
    assert torch.isfinite(made(items)).all()


# --- decoders and compression -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_exports_the_function_it_is(name: str) -> None:
    decoder = DECODERS[name](16, 6)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    codes = sign(torch.randn(30, 16))
    packed = pack_signs(codes.numpy())
    exported = decoder.export()
    np.testing.assert_allclose(decoder(codes).detach().numpy(), exported.decode(packed), rtol=1e-5, atol=1e-6)
    soft = codes.clone().requires_grad_()  # the corner of the differentiable form
    np.testing.assert_allclose(decoder(soft).detach().numpy(), exported.decode(packed), rtol=1e-5, atol=1e-5)
    decoder(soft).sum().backward()
    assert soft.grad is not None and soft.grad.abs().sum() > 0


def test_weights_of_the_paper_are_never_negative() -> None:
    decoder = DECODERS["reweight"](8, 8)
    torch.testing.assert_close(decoder(sign(torch.randn(4, 8))).abs(), torch.ones(4, 8), rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        decoder.raw_alpha.fill_(-50)
        decoder.raw_beta.uniform_(-5, 5)
    exported = decoder.export()
    assert (exported.alpha >= 0).all() and (exported.beta >= 0).all()


def test_a_codebook_can_be_the_paper() -> None:
    """Every bit acting alone is a case of the codebook."""
    paper = DECODERS["reweight"](8, 8)
    codes = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8)))
    book = Codebook(8, 8)
    with torch.no_grad():
        paper.raw_alpha.uniform_(-1, 1)
        book.codewords.zero_()
        for word, value, bit in itertools.product(range(2), range(16), range(4)):
            j = 4 * word + bit
            book.codewords[word, value, j] = paper.alpha[j] if value >> bit & 1 else -paper.beta[j]
    torch.testing.assert_close(book(codes), paper(codes))


@pytest.mark.parametrize("kind", COMPRESSIONS)
@pytest.mark.parametrize("width", [6, 8])
def test_compression_is_what_serving_applies(kind: str, width: int) -> None:
    f = compression(kind, 6, width)
    q = torch.randn(5, 6)
    if width == 6:
        torch.testing.assert_close(f(q), q)
    with torch.no_grad():
        for parameter in f.parameters():
            parameter.add_(torch.randn_like(parameter))
    served = FoldIn(np.zeros((1, 6), np.float32), compression_layers(f), normalise=False)
    np.testing.assert_allclose(served.compress(q.numpy()), f(q).detach().numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ArgumentError, match="compression must be one of"):
        compression("deep", 6, 6)


# --- losses -----------------------------------------------------------------------------------------------------

SCORES = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]])  # of two users over three items
TINY = Interactions.from_pairs([0, 0, 1], [0, 1, 2])


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_falls_along_its_gradient(name: str) -> None:
    data = clusters(20, 15)
    queries, items = torch.randn(20, 4, requires_grad=True), torch.randn(15, 4, requires_grad=True)
    loss = LOSSES[name](TrainConfig(), "inner")
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
    scores = q @ x.T
    plain = (weights[rows] * (torch.logsumexp(scores + log_weight, 1)[rows] - scores[rows, columns])).sum()
    plain = plain / weights[rows].sum()
    fused = _cross_entropy(q, x, rows, columns, weights, log_weight)
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


def test_bpr_by_hand() -> None:
    loss = Bpr(TrainConfig(l2=0.1, temperature=0.15), "inner")
    batch = (np.array([0, 1]), np.array([0, 2]), np.array([2, 0]))
    got = loss(torch.eye(2), SCORES.T.contiguous(), batch)
    want = -(torch.nn.functional.logsigmoid(torch.tensor(2.0)) + torch.nn.functional.logsigmoid(torch.tensor(1.5))) / 2
    torch.testing.assert_close(got, want)
    encoder = LightGCN(2, 3, 4)
    squares = encoder.users.square().sum() + encoder.items[[0, 2, 2, 0]].square().sum()
    torch.testing.assert_close(loss.regularise(encoder, batch), 0.1 * squares / 2)
    with pytest.raises(ArgumentError, match=r"train\.temperature must be positive"):
        Softmax(TrainConfig(temperature=0.0), "cosine")


# --- model ------------------------------------------------------------------------------------------------------

CHOICES = [
    (h, d, similarity, scale, f)
    for h, d, similarity, scale, f in itertools.product(
        HASHES, DECODERS, ("cosine", "inner"), (True, False), COMPRESSIONS
    )
    if h != "residual" or d == "codebook"
]


@pytest.mark.parametrize(("hash_", "decoder", "similarity", "scale", "f"), CHOICES)
def test_what_is_served_scores_as_what_was_trained(
    hash_: str, decoder: str, similarity: str, scale: bool, f: str
) -> None:
    data = clusters(20, 30)
    graph = Graph(data)
    how = {"hash": hash_, "decoder": decoder, "similarity": similarity, "scale": scale, "compression": f}
    model = Model(LightGCN.create(graph, 8, 2), 30, ModelConfig(bits=16, **how))
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


def test_gradients_reach_every_part() -> None:
    data = clusters(20, 30)
    graph = Graph(data)
    for hash_, decoder in (("residual", "codebook"), ("mlp3", "reweight"), ("linear", "codebook")):
        config = ModelConfig(bits=16, hash=hash_, decoder=decoder, similarity="cosine", scale=False)
        model = Model(LightGCN.create(graph, 8, 2), 30, config)
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
        ({"sign": "soft"}, "sign must be one of"),
        ({"compression": "zip"}, "compression must be one of"),
        ({"bits": 10}, "bits must be a positive multiple of 8"),
        ({"similarity": "auto"}, "similarity must be"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Model(encoder, 4, ModelConfig(**({"similarity": "cosine", "hash": "mlp3", "bits": 16} | change)))
