"""Losses over queries and items, each with the batches it learns from. ``LOSSES`` is the table of choices.

A loss is built from the training configuration. ``batches`` yields what one epoch needs, ``steps`` says how many
there are, and the call turns one batch into a scalar.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hashlgn.config import TrainConfig
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, positive_int
from hashlgn.training.sampling import interaction_batches, user_batches

__all__ = ["LOSSES", "Bpr", "Distillation", "HashGnn", "HashGnnCode", "Loss", "Softmax"]

_NEGATIVES = 10  # items without interaction for each interaction, as in HashGNN's code


class Loss(Protocol):
    """A loss and the batches it learns from."""

    def steps(self, data: Interactions) -> int:
        """Batches in an epoch."""

    def batches(self, data: Interactions, rng: np.random.Generator) -> Iterator[Any]:
        """The batches of one epoch."""

    def __call__(self, queries: Tensor, items: Tensor, batch: Any) -> Tensor:
        """The loss of one batch, a scalar; ``queries (n_users, width)``, ``items (n_items, width)``."""

    def regularise(self, encoder: nn.Module, batch: Any) -> Tensor | float:
        """What the loss adds for the encoder's own parameters."""


class Bpr:
    """Bayesian personalised ranking, the paper's loss: ``mean −ln σ((ŷ_ui − ŷ_uj) / τ) + λ ‖E^(0)‖²``.

    Each interaction (u, i) meets one uniform item j without interaction. The norm is over the rows of the batch,
    divided by its size, as LightGCN's authors do. τ is 1 under the inner product. Source: Rendle et al., *BPR*, UAI
    2009.

    Args:
        config: ``batch_size``, ``l2``, ``temperature``.
        similarity: ``cosine`` or ``inner``.
    """

    def __init__(self, config: TrainConfig, similarity: str) -> None:
        self.batch_size = positive_int("train.batch_size", config.batch_size)
        self.l2 = config.l2
        self.temperature = _temperature(config.temperature) if similarity == "cosine" else 1.0

    def steps(self, data: Interactions) -> int:
        """Batches in an epoch."""
        return -(-len(data) // self.batch_size)

    def batches(self, data: Interactions, rng: np.random.Generator) -> Iterator[Any]:
        """Triples (users, positives, negatives) of one epoch."""
        return interaction_batches(data, self.batch_size, rng)

    def __call__(self, queries: Tensor, items: Tensor, batch: Any) -> Tensor:
        """The ranking term of one batch."""
        users, positives, negatives = _tensors(batch, queries.device)
        difference = (queries[users] * (items[positives] - items[negatives])).sum(dim=1)
        return -nn.functional.logsigmoid(difference / self.temperature).mean()

    def regularise(self, encoder: nn.Module, batch: Any) -> Tensor | float:
        """``λ ‖E^(0)‖²`` over the rows of the batch, for an encoder that has free embeddings."""
        own_users, own_items = getattr(encoder, "users", None), getattr(encoder, "items", None)
        if not self.l2 or own_users is None or own_items is None:
            return 0.0
        users, positives, negatives = _tensors(batch, own_users.device)
        squares: Tensor = (
            own_users[users].square().sum() + own_items[positives].square().sum() + own_items[negatives].square().sum()
        )
        return self.l2 * squares / len(users)


class HashGnn(Bpr):
    """HashGNN's loss as its paper has it: cross-entropy of ``σ(ŷ)`` over interactions and items without interaction,
    plus ``0.5 · mean max(0, 0.2 − σ(ŷ_ui) + σ(ŷ_uj))``, plus ``λ ‖E^(0)‖²``.

    Each interaction (u, i) meets ten uniform items j without interaction. ŷ is the score divided by the temperature:
    the paper has none, but inner products of codes lie where σ is flat. Source: Tan et al., *Learning to Hash with
    Graph Neural Networks for Recommender Systems*, WWW 2020.

    Args:
        config: ``batch_size``, ``l2``, ``temperature``.
        similarity: the same under both.
    """

    def __init__(self, config: TrainConfig, similarity: str) -> None:
        super().__init__(config, similarity)
        self.temperature = _temperature(config.temperature)

    def batches(self, data: Interactions, rng: np.random.Generator) -> Iterator[Any]:
        """(users, positives, negatives (b, 10)) of one epoch."""
        return interaction_batches(data, self.batch_size, rng, _NEGATIVES)

    def __call__(self, queries: Tensor, items: Tensor, batch: Any) -> Tensor:
        """The loss of one batch."""
        users, positives, negatives = _tensors(batch, queries.device)
        own = queries[users] / self.temperature
        up = (own * items[positives]).sum(dim=1, keepdim=True)  # (b, 1)
        down = torch.einsum("bw,bnw->bn", own, items[negatives])  # (b, 10)
        return self.combined(up, down)

    def combined(self, up: Tensor, down: Tensor) -> Tensor:
        """The loss from scores of interactions ``(b, 1)`` and of items without ``(b, n)``."""
        ranking = (0.2 - up.sigmoid() + down.sigmoid()).clamp(min=0).mean()
        return _link_entropy(up, down) + 0.5 * ranking


class HashGnnCode(HashGnn):
    """HashGNN's loss as its authors' code has it: 0.1 of the same cross-entropy, plus ``mean −ln σ(ŷ_ui − ŷ_uj)``."""

    def combined(self, up: Tensor, down: Tensor) -> Tensor:
        """The loss from scores of interactions ``(b, 1)`` and of items without ``(b, n)``."""
        return 0.1 * _link_entropy(up, down) - nn.functional.logsigmoid(up - down).mean()


class Softmax:
    """Softmax over the catalogue: ``Σ w_u (ln Σ_j exp(ŷ_uj / τ) − ŷ_ui / τ) / Σ w_u`` over the interactions (u, i)
    of a batch of users.

    ``w_u = n_u^e`` for a user with n_u interactions. A catalogue of more than ``candidates`` items is sampled: the
    batch's own items enter exactly, and uniform others stand for the rest with weight ``(n_items − exact) /
    sampled``, so that the sum inside the logarithm is unbiased.

    Args:
        config: ``batch_users``, ``temperature``, ``user_weight``, ``candidates``.
        similarity: the same under both.
    """

    def __init__(self, config: TrainConfig, similarity: str) -> None:
        self.batch_users = positive_int("train.batch_users", config.batch_users)
        self.candidates = positive_int("train.candidates", config.candidates)
        if not math.isfinite(config.user_weight):
            raise ArgumentError(f"train.user_weight must be finite (got {config.user_weight!r})")
        self.temperature, self.user_weight = _temperature(config.temperature), config.user_weight

    def steps(self, data: Interactions) -> int:
        """Batches in an epoch."""
        return max(1, round(np.count_nonzero(np.diff(data.indptr)) / self.batch_users))

    def batches(self, data: Interactions, rng: np.random.Generator) -> Iterator[Any]:
        """(users, rows, positives, candidates, log weights of the candidates) of one epoch; the last two None for
        the whole catalogue.
        """
        for users, rows, positives in user_batches(data, self.batch_users, rng):
            if data.n_items <= self.candidates:
                yield users, rows, positives, None, None
                continue
            exact, columns = np.unique(positives, return_inverse=True)
            others = np.setdiff1d(rng.choice(data.n_items, self.candidates, replace=False), exact, assume_unique=True)
            log_weight = np.zeros(len(exact) + len(others), np.float32)
            log_weight[len(exact) :] = np.log(max(data.n_items - len(exact), 1) / max(len(others), 1))
            yield users, rows, columns, np.concatenate((exact, others)), log_weight

    def __call__(self, queries: Tensor, items: Tensor, batch: Any) -> Tensor:
        """The loss of one batch."""
        users, rows, columns, candidates, log_weight = _tensors(batch, queries.device)
        pool = items if candidates is None else items[candidates]
        weights = torch.bincount(rows, minlength=len(users)).to(queries) ** self.user_weight
        return _cross_entropy(queries[users] / self.temperature, pool, rows, columns, weights, log_weight)

    def regularise(self, encoder: nn.Module, batch: Any) -> float:
        """Nothing: the temperature on the cosine is this loss's regulariser."""
        return 0.0


class Distillation(Softmax):
    """The scores of a teacher, a float model: ``Σ w_u n_u KL(t_u ‖ s_u) / Σ w_u n_u`` up to a constant, over the users
    of a batch, with ``t_u = softmax(ŷ^teacher_u / τ)`` and ``s_u = softmax(ŷ_u / τ)`` over the catalogue, or over its
    candidates.

    Where a training fits what users have, this fits what the teacher has learned from it: a code that is too short for
    all of that gives up what matters least to the best of each list. Batches, weights and candidates are the softmax's.
    Source: Hinton, Vinyals, Dean: *Distilling the knowledge in a neural network*, 2015.

    Args:
        config: ``batch_users``, ``joint_temperature``, ``user_weight``, ``candidates``.
        similarity: the same under both.

    Attributes:
        teacher: queries ``(n_users, dim)`` and items ``(n_items, dim)``, to be set before the first batch.
    """

    def __init__(self, config: TrainConfig, similarity: str) -> None:
        super().__init__(config, similarity)
        self.temperature = _temperature(config.joint_temperature, "joint_temperature")
        self.teacher: tuple[Tensor, Tensor] | None = None

    def __call__(self, queries: Tensor, items: Tensor, batch: Any) -> Tensor:
        """The loss of one batch, the teacher's entropy included."""
        if self.teacher is None:
            raise ArgumentError("teacher must be set before the first batch (got None)")
        users, rows, _, candidates, log_weight = _tensors(batch, queries.device)
        wanted, pools = self.teacher[0][users], [self.teacher[1], items]
        if candidates is not None:
            pools = [pool[candidates] for pool in pools]
        targets = (wanted / self.temperature) @ pools[0].T
        if log_weight is not None:
            targets += log_weight
        weights = torch.bincount(rows, minlength=len(users)).to(queries) ** (1 + self.user_weight)
        return _divergence(queries[users] / self.temperature, pools[1], targets.softmax(dim=1), weights, log_weight)


class _CrossEntropy(torch.autograd.Function):
    """``Σ w_u (ln Σ_j exp(s_uj + l_j) − s_ui) / Σ w_u`` over positives (u, i), with ``s = queries · itemsᵀ``.

    The scores are by far the largest array of a step. Their gradient, ``(w_u n_u softmax_u − w_u [positive]) / Σ w``,
    needs no more than the scores themselves, so it takes their place in memory at once, and nothing is read twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        items: Tensor,
        rows: Tensor,
        columns: Tensor,
        weights: Tensor,
        log_weight: Tensor | None,
    ) -> Tensor:
        counts = torch.bincount(rows, minlength=len(queries)).to(queries)
        share = weights / (weights * counts).sum()  # of each of a user's interactions
        scores = queries @ items.T
        positives = scores[rows, columns]
        if log_weight is not None:
            scores += log_weight
        top = scores.amax(dim=1, keepdim=True)
        sums = scores.sub_(top).exp_().sum(dim=1, keepdim=True)
        loss = (share[rows] * ((sums.log() + top)[rows, 0] - positives)).sum()
        scores *= (share * counts)[:, None] / sums
        scores.index_put_((rows, columns), -share[rows], accumulate=True)
        ctx.save_for_backward(queries, items, scores)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        queries, items, scores = ctx.saved_tensors
        return gradient * (scores @ items), gradient * (scores.T @ queries), None, None, None, None


class _Divergence(torch.autograd.Function):
    """``Σ_u w_u Σ_j −t_uj ln s_uj / Σ w_u``, with ``s_u`` the softmax over j of ``queries · itemsᵀ + l_j``; its
    gradient takes the scores' place, as above.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, items: Tensor, targets: Tensor, weights: Tensor, log_weight: Tensor | None
    ) -> Tensor:
        share = (weights / weights.sum())[:, None]
        scores = queries @ items.T
        if log_weight is not None:
            scores += log_weight
        scores -= scores.logsumexp(dim=1, keepdim=True)
        loss = -(share[:, 0] * torch.einsum("uj,uj->u", targets, scores)).sum()
        scores.exp_().sub_(targets).mul_(share)
        ctx.save_for_backward(queries, items, scores)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        queries, items, scores = ctx.saved_tensors
        return gradient * (scores @ items), gradient * (scores.T @ queries), None, None, None


# PyTorch leaves both untyped
_cross_entropy: Callable[..., Tensor] = _CrossEntropy.apply
_divergence: Callable[..., Tensor] = _Divergence.apply

LOSSES: dict[str, Callable[[TrainConfig, str], Bpr | Softmax]] = {
    "softmax": Softmax,
    "bpr": Bpr,
    "hashgnn": HashGnn,
    "hashgnn-code": HashGnnCode,
}


def _link_entropy(up: Tensor, down: Tensor) -> Tensor:
    """Mean cross-entropy over interactions and items without interaction alike."""
    return -nn.functional.logsigmoid(torch.cat((up, -down), dim=1)).mean()


def _temperature(value: float, name: str = "temperature") -> float:
    if not 0 < value < math.inf:
        raise ArgumentError(f"train.{name} must be positive and finite (got {value!r})")
    return value


def _tensors(batch: Any, device: torch.device) -> list[Any]:
    return [None if part is None else torch.from_numpy(part).to(device) for part in batch]
