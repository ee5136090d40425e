"""Hash functions: a contract over all, and each against what it says it is."""

from __future__ import annotations

import itertools

import pytest
import torch

from conftest import unit
from hashlgn.scoring.codes import pack_signs, unpack_subcodes
from hashlgn.training.decoders import Codebook
from hashlgn.training.hashes import HASHES, Residual, Start, residual, sign, straight_through
from hashlgn.training.hashes.residual import refine, whitening
from hashlgn.training.hashes.signs import iterative_quantization

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("name", HASHES)
def test_codes_are_signs_and_come_from_the_embedding(name: str) -> None:
    items = unit(50, 12)
    made = HASHES[name](50, 12, 16)
    started = made.start(items)
    assert (started.codewords is None) != (started.projection is None)
    made.eval()
    codes = made(items)
    assert codes.shape == (50, 16) and set(codes.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(made(items), codes)
    # Near items have near codes: what the start is for.
    if not made.has_sign:  # whose words have no order: how near their vectors come is tested below
        return
    alike = (codes @ codes.T).fill_diagonal_(-99).argmax(dim=1)
    cosine = (items @ items.T).fill_diagonal_(0)
    assert cosine[torch.arange(50), alike].mean() > 0.2


@pytest.mark.parametrize("name", [name for name in HASHES if HASHES[name].has_sign])
def test_training_reaches_what_comes_before_the_sign(name: str) -> None:
    items = unit(50, 12)
    made = HASHES[name](50, 12, 16)
    made.start(items)
    made.train()
    (made(items) * torch.randn(50, 16)).sum().backward()
    gradients = [p.grad for p in made.parameters()]
    assert all(g is not None for g in gradients) and any(g.abs().sum() > 0 for g in gradients)


def test_zero_is_positive_and_the_gradient_is_clipped() -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    assert sign(x).tolist() == [-1, -1, 1, 1, 1]
    hard = straight_through(x)
    assert hard.tolist() == [-1, -1, 1, 1, 1]
    assert torch.autograd.grad(hard.sum(), x)[0].tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(("bits", "dim"), [(8, 12), (16, 12), (12, 12)])
def test_iterative_quantization_is_orthonormal_and_better_than_chance(bits: int, dim: int) -> None:
    items = unit(200, dim)
    p = iterative_quantization(items, bits)
    small = p @ p.T if bits <= dim else p.T @ p
    torch.testing.assert_close(small, torch.eye(min(bits, dim)), rtol=1e-4, atol=1e-4)

    def loss(q: torch.Tensor) -> float:
        x = items @ q.T * max(bits, dim) ** 0.5
        return float((x - sign(x)).square().mean())

    rotation = torch.linalg.qr(torch.randn(max(bits, dim), max(bits, dim))).Q
    assert loss(p) < loss(rotation[:bits, :dim]) - 0.01


def test_residual_words_come_closer_with_bits() -> None:
    items = unit(300, 16)
    errors = []
    for bits in (16, 32, 64):
        made = Residual(300, 16, bits)
        codewords = made.start(items).codewords
        assert codewords is not None and codewords.shape == (bits // 4, 16, 16)
        decoder = Codebook(bits, 16)
        decoder.start(Start(codewords=codewords))
        errors.append((decoder(made(items)) - items).square().sum(dim=1).mean().item())
    assert errors[0] > errors[1] > errors[2]


def words_of(codes: torch.Tensor) -> torch.Tensor:
    """Sub-codes of codes of ±1, ``(n, M)``."""
    return torch.from_numpy(unpack_subcodes(pack_signs(codes.numpy()))).long()


def squared_errors(items: torch.Tensor, codewords: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    decoded = codewords[torch.arange(words.shape[1]), words].sum(dim=1)
    return (items - decoded).square().sum(dim=1)


def test_refining_lowers_the_weighted_error_until_no_word_alone_lowers_it_further() -> None:
    items, codewords, words = unit(300, 12), 0.3 * torch.randn(4, 16, 12), torch.randint(16, (300, 4))
    weights = torch.rand(300) ** 3
    errors = [weights @ squared_errors(items, codewords, words)]
    for _ in range(40):
        codewords, words = refine(items, codewords, words, weights, rounds=1)
        errors.append(weights @ squared_errors(items, codewords, words))
    assert all(after <= before + 1e-3 for before, after in itertools.pairwise(errors))
    assert errors[-1] < 0.3 * errors[0]
    settled = squared_errors(items, codewords, words)
    better = 0.0
    for m, k in itertools.product(range(4), range(16)):
        other = words.clone()
        other[:, m] = k
        better = max(better, ((settled - squared_errors(items, codewords, other)) > 1e-4).float().mean().item())
    assert better < 0.02


def test_items_of_more_weight_are_coded_more_closely() -> None:
    items, weights = unit(400, 12), torch.ones(400)
    weights[:40] = 100
    errors = []
    for given in (None, weights):
        torch.manual_seed(0)
        made = Residual(400, 12, 16)
        codewords = made.start(items, given).codewords
        assert codewords is not None
        words = torch.from_numpy(unpack_subcodes(pack_signs(made(items).numpy()))).long()
        errors.append(squared_errors(items, codewords, words)[:40].mean())
    assert errors[1] < 0.7 * errors[0]


def test_whitening_measures_errors_of_scores() -> None:
    queries, errors = torch.randn(500, 6) * torch.tensor([9.0, 3, 1, 1, 0, 0]) ** 0.5, torch.randn(50, 6)
    turn, back = whitening(queries)
    torch.testing.assert_close(turn @ back, torch.eye(6), atol=1e-4, rtol=1e-4)
    alike = (queries**2).sum() / len(queries) / 6 * errors.square().sum(dim=1)
    want = 0.9 * (errors @ queries.T).square().mean(dim=1) + 0.1 * alike
    torch.testing.assert_close((errors @ turn).square().sum(dim=1), want, rtol=1e-3, atol=1e-3)


def test_codes_are_close_where_the_queries_look() -> None:
    items, queries = unit(400, 12), torch.randn(300, 12) * torch.tensor([3.0] * 4 + [0.3] * 8)
    errors = []
    for given in (None, queries):
        torch.manual_seed(0)
        made = Residual(400, 12, 16)
        codewords = made.start(items, None, given).codewords
        assert codewords is not None
        words = torch.from_numpy(unpack_subcodes(pack_signs(made(items).numpy()))).long()
        errors.append(((items - codewords[torch.arange(4), words].sum(dim=1)) @ queries.T).square().mean())
    assert errors[1] < 0.7 * errors[0]


def test_a_sample_decides_the_codewords_of_a_large_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    items, codewords, words = unit(400, 8), 0.3 * torch.randn(4, 16, 8), torch.randint(16, (400, 4))
    before = squared_errors(items, codewords, words).mean()
    monkeypatch.setattr(residual, "_SAMPLE", 150)
    codewords, words = refine(items, codewords, words)
    assert squared_errors(items, codewords, words).mean() < 0.3 * before


def test_a_wide_embedding_is_quantized_in_all_its_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residual, "_AXES", 12)
    items = unit(300, 40)
    made = Residual(300, 40, 64)
    codewords = made.start(items).codewords
    assert codewords is not None and codewords.shape == (16, 16, 40)
    assert (
        squared_errors(items, codewords, words_of(made(items))).mean() < 0.3
    )  # 0.57 outside the axes of the first step


@pytest.mark.parametrize("name", HASHES)
def test_fitting_is_silent(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    HASHES[name](5, 4, 8).start(unit(5, 4))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", HASHES)
@pytest.mark.parametrize("items", [unit(2, 4), unit(7, 4), unit(1, 4).repeat(5, 1), torch.zeros(3, 4)])
def test_tiny_and_degenerate_catalogues(name: str, items: torch.Tensor) -> None:
    made = HASHES[name](len(items), 4, 8)
    made.start(items)
    assert torch.isfinite(made(items)).all()
