"""The training loop of a student, the same for every stage: batches of users, whose histories alone are gathered."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError
from hashlgn.training.objectives import divergence, label_loss
from hashlgn.training.student.batches import Batch, Candidates, History, candidates, user_batches
from hashlgn.training.student.forms import Side
from hashlgn.training.student.optimizer import RowAdam
from hashlgn.training.student.plan import steps_of
from hashlgn.training.student.teachers import Teacher

__all__ = ["Data", "Distillation", "Labels", "Objective", "fit"]

_FEWEST_TOLD = 20  # items of a history, on average, that thinning leaves


@dataclass(frozen=True)
class Data:
    """What a stage is trained on, and how."""

    interactions: Interactions  # histories of the users
    strengths: npt.NDArray[np.float32] | None  # ``a_ui``, one for each interaction, or None for 1
    batch_users: int  # users per step
    chances: Tensor | None  # of each item to be scored in a step, ``(n_items,)``; all are scored where None
    device: torch.device  # where the arithmetic runs
    seed: int  # fixes every draw

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return steps_of(int(np.count_nonzero(np.diff(self.interactions.indptr))), self.batch_users)

    def batch(self, users: npt.NDArray[np.int64]) -> Batch:
        """Histories of some users."""
        return Batch.of(self.interactions, users, self.strengths, self.device)


class Objective(Protocol):
    """A loss of a batch."""

    def split(self, batch: Batch, rng: np.random.Generator) -> tuple[History, History]:
        """The part of the histories that the student is told, and what it is asked for."""

    def certain(self, batch: Batch, asked: History) -> Tensor:
        """Items that are scored for certain where a sample of the catalogue is, ``(n,)`` int64, some of them twice."""

    def loss(
        self, queries: Tensor, items: Tensor, batch: Batch, told: History, asked: History, among: Candidates
    ) -> Tensor:
        """The loss from queries ``(b, dim)`` and vectors of the candidates ``(n, dim)``."""


@dataclass(frozen=True)
class Labels:
    """Softmax on interactions that the query has not been told: each step hides a random share of every history, and
    asks for it among all items but those that were told.

    An interaction that is part of the query is no evidence that the model can predict it. Trained on those as well, a
    student learns to find what it was given.
    """

    temperature: float  # τ of the softmax
    hidden: float  # share of a history that is hidden, 0 … 1
    user_weight: float  # exponent e of the weight ``d_u^e`` on each of a user's interactions, d_u their number

    def split(self, batch: Batch, rng: np.random.Generator) -> tuple[History, History]:
        """See ``Objective``."""
        history = batch.history
        mask = torch.from_numpy(rng.random(len(history.items), np.float32) >= self.hidden).to(history.items.device)
        return history.part(mask), history.part(~mask)

    def certain(self, batch: Batch, asked: History) -> Tensor:
        """See ``Objective``: what is asked for."""
        return asked.items

    def loss(
        self, queries: Tensor, items: Tensor, batch: Batch, told: History, asked: History, among: Candidates
    ) -> Tensor:
        """See ``Objective``."""
        weights = torch.bincount(batch.history.rows, minlength=len(queries)).to(queries) ** self.user_weight
        targets, known = among.entries(asked), among.entries(told)
        return label_loss(queries / self.temperature, items, targets, known, weights, among.log_weight)


@dataclass(frozen=True)
class Distillation:
    """Divergence from a teacher's softmax over the items that a query has not been told. Users count by the square root
    of the number of their items.

    A teacher is a function of histories, and people's histories are few points to learn it from. So each step tells
    student and teacher a random part of every history. From whole histories the student learns these people, and
    follows the teacher less for others.
    """

    temperature: float  # τ of the student; the teacher's scores are taken as they are
    teacher: Teacher  # what is learned from
    # A history of d items keeps a random share of them, uniform between ``max(1 − thinning, 20 / d)`` and 1: short
    # histories stay as they are, since each of their items says much
    thinning: float
    # The teacher's best items of each user, ``(n_users, m)`` int64, or None. Most of the divergence is theirs: with
    # them in each sample of the catalogue, half of the sample is enough
    likely: Tensor | None = None

    def split(self, batch: Batch, rng: np.random.Generator) -> tuple[History, History]:
        """See ``Objective``: nothing is asked for."""
        history = batch.history
        counts = torch.bincount(history.rows, minlength=history.size)
        fewest = (_FEWEST_TOLD / counts.clamp(min=_FEWEST_TOLD)).clamp(min=1 - self.thinning)
        draws = (torch.from_numpy(rng.random(size)).to(fewest) for size in (history.size, len(history.items)))
        kept = fewest + (1 - fewest) * next(draws)
        told = next(draws) < kept[history.rows]
        return history.part(told), history.part(torch.zeros_like(told))

    def certain(self, batch: Batch, asked: History) -> Tensor:
        """See ``Objective``: what is likely."""
        if self.likely is None:
            return asked.items
        return self.likely.index_select(0, torch.from_numpy(batch.users)).flatten().to(asked.items.device)

    def loss(
        self, queries: Tensor, items: Tensor, batch: Batch, told: History, asked: History, among: Candidates
    ) -> Tensor:
        """See ``Objective``."""
        weights = torch.bincount(batch.history.rows, minlength=len(queries)).to(queries).sqrt()
        with torch.no_grad():
            wanted = self.teacher.scores(replace(batch, history=told), among)
        return divergence(queries / self.temperature, items, wanted, among.entries(told), weights, among.log_weight)


def fit(
    data: Data,
    objective: Objective,
    histories: Side,
    answers: Side,
    epochs: int,
    rates: tuple[Sequence[float], Sequence[float]],
    report: Callable[[int, int, float], None],
    setting: str = "student.lr",
) -> None:
    """Train the tables of both sides in place.

    A side whose rates are empty stays as it is.

    Args:
        data: what to train on.
        objective: the loss.
        histories: vectors ``p``.
        answers: vectors ``o``.
        epochs: passes over the users; the rates fall to 0 by a cosine.
        rates: Adam's rate for each table of the histories, and of the answers.
        report: called after every step with the epoch, the steps done in it and the mean loss so far.
        setting: what the rates are called in errors.

    Raises:
        ArgumentError: the loss is no longer finite.
    """
    n_items, steps = data.interactions.n_items, data.steps
    tables = [*(histories.tables if rates[0] else []), *answers.tables]
    optimizer = RowAdam(tables, [*rates[0], *rates[1]])
    places = torch.full((n_items,), -1, device=data.device)
    fixed = None if rates[0] else histories.vectors()
    for epoch in range(epochs):
        rng = np.random.default_rng([data.seed, epoch])
        total = 0.0
        for done, users in enumerate(user_batches(data.interactions, data.batch_users, rng)):
            batch = data.batch(users)
            told, asked = objective.split(batch, rng)
            certain: Tensor = torch.unique(objective.certain(batch, asked))
            among = candidates(n_items, data.chances, certain, places, rng)
            used, columns = (None, None) if among.items is None else torch.unique(told.items, return_inverse=True)
            if fixed is None:
                p = histories.rows(used, optimizer, 0)
            else:
                p = fixed if used is None else fixed.index_select(0, used)
            o = answers.rows(among.items, optimizer, len(rates[0]))
            value = objective.loss(told.queries(p, columns), o, batch, told, asked, among)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step(0.5 * (1 + math.cos(math.pi * (epoch + done / steps) / epochs)))
            if among.items is not None:
                places[among.items] = -1
            total += value.item()
            if not math.isfinite(total):
                raise ArgumentError(f"{setting} must be smaller (the loss became {total} in epoch {epoch + 1})")
            report(epoch, done + 1, total / (done + 1))
