"""Codes that are signs of a projection or of a small network, with a gradient past the sign."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hashlgn.training.hashes.base import Hash, Start

__all__ = ["Mlp3", "SignHash", "Tanh", "iterative_quantization", "sign", "straight_through"]


def sign(x: Tensor) -> Tensor:
    """``+1`` where ``x ≥ 0``, else ``−1``. (Codes are ±1, so 0 has to be one of them; the paper does not say which.)"""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def straight_through(x: Tensor) -> Tensor:
    """Forward ``sign(x)``, backward the identity where ``|x| ≤ 1`` and 0 elsewhere (Bengio et al., 2013, clipped)."""
    clipped = x.clamp(-1, 1)
    return clipped + (sign(x) - clipped).detach()


class SignHash(Hash):
    """``c = sign(net(o))``, with a straight-through gradient.

    Whatever the net is, ``start`` makes it one rotation of the embedding, fitted by iterative quantization: ``net(o) =
    P o``. Without ``start`` it keeps PyTorch's random draw. In training a row is what the sign is taken of, between −1
    and 1, with probability ``guided``.
    """

    def __init__(self, net: Bounded | Mlp, bits: int) -> None:
        super().__init__()
        self.net, self.bits = net, bits

    def start(self, items: Tensor, weights: Tensor | None = None, queries: Tensor | None = None) -> Start:
        """Fit the rotation, to all items and directions alike, and let the net start as it."""
        projection = iterative_quantization(items, self.bits)
        # A unit embedding has values of about 1 / √dim along each axis; so scaled they lie within the sign's linear
        # range.
        with torch.no_grad():
            self.net.start(projection * max(self.bits, items.shape[1]) ** 0.5)
        return Start(projection=projection)

    def forward(self, items: Tensor) -> Tensor:
        """Codes, ``(n, bits)``."""
        x = self.net(items)
        if not self.training:
            return sign(x)
        codes = straight_through(x)
        if not self.guided:
            return codes
        return torch.where(torch.rand(len(x), 1, device=x.device) < self.guided, x.clamp(-1, 1), codes)


class Mlp3(SignHash):
    """The paper's hash: three fully connected layers, ReLU between them, and ``sign``."""

    def __init__(self, n_items: int, dim: int, bits: int) -> None:
        super().__init__(Mlp(dim, bits), bits)


class Tanh(SignHash):
    """HashGNN's hash: one fully connected layer, tanh, and ``sign``. Straight through the sign, the gradient is that of
    the tanh.
    """

    def __init__(self, n_items: int, dim: int, bits: int) -> None:
        super().__init__(Bounded(dim, bits), bits)


class Bounded(nn.Linear):
    """One fully connected layer and tanh."""

    def start(self, projection: Tensor) -> None:
        """Become the projection."""
        self.weight.copy_(projection)
        self.bias.zero_()

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

    def start(self, projection: Tensor) -> None:
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


def iterative_quantization(items: Tensor, bits: int, rounds: int = 50) -> Tensor:
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
