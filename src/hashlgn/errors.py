"""Every error that HashLGN raises on purpose.

    HashLGNError
    ├── ArgumentError        an argument breaks a rule (also a ValueError)
    ├── UnknownIdError       an id that the model or the data has never seen (also a KeyError)
    ├── DataError            a file, a folder or a frame that cannot be read as interactions (also a ValueError)
    ├── ArtifactError        a saved model that is missing, damaged, altered or too new
    ├── DownloadError        a data set that could not be fetched
    ├── NotFittedError       a question to a model that has not been trained
    └── MissingExtraError    an optional dependency that is not installed (also an ImportError)

Messages name the argument, state the rule and give the value: ``k must be a positive integer (got 0)``.
"""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

__all__ = [
    "ArgumentError",
    "ArtifactError",
    "DataError",
    "DownloadError",
    "HashLGNError",
    "MissingExtraError",
    "NotFittedError",
    "UnknownIdError",
    "choose",
    "need",
    "positive_int",
    "threshold_value",
]


class HashLGNError(Exception):
    """Base of every error that HashLGN raises on purpose."""


class ArgumentError(HashLGNError, ValueError):
    """An argument breaks a rule."""


class UnknownIdError(HashLGNError, KeyError):
    """An id that the model or the data has never seen."""

    def __str__(self) -> str:  # KeyError would print the message quoted
        return str(self.args[0]) if self.args else ""


class DataError(HashLGNError, ValueError):
    """A file, a folder or a frame that cannot be read as interactions."""


class ArtifactError(HashLGNError):
    """A saved model that is missing, damaged, altered or too new."""


class DownloadError(HashLGNError):
    """A data set that could not be fetched."""


class NotFittedError(HashLGNError):
    """A question to a model that has not been trained."""


class MissingExtraError(HashLGNError, ImportError):
    """An optional dependency that is not installed."""


def need(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional ``module``, or say which ``extra`` brings it.

    Raises:
        MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"{purpose} needs the package {module.split('.')[0]!r}: pip install 'hashlgn[{extra}]'"
        ) from error


def choose(name: str, value: Any, choices: dict[str, Any]) -> Any:
    """Look ``value`` up in a table of choices.

    Raises:
        ArgumentError: ``value`` is not a key; the message lists the keys.
    """
    if value not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, choices))} (got {value!r})")
    return choices[value]


def positive_int(name: str, value: Any) -> int:
    """Check that ``value`` is an integer of at least 1 (bool is refused, NumPy integers are taken).

    Raises:
        ArgumentError: it is not.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 1:
        raise ArgumentError(f"{name} must be a positive integer (got {value!r})")
    return int(value)


def threshold_value(name: str, value: Any) -> float:
    """Check that ``value`` is a number; infinities are meaningful, NaN is not.

    Raises:
        ArgumentError: it is no number, or NaN.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number) or isinstance(value, bool):
        raise ArgumentError(f"{name} must be a number, not NaN (got {value!r})")
    return number
