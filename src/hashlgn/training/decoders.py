"""Decoding functions ``g`` for training, and the compression ``f`` of queries. ``DECODERS`` is the table of choices.

Each decoder maps codes of ±1, ``(n, bits)``, to vectors, ``(n, width)``, with a gradient to the codes where they
carry one, and exports itself to the NumPy form that searchers fold into query tables (``hashlgn.scoring.items``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hashlgn.errors import choose
from hashlgn.scoring.decoders import CodebookDecoder, Decoder, Floats, ReweightDecoder
from hashlgn.training.hashes import Start

__all__ = [
    "COMPRESSIONS",
    "DECODERS",
    "Codebook",
    "DecodingFunction",
    "Identity",
    "Reweight",
    "compression",
    "compression_layers",
    "start_compression",
]


class DecodingFunction(Protocol):
    """Maps codes to vectors."""

    width: int

    def start(self, fitted: Start) -> None:
        """Begin from what the hash has fitted."""

    def __call__(self, codes: Tensor) -> Tensor:
        """Decoded vectors, ``(n, bits)`` → ``(n, width)``."""

    def export(self) -> Decoder:
        """The same function in NumPy."""


class Reweight(nn.Module):
    """The paper's reweighting ``g(c) = α ⊙ max(c, 0) + β ⊙ min(c, 0)``, with α, β ≥ 0 by a softplus. Width = bits."""

    def __init__(self, bits: int, width: int) -> None:
        super().__init__()
        self.width = bits
        # softplus(0.54) = 1: at first both weights are 1, and g is the identity.
        self.raw_alpha = nn.Parameter(torch.full((bits,), 0.5413))
        self.raw_beta = nn.Parameter(torch.full((bits,), 0.5413))

    @property
    def alpha(self) -> Tensor:
        """Weights of +1, ``(bits,)``."""
        return nn.functional.softplus(self.raw_alpha)

    @property
    def beta(self) -> Tensor:
        """Weights of −1, ``(bits,)``."""
        return nn.functional.softplus(self.raw_beta)

    def start(self, fitted: Start) -> None:
        """Stay the identity: it is the queries that turn to the hash's projection."""

    def forward(self, codes: Tensor) -> Tensor:
        """Decoded vectors, ``(n, bits)``."""
        return self.alpha * codes.clamp(min=0) + self.beta * codes.clamp(max=0)

    def export(self) -> ReweightDecoder:
        """The same function in NumPy."""
        return ReweightDecoder(_array(self.alpha), _array(self.beta))


class Identity(nn.Module):
    """``g(c) = c``: nothing is learned. Under a query of ±1 the score is ``bits − 2 · Hamming distance``."""

    def __init__(self, bits: int, width: int) -> None:
        super().__init__()
        self.width = bits

    def start(self, fitted: Start) -> None:
        """There is nothing to begin from."""

    def forward(self, codes: Tensor) -> Tensor:
        """The codes, ``(n, bits)``."""
        return codes

    def export(self) -> ReweightDecoder:
        """The same function in NumPy: reweighting by ones."""
        ones = np.ones(self.width, np.float32)
        return ReweightDecoder(ones, ones)


class Codebook(nn.Module):
    """Each 4-bit sub-code selects one of sixteen learned vectors: ``g(c) = Σ_m C_m[k_m]``.

    Between the corners, where a hash with a gradient needs a slope, g is extended multilinearly: with ``b = (c + 1)
    / 2``, ``g = Σ_m Σ_k C_m[k] Π_j (b_mj if bit j of k else 1 − b_mj)``.
    """

    def __init__(self, bits: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.codewords = nn.Parameter(torch.randn(bits // 4, 16, width) / (bits // 4 * width) ** 0.5)

    def start(self, fitted: Start) -> None:
        """Become the quantizer's codewords, or the linear decoding ``g(c) = Pᵀ c`` scaled to about unit length."""
        with torch.no_grad():
            if fitted.codewords is not None:
                self.codewords.copy_(fitted.codewords)
            if fitted.projection is not None:
                values = torch.arange(16, device=fitted.projection.device)[:, None]
                bits = (values >> torch.arange(4, device=values.device)) & 1  # (16, 4)
                signs = (2 * bits - 1).to(fitted.projection)
                grouped = fitted.projection.view(-1, 4, self.width)  # (M, 4, width)
                self.codewords.copy_(torch.einsum("kj,mjw->mkw", signs, grouped) / fitted.projection.shape[0] ** 0.5)

    def forward(self, codes: Tensor) -> Tensor:
        """Decoded vectors, ``(n, width)``."""
        flat = self.codewords.flatten(0, 1)
        grouped = codes.view(len(codes), -1, 4)  # (n, M, 4)
        if not codes.requires_grad:
            powers = torch.tensor([1, 2, 4, 8], device=codes.device)
            subcodes = ((grouped >= 0) * powers).sum(dim=2)
            rows = subcodes + 16 * torch.arange(subcodes.shape[1], device=codes.device)
            decoded: Tensor = nn.functional.embedding_bag(rows, flat, mode="sum")
            return decoded
        share = grouped.new_ones(*grouped.shape[:2], 1)  # (n, M, 1): grows to the sixteen weights of a sub-code
        for j in range(4):
            up = (grouped[:, :, j : j + 1] + 1) / 2
            share = torch.cat((share * (1 - up), share * up), dim=2)
        mixed: Tensor = share.flatten(1) @ flat
        return mixed

    def export(self) -> CodebookDecoder:
        """The same function in NumPy."""
        return CodebookDecoder(_array(self.codewords))


DECODERS: dict[str, Callable[[int, int], DecodingFunction]] = {
    "reweight": Reweight,
    "codebook": Codebook,
    "identity": Identity,
}


def compression(kind: str, dim: int, width: int, *, random: bool = False) -> nn.Sequential:
    """The query compression ``f``: R^dim → R^width. Where the widths agree, it starts as the identity.

    Args:
        kind: ``linear``, one affine layer, or ``mlp``, two with ReLU between them and a linear path beside them.
        dim: length of a user embedding.
        width: length of a query, the decoder's width.
        random: start all layers from PyTorch's draw instead.
    """
    layers = choose("compression", kind, COMPRESSIONS)(dim, width)
    for layer in layers if random else ():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return nn.Sequential(*layers)


def start_compression(f: nn.Sequential, projection: Tensor) -> None:
    """Let ``f`` start as a projection, ``f(q) = P q``, ``(width, dim)``."""
    with torch.no_grad():
        start = projection if len(f) == 1 else torch.cat((projection, -projection), dim=1)
        f.get_parameter(f"{len(f) - 1}.weight").copy_(start)


def _linear(dim: int, width: int) -> list[nn.Linear]:
    layer = nn.Linear(dim, width)
    nn.init.zeros_(layer.bias)
    if dim == width:
        nn.init.eye_(layer.weight)
    return [layer]


def _mlp(dim: int, width: int) -> list[nn.Module]:
    # relu(x) − relu(−x) = x: so written, two layers can start as the same affine map as one.
    first, second = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, width)
    straight = _linear(dim, width)[0].weight
    with torch.no_grad():
        first.weight.copy_(torch.cat((torch.eye(dim), -torch.eye(dim))))
        second.weight.copy_(torch.cat((straight, -straight), dim=1))
        first.bias.zero_()
        second.bias.zero_()
    return [first, nn.ReLU(), second]


COMPRESSIONS = {"linear": _linear, "mlp": _mlp}


def compression_layers(f: nn.Module) -> tuple[tuple[Floats, Floats], ...]:
    """Weights and biases of ``f`` in NumPy, as ``FoldIn`` takes them."""
    return tuple((_array(layer.weight), _array(layer.bias)) for layer in f.modules() if isinstance(layer, nn.Linear))


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().cpu().numpy().astype("float32")
    return array
