"""The short way to an answer: a plain request goes from ids to hits in one compiled call.

After a search of a large catalogue the caches hold codes, and each step that Python takes costs several times what it
costs alone. What is plain is most of what is asked: users of the training by a list of ids, or one history, with k, and
without lists of what is allowed or denied. The answers are those of the long way, bit for bit; whatever is unusual,
such as an unknown id or an empty history, is left to that way, which tells what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.inference.answering import Ask, Columns, popular
from hashlgn.inference.model import ServedModel
from hashlgn.inference.requests import Rows
from hashlgn.inference.tables import Table
from hashlgn.scoring.histories import CodedHistories
from hashlgn.search import Hits, Kernel, Searcher

__all__ = ["Direct"]


class Direct:
    """Answers of one state of a model by one searcher.

    Args:
        model: whose users are their histories, as codes.
        answers: what the kernel holds of it, a ``kernel.Answers``.
    """

    __slots__ = ("_answers", "_model")

    def __init__(self, model: ServedModel, answers: Any) -> None:
        self._model, self._answers = model, answers

    @classmethod
    def of(cls, model: ServedModel, searcher: Searcher) -> Direct | None:
        """The short way of a model; None where it has none."""
        histories, stored = model.histories, model.stored
        if type(searcher) is not Kernel or model.users is not None or not isinstance(histories, CodedHistories):
            return None
        answers = searcher.answers(histories.held, stored.held, len(stored), model.removed)
        return None if answers is None else cls(model, answers)

    @property
    def seconds(self) -> float:
        """Seconds of the search in the last answer, from queries to hits."""
        return float(self._answers.seconds)

    def users(self, ids: list[Any], k: int, own: bool, titles: bool) -> Table | None:
        """Answers to users of the training, without their own items where ``own``."""
        model = self._model
        codes = model.user_ids.known(ids)
        if codes is None:
            return None
        columns = self._columns(Rows(codes=codes, ids=model.user_ids, stored=model.stored), k, titles)
        return _table(columns, self._answers.stored, codes, k, own)

    def history(self, ids: list[Any], k: int, own: bool, titles: bool) -> Table | None:
        """The answer to one history without a name."""
        items = self._model.item_ids.known(ids)
        if items is None:
            return None
        columns = self._columns(Rows((np.array((0, len(items))), items)), k, titles)
        return _table(columns, self._answers.given, items, k, own)

    def _columns(self, rows: Rows, k: int, titles: bool) -> Columns:
        model = self._model
        ask = Ask(k, None, popular=partial(popular, model), titles=model.titles if titles else None)
        return Columns(model.item_ids, rows, ask)


def _table(
    columns: Columns, answer: Callable[..., Any], numbers: npt.NDArray[np.int64], k: int, own: bool
) -> Table | None:
    """The answer; all that can be made before the search has been made, while caches still hold this program."""
    try:
        found = answer(numbers, k, own)
    except ValueError:  # a damaged catalogue
        return None
    return None if found is None else columns.table(Hits(*found))
