"""Where a training stands."""

from __future__ import annotations

import sys
from dataclasses import dataclass

__all__ = ["Progress", "peak_memory"]


@dataclass(frozen=True)
class Progress:
    """Where the training stands; reported after every step, with ``metric`` filled in after a validation.

    Attributes:
        stage: of a student ``labels``, ``distillation``, ``codes`` or ``histories``; else ``encoder`` or ``joint``.
        epoch: epochs of this stage that are complete.
        epochs: epochs of this stage, at most.
        step: steps done in all stages.
        steps: steps in all stages, at most.
        loss: mean loss of the epoch so far.
        metric: validation metric, where this report follows a validation.
        epoch_done: whether this report ends an epoch.
        seconds: since the training began, earlier runs of a resumed training included.
        memory: bytes of the process at its peak so far, with what later stages are known to add; None where this system
            does not tell.
    """

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    metric: float | None
    epoch_done: bool
    seconds: float
    memory: int | None = None


def peak_memory(ahead: int = 0) -> int | None:
    """Bytes that this process has held at most, and ``ahead`` more; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak * (1 if sys.platform == "darwin" else 1024)) + ahead
