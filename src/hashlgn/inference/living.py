"""A model that changes while it answers: new items, new interactions, removals, undo, a journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hashlgn.data import Interactions, read_interactions
from hashlgn.errors import ArgumentError, ArtifactError, positive_int, shown
from hashlgn.inference.artifact import save_artifact
from hashlgn.inference.attributes import neighbours
from hashlgn.inference.changes import Change, applied, grown
from hashlgn.inference.journal import Journal
from hashlgn.inference.live import live_of
from hashlgn.inference.model import ServedModel
from hashlgn.inference.plans import named, numbered, placing, relevant, taken_in, undone
from hashlgn.inference.requests import listed, skips
from hashlgn.utils.locks import Lock

__all__ = ["Living", "Updated"]

_PAST = 16  # states that ``undo`` can go back


@dataclass(frozen=True)
class Updated:
    """What ``update`` did.

    Attributes:
        users: new users.
        items: new items.
        interactions: new interactions.
        placed: items that were placed anew, the new ones not counted.
    """

    users: int
    items: int
    interactions: int
    placed: int


@dataclass
class _Held:
    """What a model that changes keeps beside its state."""

    lock: Lock = field(default_factory=Lock)
    past: deque[tuple[ServedModel, ServedModel]] = field(default_factory=lambda: deque(maxlen=_PAST))
    journal: Journal | None = None
    file: Path | None = None  # of the model that the journal belongs to


class Living:
    """What changes a model. Each change makes a new state and replaces the old one in one step: an answer that runs
    meanwhile sees the state before the change or after it, and never a part of it. Changes are made one at a time.
    """

    _model: ServedModel | None

    if TYPE_CHECKING:

        @property
        def model(self) -> ServedModel:
            """The arrays of the trained model."""

    def add_items(
        self,
        ids: Any,
        users: Any = None,
        *,
        histories: Any = None,
        titles: Any = None,
        genres: Any = None,
        attributes: Any = None,
        on_unknown: str = "raise",
    ) -> None:
        """Add items to the catalogue. Each is placed, as an answer and in histories, by the people who first had it.

        The id of a removed item may be added again: the item gets back its number, and is placed anew.

        Args:
            ids: external ids of the items, or one id.
            users: for each item a list of external ids of users who have it, in the same order, or a mapping from ids
                of items to such lists; for one id, the list alone. The interactions are stored: the item enters the
                history of these users, with the newest time that is known.
            histories: instead of ``users``: for each item a list of histories of people who have it, each a list of
                item ids. Nothing of them is stored.
            titles: one string per item, or a mapping from ids to strings. Default: empty where the model has titles.
            genres: one tuple or list of strings per item, or a mapping. Default: empty where the model has genres.
            attributes: where an item starts that nobody has yet: at the mean of its 20 nearest neighbours by cosine of
                attributes, among the items that five users or more have. ``"genres"``: those given here and those that
                the model knows. A mapping from ids to vectors of one length: of each new item, and of items of the
                catalogue that may be neighbours. An item without a genre, or like no neighbour, and by default each,
                starts where an average item is.
            on_unknown: what to do about unknown users, and unknown items in histories: ``raise``, the default, or
                ``skip`` them.

        Raises:
            ArgumentError: an id is there already or twice, lists are too few or too many, the histories of an item hold
                no known item beside it, or the users of this model are not their histories.
            UnknownIdError: an id is unknown and ``on_unknown`` is ``raise``.
            DataError: a value is no id.
            NotFittedError: the model is not trained.
            ArtifactError: the journal cannot be written; nothing has changed then.
        """
        values, skip, single = _listed(ids), skips(on_unknown), _is_one(ids)

        def plan(model: ServedModel) -> Change:
            item_ids, numbers = numbered(model.item_ids, values, new=True)
            there = numbers < len(model.item_ids)
            back = np.zeros(len(numbers), np.bool_) if model.removed is None else there.copy()
            if model.removed is not None:
                back[there] = model.removed[numbers[there]]
            if (there & ~back).any():
                known = values[int(np.flatnonzero(there & ~back)[0])]
                raise ArgumentError(f"ids must be new: update_items is for items that are there (got {shown(known)})")
            people, pairs = relevant(model, values, single, numbers, users, histories, skip)
            tags = named("genres", values, numbers, genres, tuple)
            near = neighbours(model, values, numbers, attributes, tags)
            before = grown(model, model.user_ids, item_ids, pairs)
            return replace(
                placing(before, np.sort(numbers), people, pairs=pairs, near=near),
                items=item_ids.decode(np.sort(numbers[~there])).tolist(),
                restored=tuple(numbers[there].tolist()),
                titles=named("titles", values, numbers, titles, str),
                genres=tags,
            )

        self._change(plan)

    def update_items(self, ids: Any, users: Any = None, *, histories: Any = None, on_unknown: str = "raise") -> None:
        """Place items anew by all people who have them now. An item that nobody has stays where it is.

        Args:
            ids: external ids of items, or one id.
            users: more users who have each item, as in ``add_items``; stored.
            histories: instead: histories that decide alone, as in ``add_items``; not stored.
            on_unknown: as in ``add_items``.

        Raises:
            ArgumentError: an item was removed, the histories of an item hold no known item beside it, or as
                ``add_items``.
            UnknownIdError: an id is unknown; of items always, of users where ``on_unknown`` is ``raise``.
            ArtifactError: the journal cannot be written; nothing has changed then.
        """
        values, skip, single = _listed(ids), skips(on_unknown), _is_one(ids)

        def plan(model: ServedModel) -> Change:
            _, numbers = numbered(model.item_ids, values, new=False)
            if model.removed is not None and model.removed[numbers].any():
                gone = values[int(np.flatnonzero(model.removed[numbers])[0])]
                raise ArgumentError(f"ids must be of items that were not removed (got {shown(gone)})")
            people, pairs = relevant(model, values, single, numbers, users, histories, skip)
            before = grown(model, model.user_ids, model.item_ids, pairs)
            return placing(before, np.sort(numbers), people, pairs=pairs, blended=histories is None)

        self._change(plan)

    def remove_items(self, ids: Any) -> None:
        """Take items out of all answers. Their numbers stay theirs, and they still count in the histories of people
        who have them. ``add_items`` brings them back.

        Args:
            ids: external ids of items, or one id; those that were removed before stay so.

        Raises:
            UnknownIdError: an id is unknown.
            ArtifactError: the journal cannot be written; nothing has changed then.
        """
        values = listed("ids", ids)

        def plan(model: ServedModel) -> Change | None:
            numbers = np.unique(model.item_ids.encode(values, name="ids"))
            left = numbers if model.removed is None else numbers[~model.removed[numbers]]
            return Change(removed=tuple(left.tolist())) if len(left) else None

        self._change(plan)

    def set_titles(self, titles: Mapping[Any, str]) -> None:
        """Give items other titles.

        Args:
            titles: a mapping from ids of items to titles.

        Raises:
            ArgumentError: it is no mapping from ids to strings.
            UnknownIdError: an id is unknown.
            ArtifactError: the journal cannot be written; nothing has changed then.
        """
        if not isinstance(titles, Mapping):
            raise ArgumentError(f"titles must be a mapping from ids to strings (got {shown(titles)})")
        values = list(titles)

        def plan(model: ServedModel) -> Change:
            numbers = model.item_ids.encode(values, name="titles")
            return Change(titles=named("titles", values, numbers, titles, str))

        self._change(plan)

    def update(self, interactions: Any, *, budget: int = 1000, **reading: Any) -> Updated:
        """Take in interactions that happened since: histories, counts and lists of seen items move on, new users get
        ids, and new items are placed by the people who have them.

        Items of the catalogue that have at least two interactions, and at least twice those that their place rests on,
        are placed anew, those that have grown most first. An item of the training goes from its trained vectors towards
        its new place by the share of its interactions that are new; with 20 interactions in the training or more, it
        stays.

        Args:
            interactions: ``Interactions``, or anything that ``read_interactions`` takes. Those that the model has
                change nothing.
            budget: how many items of the catalogue may be placed anew; 0 for none.
            reading: options of ``read_interactions``.

        Returns:
            How many users, items and interactions are new, and how many items of the catalogue were placed anew.

        Raises:
            ArgumentError: the users of this model are not their histories, or ``budget`` is neither 0 nor a positive
                integer.
            DataError: the interactions cannot be read.
            ArtifactError: the journal cannot be written; nothing has changed then.
        """
        data = interactions if isinstance(interactions, Interactions) else read_interactions(interactions, **reading)
        done: list[Updated] = []
        most = positive_int("budget", budget, "0 or a positive integer") if budget != 0 else 0

        def plan(model: ServedModel) -> Change | None:
            change, placed = taken_in(model, data, most)
            added = 0 if change.pairs is None else len(change.pairs.users)
            done.append(Updated(len(change.users), len(change.items), added, placed))
            return change if done[-1] != Updated(0, 0, 0, 0) else None

        self._change(plan)
        return done[-1]

    def undo(self) -> None:
        """Take back the last change, as far as the last 16, and not before this model was loaded, trained, or saved
        over the file that its journal belongs to.

        Raises:
            ArgumentError: there is no change to take back.
            ArtifactError: the journal cannot be written; nothing has changed then.
        """
        held = self._changes()
        with held.lock:
            model = self.model
            if not held.past or held.past[-1][0] is not model:
                raise ArgumentError(
                    "undo needs a change that was made since the model was loaded, trained or saved (there is none)"
                )
            back = undone(model, held.past[-1][1])
            if held.journal is not None:
                held.journal.append(live_of(back).changes, None)
            held.past.pop()
            if held.past:  # the state that is now current ends the change before
                held.past[-1] = back, held.past[-1][1]
            self._model = back

    def follow(self, journal: str | Path, file: Path | None = None) -> None:
        """Replay a journal of changes, then write each further change into it before it becomes visible.

        A journal belongs to one training of a model, and to one process at a time. ``save`` over the file from which
        the model was loaded begins it anew.

        Args:
            journal: the file; made where there is none.
            file: of the model; the first one that it is saved to where None.

        Raises:
            ArtifactError: the journal is damaged, of another model, in use, or cannot be written.
            ArgumentError: there is a journal already.
        """
        held = self._changes()
        with held.lock:
            if held.journal is not None:
                raise ArgumentError(f"journal must be given once (there is {held.journal.path})")
            opened = Journal(journal, self.model)
            try:
                after = _replayed(self.model, opened)
            except BaseException:
                opened.close()
                raise
            held.journal, held.file, self._model = opened, None if file is None else file.resolve(), after

    def save(self, path: str | Path) -> Path:
        """Write the model to one file, all or nothing; a model that is there is replaced.

        Where the model follows a journal, and this is the file that it was loaded from, or the first one that it is
        saved to, the journal begins anew. Changes wait until all is written; answers do not.

        Args:
            path: the file where it ends in ``.safetensors``, else the folder in which ``model.safetensors`` is to lie.

        Returns:
            The file.

        Raises:
            ArtifactError: it cannot be written; what was there before is untouched.
            ArgumentError: the file is something else than a model.
            NotFittedError: the model is not trained.
        """
        held = self._changes()
        with held.lock:
            file = save_artifact(self.model, path)
            if held.journal is not None and file.resolve() == (held.file or file.resolve()):
                held.file = file.resolve()
                held.journal.restart()
                held.past.clear()
        return file

    def _changes(self) -> _Held:
        held: _Held = self.__dict__.setdefault("_held", _Held())
        return held

    def _change(self, plan: Callable[[ServedModel], Change | None]) -> None:
        """Make a change: into the journal first, then visible. None is no change, and ``undo`` does not count it."""
        held = self._changes()
        with held.lock:
            model = self.model
            change = plan(model)
            if change is None:
                return
            after = applied(model, change)
            if held.journal is not None:
                held.journal.append(live_of(after).changes, change)
            if held.past and held.past[-1][0] is not model:  # another model was trained meanwhile
                held.past.clear()
            held.past.append((after, model))
            self._model = after


def _is_one(ids: Any) -> bool:
    """Whether a caller gave one id, and no list."""
    return isinstance(ids, str) or not isinstance(ids, Iterable)


def _listed(ids: Any) -> list[Any]:
    """Ids as a plain list, one or more.

    Raises:
        ArgumentError: there is none.
    """
    values = listed("ids", ids)
    values = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if not values:
        raise ArgumentError("ids must name at least one item (got none)")
    return values


def _replayed(model: ServedModel, journal: Journal) -> ServedModel:
    """A model after the changes of its journal, without those that it was saved with."""
    states = [model]
    for number, change in journal.records():
        if number <= live_of(states[-1]).changes:
            continue
        if change is not None:
            states = [*states[-_PAST:], applied(states[-1], change)]
        elif len(states) > 1:
            states[-2:] = [undone(states[-1], states[-2])]
        if live_of(states[-1]).changes != number:
            raise ArtifactError(f"{journal.path}: inconsistent: change {number} does not follow what is there")
    return model if states[-1] is model else replace(states[-1], contents=False)
