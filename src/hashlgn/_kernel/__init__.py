"""The compiled search kernel, ``hashlgn._kernel.kernel``, where it could be built."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["compiled"]


def compiled() -> ModuleType | None:
    """The compiled module; None where it could not be built, or is for another system."""
    try:
        return importlib.import_module("hashlgn._kernel.kernel")
    except ImportError:
        return None
