"""The two forms of a side of the model while it is trained: free vectors, and codes under trained codewords."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor, nn

from hashlgn.errors import ArgumentError
from hashlgn.inference.placement import decoded_histories
from hashlgn.scoring.codes import Bytes, pack_subcodes, unpack_subcodes
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.histories import CodedHistories, FloatHistories
from hashlgn.scoring.items import CodedItems, Items
from hashlgn.training.student.optimizer import RowAdam

__all__ = ["Codes", "Side", "Vectors", "few_levels"]


class Side(Protocol):
    """Vectors of all items, made of some tables."""

    @property
    def tables(self) -> list[Tensor]:
        """The parameters."""

    def rows(self, items: Tensor | None, optimizer: RowAdam, first: int) -> Tensor:
        """Vectors of some items with a gradient to the tables, of which the optimizer holds the first as number
        ``first``; of all items where None.
        """

    def vectors(self, items: Tensor | None = None) -> Tensor:
        """The same without a gradient."""


@dataclass(frozen=True)
class Vectors:
    """A free vector for every item, ``(n, dim)``."""

    table: Tensor

    @property
    def tables(self) -> list[Tensor]:
        """The vectors."""
        return [self.table]

    def rows(self, items: Tensor | None, optimizer: RowAdam, first: int) -> Tensor:
        """See ``Side``."""
        return optimizer.take(first, items)

    def vectors(self, items: Tensor | None = None) -> Tensor:
        """See ``Side``."""
        return self.table if items is None else self.table.index_select(0, items)


@dataclass(frozen=True)
class Codes:
    """``scale_i · Σ_m C_m[subcode_im]``: sub-codes are fixed, codewords and scales are trained."""

    subcodes: Tensor  # sub-codes, ``(n, M)`` uint8
    codewords: Tensor  # ``(16 M, dim)``
    log_scale: Tensor  # ``(n, 1)``

    @classmethod
    def fitted(cls, subcodes: Tensor, codewords: Tensor, vectors: Tensor) -> Codes:
        """Codes of given vectors, each with the scale that brings it closest."""
        codes = cls(subcodes, codewords.flatten(0, 1).clone(), torch.zeros(len(subcodes), 1, device=subcodes.device))
        close = codes.vectors()
        scale = (vectors * close).sum(dim=1, keepdim=True) / close.square().sum(dim=1, keepdim=True).clamp(min=1e-12)
        return cls(subcodes, codes.codewords, scale.clamp(min=1e-4).log())

    def to(self, device: torch.device) -> Codes:
        """The same on a device."""
        return Codes(self.subcodes.to(device), self.codewords.to(device), self.log_scale.to(device))

    @property
    def tables(self) -> list[Tensor]:
        """Codewords and logarithms of the scales."""
        return [self.codewords, self.log_scale]

    def rows(self, items: Tensor | None, optimizer: RowAdam, first: int) -> Tensor:
        """See ``Side``."""
        return self._decoded(items, optimizer.take(first), optimizer.take(first + 1, items))

    def vectors(self, items: Tensor | None = None) -> Tensor:
        """See ``Side``."""
        return self._decoded(
            items, self.codewords, self.log_scale if items is None else self.log_scale.index_select(0, items)
        )

    def _decoded(self, items: Tensor | None, codewords: Tensor, log_scale: Tensor) -> Tensor:
        subcodes = self.subcodes if items is None else self.subcodes.index_select(0, items)
        rows = subcodes.long() + 16 * torch.arange(subcodes.shape[1], device=subcodes.device)
        sums: Tensor = (
            _sums(codewords, rows) if rows.is_cpu else nn.functional.embedding_bag(rows, codewords, mode="sum")
        )
        return sums * log_scale.exp()

    def exported(
        self,
    ) -> tuple[
        Bytes, np.ndarray[tuple[int, int, int], np.dtype[np.float32]], np.ndarray[tuple[int], np.dtype[np.float16]]
    ]:
        """Packed sub-codes ``(n, M / 2)``, codewords ``(M, 16, dim)`` float32, scales ``(n,)`` float16."""
        codewords = self.codewords.view(-1, 16, self.codewords.shape[1]).cpu().numpy().astype(np.float32)
        scale = self.log_scale[:, 0].exp().clamp(min=6e-5, max=6e4).cpu().numpy().astype(np.float16)
        return pack_subcodes(self.subcodes.cpu().numpy()), codewords, scale


class _Sums(torch.autograd.Function):
    """Sums of some rows of a table for each item. PyTorch sorts the rows for the gradient, which takes several times as
    long as a product with a sparse matrix of ones: the table is small, and stays in cache.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.size = len(table)
        sums: Tensor = nn.functional.embedding_bag(rows, table, mode="sum")
        return sums

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        count, each = rows.shape
        parts = np.ones(rows.numel(), np.float32), rows.numpy().ravel(), np.arange(0, rows.numel() + 1, each)
        ones = sparse.csr_matrix(parts, (count, ctx.size))
        return torch.from_numpy(ones.T @ gradient.numpy()), None


_sums: Callable[[Tensor, Tensor], Tensor] = _Sums.apply  # PyTorch leaves it untyped


@dataclass(frozen=True)
class Start:
    """What a training starts from."""

    histories: Tensor  # vectors ``p``, ``(n, dim)``
    answers: Tensor  # vectors ``o``, ``(n, dim)``
    history_codes: Codes | None = None  # codes of ``p`` that the new ones start from, or None
    answer_codes: Codes | None = None  # the same of ``o``

    @classmethod
    def of(cls, histories: CodedHistories | FloatHistories, items: Items) -> Start:
        """The vectors and codes of a model that is served."""

        def codes(packed: Bytes, codewords: npt.NDArray[np.float32], scale: npt.NDArray[np.floating[Any]]) -> Codes:
            flat = torch.from_numpy(np.array(codewords, np.float32)).flatten(0, 1)
            logs = torch.from_numpy(np.log(scale.astype(np.float32)))[:, None]
            return Codes(torch.from_numpy(unpack_subcodes(packed)), flat, logs)

        known = found = None
        if isinstance(histories, CodedHistories):
            known = codes(histories.packed, histories.codewords, histories.weight)
        if isinstance(items, CodedItems) and isinstance(items.decoder, CodebookDecoder) and items.scale is not None:
            found = codes(items.packed, items.decoder.codewords, items.scale)
        p = decoded_histories(histories, np.arange(len(histories)))
        return cls(torch.from_numpy(np.array(p)), torch.from_numpy(np.array(items.decode())), known, found)

    def checked(self, n_items: int, dim: int, device: torch.device) -> Start:
        """The same on a device.

        Raises:
            ArgumentError: the vectors are of other items or of another width.
        """
        for name in ("histories", "answers"):
            if getattr(self, name).shape != (n_items, dim):
                shape = tuple(getattr(self, name).shape)
                raise ArgumentError(f"start.{name} must have shape {(n_items, dim)} (got {shape})")
        known, found = (part and part.to(device) for part in (self.history_codes, self.answer_codes))
        return Start(self.histories.to(device), self.answers.to(device), known, found)


def few_levels(weight: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """Positive weights rounded to at most 256 values at equal ratios, so that a saved one takes a byte."""
    if len(np.unique(weight)) <= 256:
        return weight
    logs = np.log(weight.astype(np.float64))
    levels = np.exp(np.linspace(logs.min(), logs.max(), 256)).astype(np.float16)
    step = (logs.max() - logs.min()) / 255
    rounded: npt.NDArray[np.float16] = levels[np.round((logs - logs.min()) / step).astype(np.int64)]
    return rounded
