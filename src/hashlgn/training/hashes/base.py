"""What a hash is: item embeddings in, codes of ±1 out."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from torch import Tensor, nn

__all__ = ["Hash", "Start"]


class Start(NamedTuple):
    """What a hash has fitted, for the decoder and the compression to start from. One of the two is None."""

    codewords: Tensor | None = None  # ``(M, 16, dim)``, with ``o ≈ Σ_m C_m[k_im]`` for the 4-bit sub-codes k of item i
    projection: Tensor | None = None  # ``(bits, dim)`` with orthogonal rows or columns, with ``c = sign(P o)``


class Hash(nn.Module):
    """Maps item embeddings, ``(n, dim)``, to codes of ±1, ``(n, bits)``.

    It is built as ``HASHES[name](n_items, dim, bits)``.

    Attributes:
        has_sign: whether codes are signs of numbers that carry a gradient. A hash without is passed straight by: the
            gradient of the decoded vector goes to the embedding itself, which therefore has the decoder's width.
        per_item: whether it can code only the items that it was built for, and so no users.
        decoder: the only decoder that fits, a key of ``DECODERS``; None: any.
        guided: probability that a row passes as it is before the sign; 0 at rest.
    """

    has_sign: ClassVar[bool] = True
    per_item: ClassVar[bool] = False
    decoder: ClassVar[str | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.guided = 0.0

    def start(self, items: Tensor, weights: Tensor | None = None, queries: Tensor | None = None) -> Start:
        """Fit to the embeddings once, when hash and decoder join the training.

        Args:
            items: what it will code, ``(n_items, dim)``.
            weights: how much an item's error counts, ``(n_items,)``; alike where None.
            queries: in which directions an error counts, ``(n_users, dim)``; in all alike where None.
        """
        raise NotImplementedError

    def forward(self, items: Tensor) -> Tensor:
        """Codes of ±1, ``(n, bits)``, from embeddings, ``(n, dim)``."""
        raise NotImplementedError
