"""A training's state in one file, replaced whole after every epoch, so that a stopped training goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError
from hashlgn.utils.storage import reason, replaced_file

__all__ = ["Best", "Checkpoint", "identity"]


def identity(
    data: Interactions, config: Config, start: Mapping[str, np.ndarray[Any, Any]] | None = None
) -> dict[str, str]:
    """What makes a training this one, for its checkpoint."""
    digest = hashlib.sha256()
    for name, value in sorted((start or {}).items()):
        digest.update(name.encode() + np.ascontiguousarray(value, np.float32).tobytes())
    versions = f"hashlgn {version('hashlgn')}, torch {torch.__version__}"
    start_digest = digest.hexdigest() if start else ""
    return {
        "config": repr(config),
        "data": data.fingerprint(numbered=True),
        "start": start_digest,
        "versions": versions,
    }


class Checkpoint:
    """Reads and writes the state of one training.

    Args:
        path: the file, or None to keep nothing.
        identity: what makes a training this one (configuration, data); a state with another identity is refused.
    """

    def __init__(self, path: str | Path | None, identity: dict[str, str] | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.identity = identity or {}

    def load(self) -> dict[str, Any] | None:
        """The state last saved, or None where there is none.

        Raises:
            ArgumentError: the file is damaged, or belongs to another training.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler fails on damaged files in every way there is
            raise ArgumentError(
                f"checkpoint must be a file written by a training (got {str(self.path)!r}: damaged)"
            ) from error
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            raise ArgumentError(
                f"checkpoint must belong to the same data and configuration (got {str(self.path)!r}, from another "
                "training: delete it to begin anew)"
            )
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Put ``state`` in place of what was saved before.

        Raises:
            ArgumentError: the file cannot be written; what was saved before is still there.
        """
        if self.path is None:
            return
        try:
            with replaced_file(self.path) as temporary:
                torch.save({"identity": self.identity} | state, temporary)
        except (OSError, RuntimeError) as error:  # PyTorch's archive writer reports a full disk as a RuntimeError
            raise ArgumentError(f"checkpoint must be writable (got {str(self.path)!r}: {reason(error)})") from error

    def remove(self) -> None:
        """Delete the file, and what a killed training left beside it."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            for leftover in self.path.parent.glob(f".{self.path.name}.writing-*"):
                leftover.unlink(missing_ok=True)


class Best:
    """The best weights of a stage so far, and how many validations ago they were.

    Args:
        patience: validations without a better value before the stage is exhausted.
    """

    def __init__(self, patience: int) -> None:
        self.patience, self.waited = patience, 0
        self.value: float | None = None
        self.weights: dict[str, torch.Tensor] | None = None

    @property
    def exhausted(self) -> bool:
        """Whether the stage has waited long enough."""
        return self.waited >= self.patience

    def offer(self, value: float | None, model: nn.Module) -> None:
        """Keep the model's weights if they are better; the first of equals stays. None: there is no validation."""
        if value is None:
            return
        if self.value is None or value > self.value:
            self.value, self.waited = value, 0
            self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        else:
            self.waited += 1

    def load_into(self, model: nn.Module) -> None:
        """Give the model the best weights; nothing where none were offered."""
        if self.weights is not None:
            model.load_state_dict(self.weights)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"value": self.value, "waited": self.waited, "weights": self.weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.value, self.waited, self.weights = state["value"], state["waited"], state["weights"]
