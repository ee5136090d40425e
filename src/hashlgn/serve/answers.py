"""A model that is served: histories, filters and titles around a recommender, and answers to several requests at once.

Requests of one batch that ask alike, up to ``k``, become one search. The k best of a row are the beginning of the best
of any larger k, so neither the batch nor its size changes an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError
from hashlgn.inference.direct import Found, History
from hashlgn.inference.explaining import explainable, shares
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.serve.attributes import Attributes, Filters, key_of
from hashlgn.serve.journal import LiveHistories, Stored
from hashlgn.serve.journal.events import read_id
from hashlgn.serve.journal.live import joined
from hashlgn.serve.limits import Limits
from hashlgn.serve.shapes import Ask, HistoryItem, Item, Problem, Recommendation, Share
from hashlgn.serve.titles import Titles

__all__ = ["REASONS", "Question", "Served"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_WHY = 5  # items of the history that an explanation names
_REACHED = 1 << 24  # items that may reach the thresholds of one search
REASONS = {
    "stranger": "nothing is known of this user: the most popular items",
    "empty": "the history has no item that the model knows: the most popular items",
    "threshold": "no item that the history, the lists and the filters leave reaches the threshold",
    "most": "as many items reach the threshold as an answer may hold (--max-k); there may be more",
    "fewer": "fewer items than asked for are left by the history, the lists, the filters and the threshold",
}


@dataclass(slots=True)
class Question:
    """A request in the numbers of a model.

    Attributes:
        ask: what the client sent.
        user: id of the user in the type of the model, or None.
        history: item numbers and strengths, ascending, where the client sent a history.
        k: items asked for, None where a threshold is.
        most: items that the answer may hold.
        alike: what requests that are searched together have in common.
        allow: numbers of the only items, or None.
        deny: numbers of items that are left out, or None.
    """

    ask: Ask
    user: Any
    history: tuple[Ints, Floats | None] | None
    k: int | None
    most: int
    alike: tuple[Any, ...]
    allow: Ints | None = None
    deny: Ints | None = None


@dataclass(eq=False)
class Served:
    """A loaded model.

    Attributes:
        version: its name.
        path: its file.
        recommender: answers.
        view: histories of all users, kept up to date by a journal where there is one.
        filters: attributes of its items.
        digest: of the file's header, which holds the checksums of everything.
    """

    version: str
    path: Path
    recommender: Recommender
    view: LiveHistories
    filters: Filters
    digest: str
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, version: str, path: Path, recommender: Recommender, journal: Any, attributes: Attributes, digest: str
    ) -> Served:
        """Bind a recommender to a journal, and warm it.

        Raises:
            ArgumentError: its users are not histories, or its ids are of other types than the journal's.
        """
        model = recommender.model
        if model.histories is None or model.users is not None:
            raise ArgumentError(f"model must be one whose users are histories, as every default model ({path} is not)")
        if journal is None:
            view = LiveHistories(model.item_ids, model.user_ids, Stored.of(model))
        else:
            view = journal.bind(model)
        served = cls(version, path, recommender, view, Filters(model, attributes), digest)
        served.answers([served.question(Ask(user=user)) for user in [*served.some_users(8), None] if user is not None])
        model.most_popular  # noqa: B018  the first stranger shall not wait
        return served

    def some_users(self, count: int) -> list[Any]:
        """Ids of a few users of the training; those who were deleted are not among them."""
        ids = self.recommender.model.user_ids
        numbers = (ids.decode(np.arange(n, min(n + count, len(ids)))).tolist() for n in range(0, len(ids), count))
        return list(islice((user for part in numbers for user in part if self.view.knows(user)), count))

    @cached_property
    def titles(self) -> Titles | None:
        """Search over titles; None where the model has none."""
        model = self.recommender.model
        return None if model.titles is None else Titles(model.titles, model.popularity)

    def user_id(self, value: Any) -> Any:
        """An id of a user in the type of the model.

        Raises:
            Problem: it cannot be of that type.
        """
        return _id("user", value, self.view.user_ids.id_type)

    def item_number(self, value: Any, field_: str = "item") -> int:
        """Number of an item.

        Raises:
            Problem: no item has this id.
        """
        number = self.view.item_ids.find(self._item_id(value, field_))
        if number < 0:
            raise Problem(404, "unknown_item", f"item must be one that the model knows (got {value!r:.80})", field_)
        return int(number)

    def question(self, ask: Ask, limits: Limits = Limits()) -> Question:  # noqa: B008  immutable
        """Check a request.

        Raises:
            Problem: it breaks a rule or a limit.
        """
        if (ask.user is None) == (ask.history is None):
            raise Problem(422, "bad_request", "user or history must be given, and not both", "user")
        if ask.k is not None and ask.threshold is not None:
            raise Problem(422, "bad_request", "k and threshold must not both be given", "threshold")
        if ask.k is not None and ask.k > limits.k:
            raise Problem(422, "too_large", f"k must be at most {limits.k} (--max-k; got {ask.k})", "k")
        for name, given in (("history", ask.history), ("allow", ask.allow), ("deny", ask.deny)):
            if given is not None and (size := len(given)) > limits.list:
                most = f"{name} must have at most {limits.list} items (--max-list; got {size})"
                raise Problem(422, "too_large", most, name)
        model = self.recommender.model
        if ask.calibrated and model.calibration is None:
            raise Problem(422, "not_calibrated", "calibrated needs a model with a calibration", "calibrated")
        if ask.calibrated and ask.threshold is not None and not 0 < ask.threshold < 1:
            raise Problem(422, "bad_request", "threshold must lie between 0 and 1 where it is calibrated", "threshold")
        if ask.explain and not explainable(model):
            raise Problem(
                422, "not_explainable", "explain needs a model whose scores are sums over a history", "explain"
            )
        strict = ask.on_unknown == "raise"
        allow, deny = self._numbers("allow", ask.allow, strict), self._numbers("deny", ask.deny, strict)
        filters = self._filters(ask.filters)
        k = None if ask.threshold is not None else ask.k or 10
        own = None if allow is None else allow.tobytes()
        plain = k is not None and own is None and not filters and ask.filter_seen and deny is None
        alike = (k is None, ask.threshold, ask.calibrated and k is None, filters, own, plain)
        user = None if ask.user is None else self.user_id(ask.user)
        return Question(ask, user, self._history(ask.history, strict), k, k or limits.k, alike, allow, deny)

    def answers(self, questions: Sequence[Question]) -> list[Recommendation | Problem]:
        """Answer requests together, in order; each is answered as it would be alone."""
        found: dict[int, Recommendation | Problem] = {}
        groups: dict[tuple[Any, ...], list[int]] = {}
        rows = [self.view.row(one.user) if one.history is None else one.history for one in questions]
        for place, (question, row) in enumerate(zip(questions, rows, strict=True)):
            groups.setdefault((*question.alike, len(row[0]) > 0), []).append(place)
        for every in groups.values():
            step = len(every) if questions[every[0]].k is not None else max(1, _REACHED // len(self.view.item_ids))
            for places in (every[start : start + step] for start in range(0, len(every), step)):
                answers = self._together([questions[place] for place in places], [rows[place] for place in places])
                found.update(zip(places, answers, strict=True))
        return [found[place] for place in range(len(questions))]

    def similar(self, number: int, k: int) -> list[Item]:
        """The items most similar to an item, by cosine."""
        ids = self.view.item_ids
        table = self.recommender.similar_items(ids.decode(np.array([number])).tolist(), k, titles=False)
        similar = table["similar"].tolist()
        return self._items_of(ids.encode(similar).tolist(), similar, table["score"].tolist())

    def described(self, number: int) -> dict[str, Any]:
        """Id, title and genres of an item, where they are known."""
        model = self.recommender.model
        said: dict[str, Any] = {"item": model.item_ids.decode(np.array([number])).tolist()[0]}
        if model.titles is not None:
            said["title"] = model.titles[number] or None
        if model.genres is not None:
            said["genres"] = list(model.genres[number])
        return said

    def _together(self, questions: Sequence[Question], rows: Sequence[History]) -> list[Recommendation | Problem]:
        found, direct = None, self.recommender.direct
        if direct is not None and questions[0].alike[5]:
            found = direct.lists(rows, [one.k or 0 for one in questions])
        if found is None:
            found = self._long_way(questions, rows)
        return list(map(self._answer, questions, rows, found))

    def _long_way(self, questions: Sequence[Question], rows: Sequence[History]) -> list[Found]:
        """Numbers, ids and scores of the items that are found for each question."""
        first, (indptr, items, strengths) = questions[0], joined(rows)
        exclude = self._exclusion(questions, rows, indptr, items)
        k = None if first.k is None else max(one.k or 0 for one in questions)
        hits = self.recommender.answer(
            indptr, items, strengths, k=k, threshold=first.ask.threshold, calibrated=first.alike[2], exclude=exclude
        )
        found = []
        for one, (start, end) in zip(questions, pairwise(hits.indptr.tolist()), strict=True):
            span = slice(start, min(end, start + one.most))
            ids = self.view.item_ids.decode(hits.items[span]).tolist()
            found.append((hits.items[span].tolist(), ids, hits.scores[span].tolist()))
        return found

    def _exclusion(
        self, questions: Sequence[Question], rows: Sequence[History], indptr: Ints, items: Ints
    ) -> Exclusion:
        """What each row leaves out: its history unless asked otherwise, what the client denies or does not allow, and
        what no filter lets through.
        """
        n_items, first, filters = len(self.view.item_ids), questions[0], questions[0].alike[3]
        lists = indptr, items
        if not all(one.ask.filter_seen and one.deny is None for one in questions):
            nothing = np.empty(0, np.int64)
            unions = [
                np.union1d(own if one.ask.filter_seen else nothing, nothing if one.deny is None else one.deny)
                for one, (own, _) in zip(questions, rows, strict=True)
            ]
            bounds = np.cumsum([0, *map(len, unions)], dtype=np.int64)
            lists = bounds, np.concatenate([nothing, *unions]).astype(np.int64)
        exclude = Exclusion.build(n_items, seen=lists, allow=first.allow)
        return exclude.also(self.filters.banned(filters)) if filters else exclude

    def _answer(self, question: Question, history: History, found: Found) -> Recommendation | Problem:
        known, calibration, items = len(history[0]), self.recommender.model.calibration, self._items_of(*found)
        if calibration is not None and known:
            chances = calibration.probability(np.array(found[2], np.float32), known).astype(np.float32).tolist()
            for one, chance in zip(items, chances, strict=True):
                one.probability = chance
        if question.ask.explain and known:
            self._explain(items, np.array(found[0], np.int64), history)
        answer = Recommendation(source="model" if known else "popular", model=self.version, items=items)
        if question.user is not None:
            answer.user = question.user
        if not known:
            answer.reason = REASONS["stranger" if question.history is None else "empty"]
            return self._unknown(question, answer)
        if question.k is not None and len(items) < question.k:
            answer.reason = REASONS["fewer"]
        elif question.k is None and not items:
            answer.reason = REASONS["threshold"]
        elif question.k is None and len(items) == question.most:
            answer.reason = REASONS["most"]
        return answer

    def _unknown(self, question: Question, answer: Recommendation) -> Recommendation | Problem:
        """The answer to somebody without a known item, as the client wants it."""
        stranger = question.history is None and self.view.user_ids.find(question.user) < 0
        how = question.ask.on_unknown if stranger else question.ask.on_empty
        if how == "raise" and stranger:
            return Problem(404, "unknown_user", f"user must be known (got {question.user!r:.80})", "user")
        if how == "raise":
            return Problem(422, "empty", "history must hold at least one known item", "history")
        if how == "skip":
            answer.items, answer.reason = [], (answer.reason or "").partition(":")[0]
        return answer

    def _items_of(self, numbers: list[int], ids: list[Any], scores: list[float]) -> list[Item]:
        model = self.recommender.model
        items = list(map(Item, ids, scores))
        if model.titles is not None:
            for one, number in zip(items, numbers, strict=True):
                one.title = model.titles[number] or None
        if model.genres is not None:
            for one, number in zip(items, numbers, strict=True):
                one.genres = list(model.genres[number])
        return items

    def _explain(self, items: list[Item], numbers: Ints, history: History) -> None:
        model = self.recommender.model
        found = shares(model, history[0].astype(np.int64), history[1], numbers)
        names = model.item_ids.decode(history[0]).tolist()
        for one, row in zip(items, found, strict=True):
            largest = np.argsort(-np.abs(row), kind="stable")[:_WHY].tolist()
            one.why = [Share(names[place], float(row[place])) for place in largest]
            if model.titles is not None:
                for share, place in zip(one.why, largest, strict=True):
                    share.title = model.titles[int(history[0][place])] or None

    def _history(self, given: Sequence[Any] | None, strict: bool) -> tuple[Ints, Floats | None] | None:
        """The known items of a history that a client sent, ascending, each once; the last weight of an item counts."""
        if given is None:
            return None
        found = {}
        for one in given:
            item, weight = (one.item, one.weight) if isinstance(one, HistoryItem) else (one, 1.0)
            number = self._found("history", item, strict)
            if number >= 0:
                found[number] = weight
        numbers = np.array(sorted(found), np.int64)
        plain = all(weight == 1 for weight in found.values())
        return numbers, None if plain else np.array([found[number] for number in numbers.tolist()], np.float32)

    def _numbers(self, name: str, given: Sequence[Any] | None, strict: bool) -> Ints | None:
        """Numbers of the known items of a list, ascending, each once."""
        if given is None:
            return None
        found = {self._found(name, item, strict) for item in given}
        return np.array(sorted(found - {-1}), np.int64)

    def _found(self, name: str, item: Any, strict: bool) -> int:
        """Number of an item of a list; −1 where it is unknown, and not ``strict``."""
        return self.item_number(item, name) if strict else self.view.item_ids.find(self._item_id(item, name))

    def _item_id(self, value: Any, name: str) -> Any:
        return _id("item", value, self.view.item_ids.id_type, name)

    def _filters(self, given: dict[str, Any] | None) -> tuple[tuple[str, tuple[str, ...]], ...]:
        if not given:
            return ()
        known = self.filters.names()
        for name in given:
            if name not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise Problem(422, "unknown_filter", f"filters must name attributes: {listed} (got {name!r:.80})", name)
        values = {name: one if isinstance(one, list) else [one] for name, one in given.items()}
        return tuple(sorted((name, tuple(sorted(map(key_of, many)))) for name, many in values.items()))


def _id(kind: str, value: Any, id_type: str, name: str | None = None) -> Any:
    try:
        return read_id(kind, value, id_type)
    except ArgumentError as error:
        raise Problem(422, "bad_id", str(error), name or kind) from error
