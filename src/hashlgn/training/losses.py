"""Losses over queries and items, each with the batches it learns from. ``LOSSES`` is the table of choices.

``batches`` yields what one epoch needs, ``steps`` says how many there are, and the call turns one batch into a
scalar.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hashlgn.config import TrainConfig
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError
from hashlgn.training.graph import Graph
from hashlgn.training.objectives import divergence, label_loss
from hashlgn.training.sampling import interaction_batches, user_batches

if TYPE_CHECKING:  # a model is checked against the table of losses when it is made
    from hashlgn.training.model import Model

__all__ = ["LOSSES", "Bpr", "Distillation", "HashGnn", "HashGnnCode", "Loss", "Softmax"]

_NEGATIVES = 10  # items without interaction for each interaction, as in HashGNN's code


class Loss:
    """A loss and the batches it learns from; built as ``LOSSES[name](config, similarity)``."""

    # Whether it learns from a float model, and so belongs to the joint training alone
    needs_teacher: ClassVar[bool] = False

    def __init__(self, config: TrainConfig, similarity: str) -> None:
        raise NotImplementedError

    def prepare(self, model: Model, graph: Graph) -> None:
        """Take what the loss needs from the model as it is before the stage begins; nothing by default."""

    def state(self) -> tuple[Tensor, ...]:
        """What ``prepare`` has taken, for a checkpoint."""
        return ()

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Go on from what a checkpoint kept."""

    def steps(self, data: Interactions) -> int:
        """Batches per epoch."""
        raise NotImplementedError

    def batches(self, data: Interactions, rng: np.random.Generator) -> Iterator[Any]:
        """The batches of one epoch."""
        raise NotImplementedError

    def __call__(self, queries: Tensor, items: Tensor, batch: Any) -> Tensor:
        """The loss of one batch, a scalar; ``queries (n_users, width)``, ``items (n_items, width)``."""
        raise NotImplementedError

    def regularize(self, encoder: nn.Module, batch: Any) -> Tensor | float:
        """What the loss adds for the encoder's own parameters; nothing by default."""
        return 0.0


class Bpr(Loss):
    """Bayesian personalized ranking, the paper's loss: ``mean −ln σ((ŷ_ui − ŷ_uj) / τ) + λ R``.

    The mean is over the interactions (u, i) of a batch, each with one uniform item j without interaction. ``R =
    Σ (‖e_u^(0)‖² + ‖e_i^(0)‖² + ‖e_j^(0)‖²) / b`` is over the rows of the batch of b triples. τ is 1 under the inner
    product. Source: Rendle et al., *BPR*, UAI 2009.

    λ in other conventions: the code of LightGCN's authors has ``λ R / 2``, so the same training has twice our λ there.
    The paper's equation 8 adds ``λ ‖E^(0)‖²``, every row once, to the *sum* over all triples of a pass. Here row r
    counts in each of the ``c_r`` triples of a pass that hold it, so our λ is the paper's ``λ = c_r λ_ours`` row by row,
    on average ``3 n / (n_users + n_items)`` times ours for n interactions.
    """

    def __init__(self, config: TrainConfig, similarity: str) -> None:
        self.batch_size = config.batch_size
        self.l2 = config.l2
        self.temperature = config.temperature if similarity == "cosine" else 1.0

    def steps(self, data: Interactions) -> int:
        """Batches per epoch."""
        return -(-len(data) // self.batch_size)

    def batches(self, data: Interactions, rng: np.random.Generator) -> Iterator[Any]:
        """Triples (users, positives, negatives) of one epoch."""
        return interaction_batches(data, self.batch_size, rng)

    def __call__(self, queries: Tensor, items: Tensor, batch: Any) -> Tensor:
        """The ranking term of one batch."""
        users, positives, negatives = _tensors(batch, queries.device)
        difference = (queries[users] * (items[positives] - items[negatives])).sum(dim=1)
        return -nn.functional.logsigmoid(difference / self.temperature).mean()

    def regularize(self, encoder: nn.Module, batch: Any) -> Tensor | float:
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
    """

    def __init__(self, config: TrainConfig, similarity: str) -> None:
        super().__init__(config, similarity)
        self.temperature = config.temperature

    def batches(self, data: Interactions, rng: np.random.Generator) -> Iterator[Any]:
        """(users, positives, negatives (b, 10)) of one epoch."""
        return interaction_batches(data, self.batch_size, rng, _NEGATIVES)

    def __call__(self, queries: Tensor, items: Tensor, batch: Any) -> Tensor:
        """The loss of one batch."""
        users, positives, negatives = _tensors(batch, queries.device)
        own = queries[users] / self.temperature
        up = (own * items[positives]).sum(dim=1, keepdim=True)  # (b, 1)
        down = (own.unsqueeze(1) * items[negatives]).sum(dim=2)  # (b, 10)
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


class Softmax(Loss):
    """Softmax over the catalogue: ``Σ w_u (ln Σ_j exp(ŷ_uj / τ) − ŷ_ui / τ) / Σ w_u`` over the interactions (u, i)
    of a batch of users.

    ``w_u = n_u^e`` for a user with n_u interactions. A catalogue of more than ``candidates`` items is sampled: the
    batch's own items enter exactly, and uniform others stand for the rest with weight ``(n_items − exact) /
    sampled``, so that the sum inside the logarithm is unbiased. The temperature on the cosine is this loss's only
    regularization.
    """

    def __init__(self, config: TrainConfig, similarity: str) -> None:
        self.batch_users, self.candidates = config.batch_users, config.candidates
        self.temperature, self.user_weight = config.temperature, config.user_weight

    def steps(self, data: Interactions) -> int:
        """Batches per epoch."""
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
        return label_loss(queries[users] / self.temperature, pool, (rows, columns), None, weights, log_weight)


class Distillation(Softmax):
    """Divergence from a teacher, the float model as it was before the codes joined: ``Σ w_u n_u KL(t_u ‖ s_u) / Σ w_u
    n_u`` up to a constant, over the users of a batch, with ``t_u = softmax(ŷ^teacher_u / τ)`` and ``s_u = softmax(ŷ_u /
    τ)`` over the catalogue, or over its candidates.

    The softmax on interactions fits what users have. This loss fits what the teacher has learned from that. A code that
    is too short for all of it then gives up the items that matter least at the top of each list. Batches, weights and
    candidates are the softmax's. Source: Hinton, Vinyals, Dean: *Distilling the knowledge in a neural network*, 2015.
    """

    needs_teacher: ClassVar[bool] = True

    def __init__(self, config: TrainConfig, similarity: str) -> None:
        super().__init__(config, similarity)
        self.temperature = config.joint_temperature
        self._teacher: tuple[Tensor, ...] = ()  # queries (n_users, dim) and items (n_items, dim)

    @torch.no_grad()
    def prepare(self, model: Model, graph: Graph) -> None:
        """Take the model's present embeddings as the teacher."""
        self._teacher = model.eval().embeddings(graph)

    def state(self) -> tuple[Tensor, ...]:
        """The teacher."""
        return self._teacher

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Take the teacher of a checkpoint."""
        self._teacher = state

    def __call__(self, queries: Tensor, items: Tensor, batch: Any) -> Tensor:
        """The loss of one batch, the teacher's entropy included."""
        if not self._teacher:
            raise ArgumentError("prepare must be called before the first batch: there is no teacher")
        users, rows, _, candidates, log_weight = _tensors(batch, queries.device)
        teacher_queries, teacher_items = self._teacher
        if candidates is not None:
            teacher_items, items = teacher_items[candidates], items[candidates]
        wanted = (teacher_queries[users] / self.temperature) @ teacher_items.T
        weights = torch.bincount(rows, minlength=len(users)).to(queries) ** (1 + self.user_weight)
        return divergence(queries[users] / self.temperature, items, wanted, None, weights, log_weight)


LOSSES: dict[str, type[Loss]] = {
    "softmax": Softmax,
    "distillation": Distillation,
    "bpr": Bpr,
    "hashgnn": HashGnn,
    "hashgnn-code": HashGnnCode,
}


def _link_entropy(up: Tensor, down: Tensor) -> Tensor:
    """Mean cross-entropy over interactions and items without interaction alike."""
    return -nn.functional.logsigmoid(torch.cat((up, -down), dim=1)).mean()


def _tensors(batch: Any, device: torch.device) -> list[Any]:
    return [None if part is None else torch.from_numpy(part).to(device) for part in batch]
