"""External ids in, items and scores out: recommend, score, find similar ones, save, load. PyTorch is not needed.

An answer takes four steps, each a small function: what the caller asks becomes rows (``requests``), rows become
queries, queries are searched, hits become a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError, NotFittedError, choose, counted, flag, k_or_threshold, thread_count
from hashlgn.inference.answering import BATCH, Ask, Catalogue, find, popular, tables, whole
from hashlgn.inference.artifact import load_artifact
from hashlgn.inference.direct import Direct
from hashlgn.inference.living import Living
from hashlgn.inference.model import ServedModel
from hashlgn.inference.requests import UNKNOWN, Limits, Rows, listed, skips
from hashlgn.inference.similar import Similar
from hashlgn.inference.sizes import model_bytes, model_info
from hashlgn.inference.staleness import Staleness, staleness
from hashlgn.inference.tables import Table
from hashlgn.scoring.calibration import Calibration
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import Items
from hashlgn.scoring.pairs import pair_scores
from hashlgn.search import SEARCHERS, Hits, Kernel, Searcher, build_searcher
from hashlgn.search.block_items import BlockItems
from hashlgn.utils.tensors import model_file

__all__ = ["Recommender", "load"]

_ON_EMPTY = {"popular": None, "skip": True, "raise": False}
Ints = npt.NDArray[np.int64]
_T = TypeVar("_T")


class Recommender(Similar, Living):
    """A trained model that answers.

    Args:
        model: what was trained, as arrays.
        engine: searcher by name (``hashlgn.search.SEARCHERS``). The default ``auto`` takes the fastest exact one, and
            an approximate one with a warning from tens of millions of items on. It may be changed at any time.
        threads: processor threads of the search; all where None, the default. It may be changed at any time.

    Raises:
        ArgumentError: ``engine`` or ``threads`` breaks its rule.
    """

    engine: str
    threads: int | None

    def __init__(self, model: ServedModel, *, engine: str = "auto", threads: int | None = None) -> None:
        choose("engine", engine, {"auto": None, **SEARCHERS})
        self._model: ServedModel | None = model
        self.engine, self.threads = engine, thread_count("threads", threads)

    @property
    def model(self) -> ServedModel:
        """The arrays of the trained model.

        Raises:
            NotFittedError: there is none yet.
        """
        if self._model is None:
            raise NotFittedError(f"this {type(self).__name__} is not trained yet: call fit first")
        return self._model

    @property
    def searcher(self) -> Searcher:
        """The searcher over the catalogue, built when first asked, and again where engine or threads change."""
        return self._catalogue("items", self.model, self._items).searcher

    @property
    def direct(self) -> Direct | None:
        """The short way to an answer, which ``recommend`` takes where it can; None where model and engine have none."""
        model = self.model
        return self._kept("direct", (model, self.engine, self.threads), lambda: self._short(model))

    def recommend(
        self,
        users: Any = None,
        k: int | None = None,
        *,
        threshold: float | None = None,
        filter_seen: bool = True,
        allow: Any = None,
        deny: Any = None,
        on_unknown: str = "raise",
        history: Any = None,
        on_empty: str = "popular",
        calibrated: bool = False,
        titles: bool = True,
    ) -> Table:
        """The best items for each user, best first: those with the highest scores ``q_u · o_i``.

        Args:
            users: external ids of users, or one id. Default: every user of the training.
            k: number of items per user; fewer come back where a user has fewer candidates. Default: 10, unless a
                threshold is given.
            threshold: instead of ``k``: every item whose score is greater than this.
            filter_seen: leave out what the user has interacted with. Default: True.
            allow: external ids of the only items that may be answered: one list for all users, a list with one list per
                user asked, or a mapping from each user asked to a list. Default: all items.
            deny: external ids of items that must not be answered, in the same forms; a mapping may leave users out.
            on_unknown: what to do about ids that the training has not seen: ``raise``, the default, or ``skip`` them.
            history: instead of ``users``: the item ids that somebody has interacted with, or a mapping from names to
                such lists, or to mappings from items to strengths. A user of the training is answered by the same
                arithmetic, from the history that is stored.
            on_empty: what to do about somebody without a known item: ``popular``, the default, answers with what most
                users have, lately where times are known; ``skip`` leaves them out; ``raise`` refuses. A threshold finds
                nothing for them.
            calibrated: add a column ``probability``: the chance that the user will interact with the item (see
                ``scoring.calibration``). ``threshold`` is a probability then. Default: False.
            titles: add a column ``title`` where the model knows titles, None for items without. Default: True.

        Returns:
            Columns user, item, score, rank (from 1) and source (``model``, or ``popular``, whose score is a count of
            users), then probability and title, in the order of the users asked. A plain list as ``history`` has no
            name, and the table no column user.

        Raises:
            ArgumentError: an argument breaks its rule, ``k`` and ``threshold`` are both given, or ``calibrated`` is
                asked of a model without a calibration.
            DataError: a value is no id.
            UnknownIdError: an id is unknown and ``on_unknown`` is ``raise``.
            NotFittedError: the model is not trained.
        """
        if threshold is None and allow is None and deny is None and calibrated is False:
            plain = self._plain(users, k, filter_seen, on_unknown, history, on_empty, titles)
            if plain is not None:
                return plain
        asked = self._request(
            users, k, threshold, filter_seen, allow, deny, on_unknown, history, on_empty, calibrated, titles
        )
        return whole(*asked)

    def recommend_batches(
        self,
        users: Any = None,
        k: int | None = None,
        *,
        threshold: float | None = None,
        filter_seen: bool = True,
        allow: Any = None,
        deny: Any = None,
        on_unknown: str = "raise",
        history: Any = None,
        on_empty: str = "popular",
        calibrated: bool = False,
        titles: bool = True,
    ) -> Iterator[Table]:
        """As ``recommend``, a few thousand users at a time, so that the whole answer need not fit in memory.

        There is at least one table, empty where there is nothing to answer.
        """
        asked = self._request(
            users, k, threshold, filter_seen, allow, deny, on_unknown, history, on_empty, calibrated, titles
        )
        return tables(*asked)

    def _plain(
        self, users: Any, k: Any, filter_seen: Any, on_unknown: Any, history: Any, on_empty: Any, titles: Any
    ) -> Table | None:
        """The answer to a plain request (see ``direct``); None where it is none."""
        k = 10 if k is None else k
        flags = type(filter_seen) is bool and type(titles) is bool and type(k) is int and 0 < k < 2**31
        if not flags or self._model is None or (type(on_unknown), type(on_empty)) != (str, str):
            return None
        if on_unknown not in UNKNOWN or on_empty not in _ON_EMPTY:
            return None
        kept = self.__dict__.get("_built", {}).get("direct")
        same = kept is not None and kept[0] == (self._model, self.engine, self.threads)
        direct: Direct | None = kept[1] if kept is not None and same else self.direct  # three calls less
        if direct is None:
            return None
        if history is None:
            ids = [users] if type(users) in (int, str) else users
            few = type(ids) is list and len(ids) <= BATCH
            return direct.answer(ids, False, k, filter_seen, titles) if few else None
        mine = users is None and type(history) is list
        return direct.answer(history, True, k, filter_seen, titles) if mine else None

    def _request(
        self,
        users: Any,
        k: int | None,
        threshold: float | None,
        filter_seen: bool,
        allow: Any,
        deny: Any,
        on_unknown: str,
        history: Any,
        on_empty: str,
        calibrated: bool,
        titles: bool,
    ) -> tuple[Catalogue, Rows, Limits, Ask]:
        """What ``recommend`` is asked, checked and in numbers."""
        model, skip, bounds = self.model, skips(on_unknown), k_or_threshold(k, threshold)
        filter_seen, titles = flag("filter_seen", filter_seen), flag("titles", titles)
        calibration = _calibration(model) if flag("calibrated", calibrated) else None
        if history is None:
            rows = Rows.of_ids(model.user_ids, "users", users, skip, model.stored)
        elif users is None:
            rows = Rows.given(model.item_ids, history, skip)
        else:
            raise ArgumentError("users or history must be given, not both: history is for new users")
        rows = rows.not_empty(choose("on_empty", on_empty, _ON_EMPTY))
        catalogue = self._catalogue("items", model, self._items)
        limits = catalogue.all
        if allow is not None or deny is not None:
            limits = Limits.build(model.item_ids, model.user_ids, rows, allow, deny, skip)
        ask = Ask(
            *bounds, calibration, lambda: popular(model), own=filter_seen, titles=model.titles if titles else None
        )
        return catalogue, rows, limits, ask

    def answer(
        self,
        indptr: Ints,
        indices: Ints,
        strengths: Floats | None = None,
        *,
        k: int | None = None,
        threshold: float | None = None,
        calibrated: bool = False,
        exclude: Exclusion | None = None,
    ) -> Hits:
        """As ``recommend``, from numbers to numbers: no id is looked up, and no table is made. A service calls this.

        Args:
            indptr: bounds of the histories, ``(q + 1,)`` int64.
            indices: item numbers ``(entries,)`` int64, ascending within a history, each once.
            strengths: ``a_ui``, ``(entries,)`` float32, positive; 1 where None.
            k: number of items per row, as in ``recommend``.
            threshold: instead of ``k``, as in ``recommend``.
            calibrated: whether the threshold is a probability.
            exclude: what each row leaves out. Default: its own history.

        Returns:
            Item numbers and scores, row by row. A row without a history has the most popular items, with counts of
            users as scores, and none where a threshold is asked.

        Raises:
            ArgumentError: as ``recommend``, or the histories are malformed.
            NotFittedError: the model is not trained.
        """
        model = self.model
        calibration = _calibration(model) if calibrated else None
        ask = Ask(*k_or_threshold(k, threshold), calibration, lambda: popular(model))
        exclude = Exclusion(len(model.item_ids), indptr, indices) if exclude is None else exclude
        queries, rows = model.queries(indptr, indices, strengths), Rows((indptr, indices), strengths)
        return find(self._catalogue("items", model, self._items), queries, rows, exclude, ask)

    def score(self, users: Any, items: Any) -> Floats:
        """The scores ``q_u · o_i`` of given pairs, as ``recommend`` gives them.

        Args:
            users: external ids of users, or one id, which then stands for all pairs.
            items: external ids of items, one per user, or one id, which then stands for all pairs.

        Returns:
            ``(n,)`` float32.

        Raises:
            ArgumentError: the two have different lengths.
            UnknownIdError: an id is unknown.
            NotFittedError: the model is not trained.
        """
        model = self.model
        user_codes = model.user_ids.encode(listed("users", users), name="users")
        item_codes = model.item_ids.encode(listed("items", items), name="items")
        if len(user_codes) != len(item_codes) and 1 not in (len(user_codes), len(item_codes)):
            raise ArgumentError(f"users and items must have one length (got {len(user_codes)} and {len(item_codes)})")
        user_codes, item_codes = np.broadcast_arrays(user_codes, item_codes)
        asked, numbers = np.unique(user_codes, return_inverse=True)
        return pair_scores(model.items, model.queries_of(asked), numbers, item_codes)

    def queries(self, codes: Ints) -> Floats:
        """The queries ``q_u`` of users of the training by internal number, ``(q, width)``."""
        return self.model.queries_of(codes)

    def info(self) -> dict[str, Any]:
        """What the model is: sizes, bytes (see ``model_bytes``), configuration, validation metrics, provenance. Ready
        for JSON.
        """
        model = self.model
        return model_info(model, self._kept("bytes", model, lambda: model_bytes(model)))

    def staleness(self) -> Staleness:
        """What of this model is newer than its training, and what a refit would bring.

        Raises:
            NotFittedError: the model is not trained.
        """
        model = self.model
        return staleness(model, self._catalogue("items", model, self._items).searcher)

    def __repr__(self) -> str:
        if self._model is None:
            return f"{type(self).__name__}(not trained)"
        info = self.info()
        sizes = f"{counted(info['users'], 'user')}, {counted(info['items'], 'item')}"
        return f"{type(self).__name__}({info['kind']}, {sizes}, {info['bytes']['per_item']:.1f} bytes per item)"

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what is built when it is first asked, such as searchers, and the journal and the past of its
        changes: a copy starts without them.
        """
        return {name: value for name, value in self.__dict__.items() if name not in ("_built", "_held")}

    def _catalogue(self, name: str, model: ServedModel, build: Callable[[ServedModel], Catalogue]) -> Catalogue:
        """What ``build`` makes, kept for as long as model, engine and threads are what they were."""
        return self._kept(name, (model, self.engine, self.threads), lambda: build(model))

    def _kept(self, name: str, key: Any, build: Callable[[], _T]) -> _T:
        """What ``build`` makes, kept for as long as the key is the same."""
        built: dict[str, tuple[Any, Any]] = self.__dict__.setdefault("_built", {})
        held = built.get(name)
        if held is None or held[0] != key:
            held = built[name] = key, build()
        made: _T = held[1]
        return made

    def _short(self, model: ServedModel) -> Direct | None:
        return Direct.of(model, self._catalogue("items", model, self._items).searcher)

    def _searcher(self, items: Items, engine: Any) -> Searcher:
        return build_searcher(items, engine, thread_count("threads", self.threads))

    def _items(self, model: ServedModel) -> Catalogue:
        return Catalogue(
            model.item_ids,
            model.items,
            self._over(model.items) or self._searcher(model.items, self.engine),
            lambda rows: _queries(model, rows),
            model.removed,
        )

    def _over(self, items: Items) -> Searcher | None:
        """The kernel of the state before over changed items, where that needs no build; None where it does."""
        key, last = self.__dict__.get("_built", {}).get("items", (None, None))
        if last is None or key[1:] != (self.engine, self.threads) or not isinstance(items, BlockItems):
            return None
        same = type(last.searcher) is Kernel and last.items.decoder is items.decoder
        return last.searcher.over(items) if same else None


def load(
    path: str | Path,
    *,
    engine: str = "auto",
    threads: int | None = None,
    verify: bool = False,
    journal: str | Path | None = None,
) -> Recommender:
    """Map a saved model into memory, ready to answer; PyTorch is not needed.

    Args:
        path: the file, or the folder in which ``model.safetensors`` lies.
        engine: searcher by name. Default: the fastest exact one.
        threads: processor threads of the search. Default: all.
        verify: whether the file is read whole and its checksums are compared. Default: no; sizes, types, shapes and
            the header always are checked.
        journal: file of the changes since the model was saved, which are made again; further ones are written into it.
            It is made where there is none. Default: none, and changes are lost unless the model is saved.

    Raises:
        ArtifactError: the file is no model, or a damaged, altered or newer one; or as ``Recommender.follow``.
        ArgumentError: ``engine`` or ``threads`` breaks its rule.
    """
    recommender = Recommender(load_artifact(path, verify=verify), engine=engine, threads=threads)
    if journal is not None:
        recommender.follow(journal, model_file(path))
    return recommender


def _calibration(model: ServedModel) -> Calibration:
    if model.calibration is None:
        raise ArgumentError("calibrated needs a model that was calibrated on a validation slice (this one was not)")
    return model.calibration


def _queries(model: ServedModel, rows: Rows) -> Floats:
    """The query of each row, ``(q, width)``."""
    if rows.codes is not None and model.users is not None:
        return model.users[rows.codes]
    return model.queries(*rows.lists, rows.strengths)
