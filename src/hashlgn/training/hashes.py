"""Hash functions: an item embedding in, a code of ±1 out, with a gradient past the sign.

``HASHES`` is the table of choices. A hash is a module ``forward(o (n, dim)) → codes (n, bits)`` with ``start(o)``,
called once when the hash joins the training. A hash whose codes carry no gradient (``residual``) is passed straight
by: the decoded vector's gradient goes to the embedding itself, which therefore has the decoder's width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import faiss
import numpy as np
import torch
from torch import Tensor, nn

from hashlgn.errors import choose
from hashlgn.scoring.codes import pack_words, unpack_signs, unpack_words
from hashlgn.scoring.decoders import Floats

__all__ = [
    "HASHES",
    "SIGNS",
    "HashFunction",
    "Residual",
    "SignHash",
    "Start",
    "guidance",
    "iterative_quantisation",
    "metric",
    "refined",
    "sign",
    "soft_sign",
    "straight_through",
]

_AXES = 256  # principal axes on which words are first found
_SAMPLE = 50_000  # items that decide the codewords
_ALIKE = 0.1  # share of a metric that is the same in all directions
_GUIDED, _FALLS = 5000, 20  # steps until guidance ends, and by how many falls


def sign(x: Tensor) -> Tensor:
    """``+1`` where ``x ≥ 0``, else ``−1``: ``sign(0) = +1``, as in the paper."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def straight_through(x: Tensor, progress: float) -> Tensor:
    """Forward ``sign(x)``, backward the identity where ``|x| ≤ 1`` and 0 elsewhere (Bengio et al., 2013, clipped).

    ``progress`` is not used: this gradient is the same from the first step to the last.
    """
    clipped = x.clamp(-1, 1)
    return clipped + (sign(x) - clipped).detach()


def soft_sign(x: Tensor, progress: float) -> Tensor:
    """Tanh annealing: ``tanh(βx)`` with β growing from 1 to 10 over the training (HashNet, Cao et al., ICCV 2017),
    hard in the end.

    Args:
        x: any shape.
        progress: share of the training done, 0 … 1. At 1 the answer is ``sign(x)`` itself.
    """
    return sign(x) if progress >= 1 else torch.tanh(10**progress * x)


SIGNS = {"straight_through": straight_through, "tanh": soft_sign}


def guidance(step: int, steps: int) -> float:
    """Probability that a row is not cut to signs: 1 at first, and 0.05 less every 250 steps, so that the first 5,000
    steps are guided; of a training with fewer than twice as many, its first half, by as many falls.

    Source: Tan et al., *Learning to Hash with Graph Neural Networks for Recommender Systems*, WWW 2020.

    Args:
        step: steps done.
        steps: in all.
    """
    falls = 2 * _FALLS * step // min(2 * _GUIDED, steps)
    return max(0.0, 1 - falls / _FALLS)


class Start(NamedTuple):
    """What a hash has fitted, for the decoder and the compression to start from: one of the two is None.

    Attributes:
        codewords: ``(M, 16, dim)``, with ``o ≈ Σ_m C_m[word_m]``.
        projection: ``(bits, dim)`` with orthogonal rows or columns, with ``c = sign(P o)``.
    """

    codewords: Tensor | None = None
    projection: Tensor | None = None


class HashFunction(Protocol):
    """Maps item embeddings to codes."""

    progress: float  # share of the training done, 0 … 1, set by the training loop; 1 at rest
    guided: float  # probability that a row passes as it is before the sign, set by the training loop; 0 at rest

    def start(self, items: Tensor, weights: Tensor | None = None, queries: Tensor | None = None) -> Start:
        """Fit to the embeddings once, when hash and decoder join the training; ``weights (n,)`` say how much an item's
        error counts, ``queries (n_users, dim)`` in which directions.
        """

    def __call__(self, items: Tensor) -> Tensor:
        """Codes of ±1, ``(n, bits)``, from embeddings, ``(n, dim)``."""


class SignHash(nn.Module):
    """``c = sign(net(o))``, with one of ``SIGNS`` for the gradient while training.

    However the net is made, it starts as one rotation of the embedding, fitted by iterative quantisation: ``net(o) =
    P o``.

    In training a row is what the sign is taken of, between −1 and 1, with probability ``guided``.

    Args:
        net: what comes before the sign, ``(n, dim)`` → ``(n, bits)``, with ``start(projection, items)``.
        bits: length of a code.
        gradient: a key of ``SIGNS``.
    """

    def __init__(self, net: Rotation | Mlp | FreeVectors, bits: int, gradient: str) -> None:
        super().__init__()
        self.net, self.bits, self.progress, self.guided = net, bits, 1.0, 0.0
        self.gradient = choose("sign", gradient, SIGNS)

    def start(self, items: Tensor, weights: Tensor | None = None, queries: Tensor | None = None) -> Start:
        """Fit the rotation, to all items and directions alike, and let the net start as it."""
        projection = iterative_quantisation(items, self.bits)
        # A unit embedding has values of about 1 / √dim along each axis; so scaled they lie within the sign's linear
        # range.
        with torch.no_grad():
            self.net.start(projection * max(self.bits, items.shape[1]) ** 0.5, items)
        return Start(projection=projection)

    def forward(self, items: Tensor) -> Tensor:
        """Codes, ``(n, bits)``."""
        x = self.net(items)
        if not self.training:
            return sign(x)
        codes: Tensor = self.gradient(x, self.progress)
        if not self.guided:
            return codes
        return torch.where(torch.rand(len(x), 1, device=x.device) < self.guided, x.clamp(-1, 1), codes)


class Rotation(nn.Linear):
    """One fully connected layer."""

    def start(self, projection: Tensor, items: Tensor) -> None:
        """Become the projection."""
        self.weight.copy_(projection)
        self.bias.zero_()


class Bounded(Rotation):
    """One fully connected layer and tanh."""

    def forward(self, items: Tensor) -> Tensor:
        """``tanh(W o + b)``, ``(n, bits)``."""
        return torch.tanh(super().forward(items))


class Mlp(nn.Sequential):
    """The paper's three fully connected layers, ReLU between them; no hidden layer is narrower than ``2 bits``."""

    def __init__(self, dim: int, bits: int) -> None:
        hidden = 2 * max(dim, bits)
        self.bits = bits
        super().__init__(
            nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, bits)
        )

    def start(self, projection: Tensor, items: Tensor) -> None:
        """Become the projection, as ``relu(x) − relu(−x) = x`` carried through; units not needed for that keep their
        draw.
        """
        first, second, last = (layer for layer in self if isinstance(layer, nn.Linear))
        used = 2 * self.bits
        first.weight[:used] = torch.cat((projection, -projection))
        first.bias[:used] = 0
        second.weight[:used] = 0
        second.weight[:used, :used] = torch.eye(used, device=projection.device)
        second.bias[:used] = 0
        identity = torch.eye(self.bits, device=projection.device)
        last.weight.zero_()
        last.weight[:, :used] = torch.cat((identity, -identity), dim=1)
        last.bias.zero_()


class FreeVectors(nn.Module):
    """A learned vector for every item, whatever its embedding becomes."""

    def __init__(self, n_items: int, bits: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(n_items, bits))

    def start(self, projection: Tensor, items: Tensor) -> None:
        """Become the projections of the present embeddings."""
        self.vectors.copy_(items @ projection.T)

    def forward(self, items: Tensor) -> Tensor:
        """The vectors, ``(n_items, bits)``."""
        return self.vectors


def iterative_quantisation(items: Tensor, bits: int, rounds: int = 50) -> Tensor:
    """ITQ: a projection P with orthonormal rows (``bits ≤ dim``) or columns that brings ``P o`` close to ``sign(P o)``.

    Alternates ``B = sign(O Pᵀ)`` with the Procrustes solution ``P = W Uᵀ`` for ``Oᵀ B = U Σ Wᵀ``. Source: Gong,
    Lazebnik, Gordo, Perronnin: *Iterative Quantization*, TPAMI 2013; there on centred data and for ``bits ≤ dim``.

    Args:
        items: ``(n, dim)``.
        bits: length of a code.
        rounds: alternations.

    Returns:
        ``(bits, dim)``.
    """
    sample = items.detach()
    if len(sample) > 100_000:
        sample = sample[torch.randperm(len(sample), device=sample.device)[:100_000]]
    axes = torch.linalg.svd(sample.T @ sample).U  # principal axes, largest first
    # bits ≤ dim: a random rotation of the leading axes; else a random embedding of all of them in the larger space
    kept = min(bits, sample.shape[1])
    projection: Tensor = torch.linalg.qr(torch.randn(bits, kept, device=sample.device)).Q @ axes[:, :kept].T
    for _ in range(rounds):
        u, _, w = torch.linalg.svd(sample.T @ sign(sample @ projection.T), full_matrices=False)
        projection = (u @ w).mT
    return projection


class Residual(nn.Module):
    """Codes as additive quantisation of the embedding: each 4-bit word selects one of sixteen codewords, found by
    beam search.

    ``start`` learns codewords C and words by residual quantisation, ``o ≈ Σ_m C_m[word_m]`` (Chen et al.,
    *Approximate nearest neighbor search by residual vector quantization*, Sensors 2010; beam search as in Babenko
    and Lempitsky, CVPR 2014), and brings both closer by local search. The codewords become the decoder's and are
    trained there; the words stay, and ``assign`` gives those of new items under the codewords as trained.

    Args:
        n_items: number of items.
        dim: length of an embedding.
        bits: length of a code.
        beam: candidates kept after each word.
    """

    def __init__(self, n_items: int, dim: int, bits: int, beam: int = 4) -> None:
        super().__init__()
        self.dim, self.beam, self.progress, self.guided = dim, beam, 1.0, 0.0
        self.codes: Tensor
        self.register_buffer("codes", torch.ones(n_items, bits))

    def start(self, items: Tensor, weights: Tensor | None = None, queries: Tensor | None = None) -> Start:
        """Learn codewords and words: residual quantisation of the leading axes, then ``refined`` on all of them; in the
        metric of the queries, where there are any.
        """
        turn, back = metric(queries) if queries is not None else (torch.eye(self.dim).to(items),) * 2
        items = items @ turn
        axes = torch.linalg.svd(items.T @ items).U[:, :_AXES] if self.dim > _AXES else torch.eye(self.dim).to(items)
        leading = np.ascontiguousarray((items @ axes).detach().cpu().numpy(), np.float32)
        quantizer = self._quantizer(leading.shape[1])
        # Codewords learned greedily, words found by a beam: less error than a beam in both, in less time.
        quantizer.max_beam_size = 1
        quantizer.train(_enough(leading))
        quantizer.max_beam_size = self.beam
        words = torch.from_numpy(unpack_words(quantizer.compute_codes(leading))).to(items.device).long()
        found = torch.from_numpy(faiss.vector_to_array(quantizer.codebooks)).to(items).view(-1, 16, leading.shape[1])
        codewords, words = refined(items, found @ axes.T, words, weights)
        self.codes.copy_(torch.from_numpy(unpack_signs(pack_words(words.cpu().numpy().astype(np.uint8)))))
        return Start(codewords=codewords @ back)

    def assign(self, items: Tensor, codewords: Tensor) -> Tensor:
        """Codes of any embeddings, ``(n, dim)`` → ``(n, bits)``, by beam search over given codewords ``(M, 16,
        dim)``, then local search.
        """
        quantizer = self._quantizer(self.dim)
        faiss.copy_array_to_vector(codewords.detach().cpu().numpy().ravel(), quantizer.codebooks)
        quantizer.is_trained = True
        packed = quantizer.compute_codes(np.ascontiguousarray(items.detach().cpu().numpy(), np.float32))
        rows = torch.from_numpy(unpack_words(packed)).to(items.device).long()
        rows += 16 * torch.arange(rows.shape[1], device=items.device)
        words = _conditional_modes(items.detach(), codewords.detach().flatten(0, 1), rows) % 16
        return torch.from_numpy(unpack_signs(pack_words(words.cpu().numpy().astype(np.uint8)))).to(items)

    def forward(self, items: Tensor) -> Tensor:
        """The codes found at the start, ``(n_items, bits)``, without gradient."""
        return self.codes

    def _quantizer(self, dim: int) -> faiss.ResidualQuantizer:
        quantizer = faiss.ResidualQuantizer(dim, self.codes.shape[1] // 4, 4)
        quantizer.max_beam_size = self.beam
        quantizer.cp.min_points_per_centroid = 1  # else Faiss writes warnings for small catalogues to stderr
        return quantizer


def metric(queries: Tensor) -> tuple[Tensor, Tensor]:
    """``A = M^1/2`` and its inverse, ``(dim, dim)``: ``‖A (o − g)‖²`` is the mean square of the errors ``q·(o − g)`` of
    the scores, for ``M`` the queries' second moment. A part of M is made the same in all directions, since what few
    queries ask for they ask for too.
    """
    moment = queries.T @ queries / len(queries)
    values, axes = torch.linalg.eigh(moment)
    values = (1 - _ALIKE) * values + _ALIKE * values.mean()
    return axes * values.sqrt() @ axes.T, axes * values.rsqrt() @ axes.T


def refined(
    items: Tensor, codewords: Tensor, words: Tensor, weights: Tensor | None = None, rounds: int = 8
) -> tuple[Tensor, Tensor]:
    """Codewords and words with less error ``Σ_i w_i ‖o_i − Σ_m C_m[word_im]‖²``, by turns: the codewords by least
    squares, held to where they were where no item decides; then twice every word of every item, the others staying.

    The second step is iterated conditional modes, as in Babenko and Lempitsky, *Additive Quantization*, CVPR 2014. It
    needs inner products alone, so its time does not grow with the dimension. Of a catalogue of more than 50,000
    items, a sample decides the codewords.

    Args:
        items: ``(n, dim)``.
        codewords: ``(M, 16, dim)``.
        words: ``(n, M)``, 0 … 15.
        weights: w, ``(n,)``, at least 0; 1 where None.
        rounds: turns; the error never grows.

    Returns:
        Codewords and words, shaped as given.
    """
    flat, rows = codewords.flatten(0, 1), words + 16 * torch.arange(words.shape[1], device=words.device)
    chosen = torch.arange(len(items), device=words.device)
    if len(items) > _SAMPLE:
        chosen = torch.randperm(len(items), device=words.device)[:_SAMPLE]
    sample, taken = items[chosen], rows[chosen]
    weights = items.new_ones(len(items)) if weights is None else weights
    shares = (weights[chosen] / weights[chosen].mean().clamp(min=1e-12))[:, None]
    for _ in range(rounds):
        used = items.new_zeros(len(sample), len(flat)).scatter_(1, taken, 1.0)  # (sample, 16 M)
        gram = used.T @ (shares * used)
        gram.diagonal().add_(1e-3 * len(sample) / 16)
        flat = flat + torch.linalg.solve(gram, used.T @ (shares * (sample - used @ flat)))
        taken = _conditional_modes(sample, flat, taken)
    rows[chosen] = taken
    if len(sample) < len(items):
        for start in range(0, len(items), _SAMPLE):
            part = slice(start, start + _SAMPLE)
            rows[part] = _conditional_modes(items[part], flat, rows[part])
    return flat.view_as(codewords), rows % 16


def _conditional_modes(items: Tensor, flat: Tensor, rows: Tensor, sweeps: int = 2) -> Tensor:
    """Rows ``(n, M)`` of codewords, each in its turn the best beside the others: the least of ``‖c‖² + 2 c·(Σ − o)``,
    Σ the sum of the other words' codewords.
    """
    gram, rows = flat @ flat.T, rows.clone()
    away = nn.functional.embedding_bag(rows, gram, mode="sum") - items @ flat.T  # c·(Σ − o), word of its own included
    squares = gram.diagonal()
    for _ in range(sweeps):
        for m in range(rows.shape[1]):
            block = slice(16 * m, 16 * m + 16)
            old = rows[:, m]
            new = (2 * (away[:, block] - gram[old, block]) + squares[block]).argmin(dim=1) + 16 * m
            moved = (new != old).nonzero()[:, 0]
            away[moved] += gram[new[moved]] - gram[old[moved]]
            rows[:, m] = new
    return rows


def _enough(vectors: Floats) -> Floats:
    """The vectors, repeated with a little noise where they are too few for Faiss to cluster in their dimension."""
    wanted = max(256, 4 * vectors.shape[1])
    if len(vectors) >= wanted:
        return vectors
    noise = 1e-3 * np.random.default_rng(0).standard_normal((wanted, vectors.shape[1]))
    return (np.resize(vectors, noise.shape) + noise).astype(np.float32)


def mlp3(n_items: int, dim: int, bits: int, gradient: str) -> SignHash:
    """The paper's hash: three fully connected layers, ReLU between them, and ``sign``."""
    return SignHash(Mlp(dim, bits), bits, gradient)


def linear(n_items: int, dim: int, bits: int, gradient: str) -> SignHash:
    """One fully connected layer and ``sign``."""
    return SignHash(Rotation(dim, bits), bits, gradient)


def tanh(n_items: int, dim: int, bits: int, gradient: str) -> SignHash:
    """HashGNN's hash: one fully connected layer, tanh, and ``sign``. Straight through the sign, the gradient is that of
    the tanh.
    """
    return SignHash(Bounded(dim, bits), bits, gradient)


def free(n_items: int, dim: int, bits: int, gradient: str) -> SignHash:
    """One learned vector an item, and ``sign``."""
    return SignHash(FreeVectors(n_items, bits), bits, gradient)


def residual(n_items: int, dim: int, bits: int, gradient: str) -> Residual:
    """Beam-search assignment to the codebook decoder's codewords. It has no sign, so ``gradient`` does not enter."""
    return Residual(n_items, dim, bits)


HASHES: dict[str, Callable[[int, int, int, str], SignHash | Residual]] = {
    "mlp3": mlp3,
    "linear": linear,
    "tanh": tanh,
    "free": free,
    "residual": residual,
}
