"""The two losses of a softmax, each with a gradient that takes the place of the scores in memory.

Both are cross-entropies ``−Σ_j t_uj ln s_uj`` of a softmax over the items that a user may be asked about. A student
hides what the user is known to have from it, since nobody will ask for it. With ``s = queries · itemsᵀ + l`` and
``softmax`` over what is not hidden, the gradient of the scores is ``(Σ_j t_uj) softmax_u − t_u``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Entries", "divergence", "label_loss"]

Entries = tuple[Tensor, Tensor]  # rows and columns of entries of a matrix, int64 each
_HIDDEN = -1e9  # finite, so that 0 times it is 0


class _OfScores(torch.autograd.Function):
    """A loss of the scores ``queries @ items.T``, whose gradient by them is kept from the way forward."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        queries, items, scores = ctx.saved_tensors
        return gradient * (scores @ items), gradient * (scores.T @ queries), None, None, None, None


class _LabelLoss(_OfScores):
    """``Σ_u w_u Σ_{i∈T_u} −ln s_ui / Σ_u w_u |T_u|``, T_u the targets of user u."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        items: Tensor,
        targets: Entries,
        hidden: Entries | None,
        weights: Tensor,
        log_weight: Tensor | None,
    ) -> Tensor:
        rows, _ = targets
        counts = torch.bincount(rows, minlength=len(queries)).to(queries)
        share = weights / (weights * counts).sum().clamp(min=1e-12)
        scores = _hide(_scores(queries, items, log_weight), hidden)
        asked = scores[targets]
        top = scores.amax(dim=1, keepdim=True)
        sums = scores.sub_(top).exp_().sum(dim=1, keepdim=True)
        loss = (share[rows] * ((sums.log() + top)[rows, 0] - asked)).sum()
        scores *= (share * counts)[:, None] / sums
        scores.index_put_(targets, -share[rows], accumulate=True)
        ctx.save_for_backward(queries, items, scores)
        return loss


class _Divergence(_OfScores):
    """``Σ_u w_u Σ_j −t_uj ln s_uj / Σ_u w_u``, with t the softmax of a teacher's scores over the same items."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        items: Tensor,
        wanted: Tensor,
        hidden: Entries | None,
        weights: Tensor,
        log_weight: Tensor | None,
    ) -> Tensor:
        targets = _hide(wanted if log_weight is None else wanted + log_weight, hidden).softmax(dim=1)
        scores = _hide(_scores(queries, items, log_weight), hidden)
        scores -= scores.logsumexp(dim=1, keepdim=True)
        share = weights / weights.sum()
        loss = -(share * torch.einsum("uj,uj->u", targets, scores)).sum()
        scores.exp_().sub_(targets).mul_(share[:, None])
        ctx.save_for_backward(queries, items, scores)
        return loss


# PyTorch leaves both untyped. Arguments: queries (b, dim), already divided by the temperature; items (n, dim); targets
# as entries, or the teacher's scores (b, n); entries that are hidden; weights of the users (b,); ln of the weight of
# each item in the sum of the softmax, (n,).
label_loss: Callable[[Tensor, Tensor, Entries, Entries | None, Tensor, Tensor | None], Tensor] = _LabelLoss.apply
divergence: Callable[[Tensor, Tensor, Tensor, Entries | None, Tensor, Tensor | None], Tensor] = _Divergence.apply


def _scores(queries: Tensor, items: Tensor, log_weight: Tensor | None) -> Tensor:
    return queries @ items.T if log_weight is None else torch.addmm(log_weight, queries, items.T)


def _hide(scores: Tensor, hidden: Entries | None) -> Tensor:
    return scores if hidden is None else scores.index_put_(hidden, scores.new_full((1,), _HIDDEN))
