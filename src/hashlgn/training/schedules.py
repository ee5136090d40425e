"""What changes while a stage runs: the share of the learning rates that is left, and HashGNN's guidance."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["SCHEDULES", "guidance"]

# Share of the learning rate by the share of the stage that is done.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "constant": lambda progress: 1.0,
}

_GUIDED_STEPS, _FALLS = 5000, 20  # steps until guidance ends, and in how many falls


def guidance(step: int, steps: int) -> float:
    """Probability that a row passes a hash without becoming signs (HashGNN).

    It is 1 at first and falls by 0.05 every 250 steps, so that the first 5,000 steps are guided. A training of fewer
    than 10,000 steps is guided in its first half, with as many falls.

    Source: Tan et al., *Learning to Hash with Graph Neural Networks for Recommender Systems*, WWW 2020.
    """
    falls = 2 * _FALLS * step // min(2 * _GUIDED_STEPS, steps)
    return max(0.0, 1 - falls / _FALLS)
