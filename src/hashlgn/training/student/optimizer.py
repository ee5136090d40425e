"""Adam on the rows that a step has used: its cost does not grow with the tables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["RowAdam"]

_MEAN, _SQUARE, _TINY = 0.9, 0.999, 1e-8


class RowAdam:
    """Adam (Kingma and Ba, 2015) on tables of which a step uses some rows: those alone move, and their moments.

    Rows are read by ``index_select``, which copies them five times as fast as an index in brackets.

    Where all rows are used it is Adam; else it is what PyTorch calls ``SparseAdam``, without sparse tensors.

    Args:
        tables: the parameters, changed in place.
        rates: a learning rate for each.
    """

    def __init__(self, tables: Sequence[Tensor], rates: Sequence[float]) -> None:
        self._tables, self._rates, self._steps = list(tables), list(rates), 0
        self._moments = [(torch.zeros_like(table), torch.zeros_like(table)) for table in tables]
        self._taken: list[tuple[int, Tensor | None, Tensor]] = []

    def take(self, number: int, rows: Tensor | None = None) -> Tensor:
        """Rows of a table as a leaf whose gradient ``step`` will apply; all of them where None.

        Args:
            number: of the table.
            rows: int64, each at most once.
        """
        table = self._tables[number]
        leaf = (table if rows is None else table.index_select(0, rows)).detach().requires_grad_()
        self._taken.append((number, rows, leaf))
        return leaf

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Apply the gradients of what was taken, at ``factor`` times the rates."""
        self._steps += 1
        growth, size = 1 - _MEAN**self._steps, (1 - _SQUARE**self._steps) ** 0.5
        for number, rows, leaf in self._taken:
            if leaf.grad is None:
                continue
            first, second = (part if rows is None else part.index_select(0, rows) for part in self._moments[number])
            first.lerp_(leaf.grad, 1 - _MEAN)
            second.mul_(_SQUARE).addcmul_(leaf.grad, leaf.grad, value=1 - _SQUARE)
            # first / growth / (second^½ / size + tiny), in as few passes as there are
            deviation = second.sqrt().add_(_TINY * size)
            rate = factor * self._rates[number] * size / growth
            if rows is None:
                self._tables[number].addcdiv_(first, deviation, value=-rate)
            else:
                moved = torch.addcdiv(leaf, first, deviation, value=-rate)
                for part, changed in zip(
                    (self._tables[number], *self._moments[number]), (moved, first, second), strict=True
                ):
                    part.index_copy_(0, rows, changed)
        self._taken.clear()
