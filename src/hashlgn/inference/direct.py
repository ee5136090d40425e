"""The short way to an answer: a plain request goes from ids to hits in one compiled call.

A search of a large catalogue fills the caches, and each step that Python takes after it costs several times what it
costs alone. So the table is made before the search, and the columns that few read are made when they are asked for.
What is plain is most of what is asked: users of the training by a list of ids, or one history, with k, and without
lists of what is allowed or denied. The answers are those of the long way, bit for bit; whatever is unusual, such as an
unknown id or an empty history, is left to that way, which tells what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
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

__all__ = ["Direct", "Found", "History"]

History = tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.float32] | None]
Found = tuple[list[int], list[Any], list[float]]  # numbers, ids and scores of items


class Direct:
    """Answers of one state of a model by one searcher.

    Args:
        model: whose users are their histories, as codes.
        answers: what the kernel holds of it, a ``kernel.Answers``.
    """

    __slots__ = ("_answers", "_model", "_names")

    def __init__(self, model: ServedModel, answers: Any) -> None:
        self._model, self._answers = model, answers
        no_row = Rows((np.zeros(1, np.int64), np.empty(0, np.int64)))
        no_user = Rows(codes=np.empty(0, np.int64), ids=model.user_ids, stored=model.stored)
        self._names = {
            (given, titles): Columns(model.item_ids, rows, _ask(model, titles)).names
            for given, rows in ((True, no_row), (False, no_user))
            for titles in (True, False)
        }

    @classmethod
    def of(cls, model: ServedModel, searcher: Searcher) -> Direct | None:
        """The short way of a model; None where it has none."""
        histories, stored = model.histories, model.stored
        if type(searcher) is not Kernel or model.users is not None or not isinstance(histories, CodedHistories):
            return None
        ids = model.user_ids.held, model.item_ids.held
        answers = searcher.answers(histories.held, stored.held, len(stored), model.removed, *ids)
        return None if answers is None else cls(model, answers)

    @property
    def seconds(self) -> float:
        """Seconds of the search in the last answer, from queries to hits."""
        return float(self._answers.seconds)

    def answer(self, ids: list[Any], given: bool, k: int, own: bool, titles: bool) -> Table | None:
        """The k best items, without those of the history where ``own``; None where the long way must answer.

        Args:
            ids: users of the training; or items, one history without a name, where ``given``.
            given: see ``ids``.
            k: number of items.
            own: whether a history leaves out its items.
            titles: whether there is a column of titles, if the model has any.
        """
        later: list[Any] = []
        make = partial(_column, self._model, given, titles, later)
        columns: dict[str, Any] = dict.fromkeys(self._names[given, titles], make)
        table = Table.deferred(columns)
        try:
            found = self._answers.given(ids, k, own) if given else self._answers.stored(ids, k, own)
        except ValueError:  # a damaged catalogue
            return None
        if found is None:
            return None
        later += found
        columns["score"] = found[3]
        if found[4] is not None:
            columns["item"] = found[4]
        return table

    def lists(self, histories: Sequence[History], ks: Sequence[int]) -> list[Found] | None:
        """The k best items for each history, without its own; None where the long way must answer.

        Args:
            histories: item numbers of each, int32 or int64, ascending, and strengths (None: 1 each).
            ks: number of items for each.
        """
        try:
            found: list[Found] | None = self._answers.lists(histories, ks)
        except ValueError:  # items were added and have no compiled ids, or a damaged catalogue
            return None
        return found


def _column(model: ServedModel, given: bool, titles: bool, found: list[Any], name: str) -> npt.NDArray[Any]:
    """A column of an answer, of which ``found`` is what the kernel gave."""
    numbers, bounds, items, scores, _ = found
    if name == "item":  # what everybody reads
        return model.item_ids.decode(items)
    rows = Rows((np.array((0, len(numbers))), numbers))
    if not given:
        rows = Rows(codes=numbers, ids=model.user_ids, stored=model.stored)
    return Columns(model.item_ids, rows, _ask(model, titles)).make(Hits(bounds, items, scores), name)


def _ask(model: ServedModel, titles: bool) -> Ask:
    return Ask(None, None, popular=partial(popular, model), titles=model.titles if titles else None)
