"""Every error that HashLGN raises on purpose.

    HashLGNError
    ├── ArgumentError        an argument breaks a rule (also a ValueError)
    │   └── UnknownColumnError   a table has no column of that name (also a KeyError)
    ├── UnknownIdError       an id that the model or the data has never seen (also a KeyError)
    ├── DataError            a file, a folder or a frame that cannot be read as interactions (also a ValueError)
    ├── ArtifactError        a saved model that is missing, damaged, altered or too new
    ├── DownloadError        a data set that could not be fetched
    ├── JournalError         a journal of events that cannot be opened, read or written
    │   └── JournalFullError     its disk is full: nothing was written
    ├── ServiceError         a service that is away, or refuses a request
    ├── NotFittedError       a question to a model that has not been trained
    └── MissingExtraError    an optional dependency that is not installed (also an ImportError)

Messages name the argument, state the rule and give the value: ``k must be a positive integer (got 0)``.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import numbers
import operator
from types import ModuleType
from typing import Any

import numpy as np

__all__ = [
    "ArgumentError",
    "ArtifactError",
    "DataError",
    "DownloadError",
    "HashLGNError",
    "JournalError",
    "JournalFullError",
    "MissingExtraError",
    "NotFittedError",
    "ServiceError",
    "UnknownColumnError",
    "UnknownIdError",
    "choose",
    "flag",
    "k_or_threshold",
    "need",
    "positive_int",
    "shown",
    "thread_count",
    "threshold_value",
]

_FLAGS = (bool, np.bool_)
_MOST_THREADS = 1024  # more is a mistake on any machine, and starting so many may fail


class HashLGNError(Exception):
    """Base of every error that HashLGN raises on purpose."""


class ArgumentError(HashLGNError, ValueError):
    """An argument breaks a rule."""


class UnknownColumnError(ArgumentError, KeyError):
    """A table has no column of that name."""

    def __str__(self) -> str:  # KeyError would print the message quoted
        return str(self.args[0]) if self.args else ""


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


class JournalError(HashLGNError):
    """A journal of events that cannot be opened, read or written."""


class JournalFullError(JournalError):
    """The disk of a journal is full; nothing of what was asked has been written."""


class ServiceError(HashLGNError):
    """A service that is away, or refuses a request."""


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


def shown(value: Any) -> str:
    """A value as an error message gives it: on one line, NumPy's numbers as plain ones, and cut where it is long."""
    try:
        with np.printoptions(legacy="1.25"):
            text = " ".join(repr(value).split())
    except Exception:  # whatever a stranger's __repr__ raises, the error is about the argument
        text = f"a {type(value).__name__}"
    return text if len(text) <= 120 else f"{text[:117]}…"


def counted(count: int, noun: str) -> str:
    """A number and what it counts, as messages give it: ``1 user``, ``2,000 users``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def choose(name: str, value: Any, choices: dict[str, Any]) -> Any:
    """Look ``value`` up in a table of choices.

    Raises:
        ArgumentError: ``value`` is not a key; the message lists the keys.
    """
    try:
        known = value in choices
    except TypeError:  # a list or an array is no key
        known = False
    if not known:
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, choices))} (got {shown(value)})")
    return choices[value]


def flag(name: str, value: Any) -> bool:
    """Check that ``value`` is true or false (NumPy's are taken).

    Raises:
        ArgumentError: it is neither.
    """
    if isinstance(value, _FLAGS):
        return bool(value)
    raise ArgumentError(f"{name} must be True or False (got {shown(value)})")


def positive_int(name: str, value: Any, rule: str = "a positive integer") -> int:
    """Check that ``value`` is an integer of at least 1 (bool is refused, NumPy integers are taken).

    Args:
        name: of the argument.
        value: what was given.
        rule: what an error says that it must be.

    Raises:
        ArgumentError: it is not.
    """
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:  # fractions, text, arrays
        number = 0
    if number < 1:
        raise ArgumentError(f"{name} must be {rule} (got {shown(value)})")
    return number


def thread_count(name: str, value: Any) -> int | None:
    """Check a number of processor threads: None, which means all, or 1 … 1,024.

    Raises:
        ArgumentError: it is neither.
    """
    if value is None:
        return None
    count = positive_int(name, value)
    if count > _MOST_THREADS:
        raise ArgumentError(f"{name} must be at most {_MOST_THREADS} (got {shown(value)})")
    return count


def threshold_value(name: str, value: Any) -> float:
    """Check that ``value`` is a number, one of NumPy's too; infinities are meaningful, NaN is not.

    Raises:
        ArgumentError: it is no number, or NaN.
    """
    number = math.nan
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        with contextlib.suppress(OverflowError):
            number = float(value)
    if math.isnan(number):
        raise ArgumentError(f"{name} must be a number, not NaN (got {shown(value)})")
    return number


def k_or_threshold(k: Any, threshold: Any, *, default: int = 10) -> tuple[int | None, float | None]:
    """What bounds an answer: exactly one of ``k`` and ``threshold``; ``default`` for k where both are None.

    Raises:
        ArgumentError: both are given, or the one that is given breaks its rule.
    """
    if threshold is None:
        return default if k is None else positive_int("k", k), None
    if k is not None:
        raise ArgumentError(f"k and threshold must not both be given (got k={shown(k)}, threshold={shown(threshold)})")
    return None, threshold_value("threshold", threshold)
