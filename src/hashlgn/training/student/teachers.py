"""Teachers: whatever scores items for a batch of users, a batch at a time, so that memory never holds users × items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError
from hashlgn.training.student.batches import Batch, Candidates
from hashlgn.training.student.forms import Side, Vectors

__all__ = [
    "EASE_ITEMS",
    "Ease",
    "Embeddings",
    "FloatStudent",
    "Mixture",
    "Popularity",
    "Teacher",
    "best_items",
    "logarithm",
]

_SHARPNESS, _SMALLEST = 2.0, 0.1  # of ``logarithm``
EASE_ITEMS = 10_000  # its inverse takes time with the cube of their number: about half a minute on two threads


class Teacher(Protocol):
    """Scores of items for users."""

    @property
    def logarithmic(self) -> bool:
        """Whether scores are logarithms of chances, up to a constant per user, as a softmax takes them."""

    def scores(self, batch: Batch, among: Candidates) -> Tensor:
        """Scores of the candidates, ``(users of the batch, candidates)``; higher is better."""


@dataclass(frozen=True)
class FloatStudent:
    """A student as it is now: ``cos(q_u, p) · |o_i| / τ``, what its own softmax takes."""

    histories: Side  # vectors ``p``
    answers: Side  # vectors ``o``
    temperature: float  # τ
    logarithmic = True

    def copy(self) -> FloatStudent:
        """The same vectors, free, in tables of their own."""
        return FloatStudent(
            Vectors(self.histories.vectors().clone()), Vectors(self.answers.vectors().clone()), self.temperature
        )

    def scores(self, batch: Batch, among: Candidates) -> Tensor:
        """See ``Teacher``."""
        queries = batch.history.queries(self.histories.vectors()) / self.temperature
        return queries @ self.answers.vectors(among.items).T


class Ease:
    """EASE with weighted users: scores ``X B`` with ``B = I − P / diag(P)``, ``P = (Xᵀ W X + λ I)^-1``.

    Source: Steck, *Embarrassingly Shallow Autoencoders for Sparse Data*, WWW 2019, there with ``W = I``. With ``W =
    diag(d_u^-1/2)``, d_u the number of a user's items, users with long histories count less.

    Args:
        data: interactions to learn from.
        penalty: λ.
        device: where the scores are computed.

    Raises:
        ArgumentError: the penalty is too small for the inverse.
    """

    logarithmic = False

    def __init__(self, data: Interactions, penalty: float, device: torch.device) -> None:
        weight = np.repeat(np.maximum(np.diff(data.indptr), 1) ** -0.25, np.diff(data.indptr)).astype(np.float32)
        x = sparse.csr_matrix((weight, data.indices, data.indptr), shape=(data.n_users, data.n_items))
        gram = torch.from_numpy((x.T @ x).toarray()).to(device)
        gram.diagonal().add_(penalty)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if int(failed):
            raise ArgumentError(
                f"student.ease_penalty must be larger for these data, whose inverse rounding spoils (got {penalty:g})"
            )
        inverse = torch.cholesky_inverse(factor)
        # By rows: a bag of rows of another order would gather all of them first.
        self.weights = inverse.div_(-inverse.diagonal().clone()).contiguous()
        self.weights.fill_diagonal_(0.0)

    def scores(self, batch: Batch, among: Candidates) -> Tensor:
        """See ``Teacher``; strengths of interactions do not enter."""
        history = batch.history
        bounds = torch.searchsorted(history.rows, torch.arange(history.size + 1, device=history.rows.device))
        all_scores: Tensor = nn.functional.embedding_bag(
            history.items, self.weights, bounds, mode="sum", include_last_offset=True
        )
        return all_scores if among.items is None else all_scores.index_select(1, among.items)


@dataclass(frozen=True)
class Embeddings:
    """Vectors of users and items, such as an encoder gives: ``q_u · o_i / τ``, or the logarithm of it."""

    users: Tensor  # q, ``(n_users, dim)``
    items: Tensor  # o, ``(n_items, dim)``
    temperature: float | None  # τ of the softmax that it was trained by; None where scores grow with the chance itself
    logarithmic = True

    def scores(self, batch: Batch, among: Candidates) -> Tensor:
        """See ``Teacher``: users have one vector each, whatever part of their history is told."""
        items = self.items if among.items is None else self.items.index_select(0, among.items)
        products = self.users.index_select(0, torch.from_numpy(batch.users).to(items.device)) @ items.T
        return logarithm(products) if self.temperature is None else products.div_(self.temperature)


@dataclass(frozen=True)
class Popularity:
    """The logarithm of how many users have an item, for everybody."""

    log_degree: Tensor  # ``(n_items,)``
    logarithmic = True

    def scores(self, batch: Batch, among: Candidates) -> Tensor:
        """See ``Teacher``."""
        scores = self.log_degree if among.items is None else self.log_degree.index_select(0, among.items)
        return scores.repeat(len(batch.users), 1)


@dataclass(frozen=True)
class Mixture:
    """Weighted sum of the scores of several teachers."""

    teachers: Sequence[Teacher]  # the teachers
    shares: Sequence[float]  # weight of each
    # Whether the scores of each are standardised first, user by user over the items that the user does not have
    standard: bool = True
    logarithmic = True  # as it is taken

    def scores(self, batch: Batch, among: Candidates) -> Tensor:
        """See ``Teacher``."""
        total = torch.zeros((), device=batch.history.rows.device)
        for teacher, share in zip(self.teachers, self.shares, strict=True):
            if share:
                scores = teacher.scores(batch, among)
                total = (standardised(scores, batch, among) if self.standard else scores).mul_(share) + total
        return total


@torch.no_grad()
def best_items(teacher: Teacher, batches: Iterable[Batch], n_users: int, n_items: int, count: int) -> Tensor:
    """The items that a teacher scores highest for each user among those that the user does not have, ``(n_users,
    count)`` int64; item 0 for users who are in no batch.
    """
    found = torch.zeros(n_users, count, dtype=torch.int64)
    for batch in batches:
        history = batch.history
        everything = Candidates(None, torch.zeros(n_items, device=history.items.device), None)
        scores = teacher.scores(batch, everything)
        scores[history.rows, history.items] = -torch.inf
        found[torch.from_numpy(batch.users)] = scores.topk(count, dim=1, sorted=False).indices.cpu()
    return found


def logarithm(linear: Tensor) -> Tensor:
    """``2 ln(max(s, 0) / deviation + 0.1)`` of scores that grow with the chance of an interaction, in place."""
    # The mean square and the mean, each in one pass: PyTorch's own deviation takes ten times as long.
    square = torch.linalg.vector_norm(linear, dim=1, keepdim=True).square() / linear.shape[1]
    deviation = (square - linear.mean(dim=1, keepdim=True).square()).clamp(min=1e-24).sqrt()
    return linear.clamp_(min=0).div_(deviation).add_(_SMALLEST).log_().mul_(_SHARPNESS)


def standardised(scores: Tensor, batch: Batch, among: Candidates) -> Tensor:
    """Scores with mean 0 and deviation 1 over the items that a user does not have, in place; 0 for what they have."""
    rows, columns = among.entries(batch.history)
    unseen = scores.shape[1] - torch.bincount(rows, minlength=len(scores)).to(scores)[:, None]
    unseen.clamp_(min=1)
    scores[rows, columns] = 0.0
    mean = scores.sum(dim=1, keepdim=True) / unseen
    variance = scores.square().sum(dim=1, keepdim=True) / unseen - mean.square()
    scores.sub_(mean).div_(variance.clamp(min=1e-12).sqrt())
    scores[rows, columns] = 0.0
    return scores
