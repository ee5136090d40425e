"""A training's state in one file, replaced whole after every epoch, so that a stopped training goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hashlgn.errors import ArgumentError
from hashlgn.storage import reason, replaced_file

__all__ = ["Checkpoint"]


class Checkpoint:
    """Reads and writes the state of one training.

    Args:
        path: the file, or None to keep nothing.
        identity: what makes a training this one (configuration, data); a state with another identity is refused.
    """

    def __init__(self, path: str | Path | None, identity: dict[str, str]) -> None:
        self.path = None if path is None else Path(path)
        self.identity = identity

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
        """Delete the file: the training is complete."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
