"""External ids in, items and scores out: recommend, find similar items, save, load. PyTorch is not needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Ids
from hashlgn.errors import ArgumentError, NotFittedError, choose, positive_int, threshold_value
from hashlgn.inference.artifact import load_artifact, save_artifact
from hashlgn.inference.model import ServedModel
from hashlgn.inference.tables import Table
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion, rows_of
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.search import Hits, Searcher, build_searcher

__all__ = ["BATCH", "Recommender", "load"]

BATCH = 2048  # users answered at a time
Ints = npt.NDArray[np.int64]


class Recommender:
    """A trained model that answers.

    Args:
        model: what was trained, as arrays.
        engine: searcher by name (``hashlgn.search.SEARCHERS``); ``auto`` takes the fastest exact
            one, an approximate one with a warning from tens of millions of items on.
        threads: processor threads of the search; all where None.
    """

    def __init__(self, model: ServedModel, *, engine: str = "auto", threads: int | None = None) -> None:
        self._model: ServedModel | None = model
        self.engine, self.threads = engine, threads

    @property
    def model(self) -> ServedModel:
        """The arrays of the trained model.

        Raises:
            NotFittedError: there is none yet.
        """
        if self._model is None:
            raise NotFittedError(f"this {type(self).__name__} is not trained yet: call fit first")
        return self._model

    @cached_property
    def searcher(self) -> Searcher:
        """The searcher over the catalogue, built when first asked."""
        return build_searcher(self.model.items, self.engine, self.threads)

    def recommend(
        self,
        users: Any = None,
        k: int = 10,
        *,
        threshold: float | None = None,
        filter_seen: bool = True,
        allow: Any = None,
        deny: Any = None,
        on_unknown: str = "raise",
        history: Any = None,
    ) -> Table:
        """The best items for each user, best first.

        Args:
            users: external ids of users, or one id; every user of the training where None.
            k: number of items a user; fewer come back where a user has fewer candidates.
            threshold: instead of the k best, every item whose score is greater than this.
            filter_seen: leave out what the user has interacted with.
            allow: external ids of the only items that may be answered, or None for all.
            deny: external ids of items that must not be answered.
            on_unknown: what to do about ids that the training has not seen, in ``users``, ``allow``, ``deny`` and
                ``history``: ``raise``, or ``skip`` them.
            history: instead of ``users``: the item ids that one new user has interacted with, or a mapping from names
                of new users to such lists. The model's propagation rule folds them in; nothing is trained. The one
                user of a plain list is called 0.

        Returns:
            Columns user, item, score and rank (from 1), in the order of the users asked.

        Raises:
            ArgumentError: an argument breaks its rule.
            UnknownIdError: an id is unknown and ``on_unknown`` is ``raise``.
            NotFittedError: the model is not trained.
        """
        parts = self.recommend_batches(
            users,
            k,
            threshold=threshold,
            filter_seen=filter_seen,
            allow=allow,
            deny=deny,
            on_unknown=on_unknown,
            history=history,
        )
        return Table.concatenate(list(parts))

    def recommend_batches(
        self,
        users: Any = None,
        k: int = 10,
        *,
        threshold: float | None = None,
        filter_seen: bool = True,
        allow: Any = None,
        deny: Any = None,
        on_unknown: str = "raise",
        history: Any = None,
    ) -> Iterator[Table]:
        """As ``recommend``, a few thousand users at a time, so that the whole answer need not fit in memory.

        There is at least one table, empty where there is nothing to answer.
        """
        model = self.model
        skip = choose("on_unknown", on_unknown, {"raise": False, "skip": True})
        k = positive_int("k", k)
        threshold = None if threshold is None else threshold_value("threshold", threshold)
        allowed, denied = self._items("allow", allow, skip), self._items("deny", deny, skip)
        if history is not None:
            if users is not None:
                raise ArgumentError("history stands for new users: users must be None where history is given")
            names, histories = self._histories(history, skip)
        else:
            codes = np.arange(len(model.user_ids)) if users is None else self._users(users, skip)

        def batches() -> Iterator[Table]:
            count = len(names) if history is not None else len(codes)
            for start in range(0, max(count, 1), BATCH):
                if history is not None:
                    seen = rows_of(histories, np.arange(start, min(start + BATCH, count)))
                    labels = names[start : start + BATCH]
                    queries = model.fold_in.queries(*seen) if model.fold_in is not None else model.users[:0]
                else:
                    chunk = codes[start : start + BATCH]
                    seen, queries, labels = rows_of(model.seen, chunk), model.users[chunk], model.user_ids.decode(chunk)
                exclude = Exclusion.build(
                    len(model.items), seen=seen if filter_seen else None, allow=allowed, deny=denied
                )
                hits = (
                    self.searcher.search(queries, k, exclude)
                    if threshold is None
                    else self.searcher.search_above(queries, threshold, exclude)
                )
                yield self._table("user", labels, "item", hits)

        return batches()

    def similar_items(self, items: Any, k: int = 10) -> Table:
        """The items most similar to each item, by the cosine of their vectors: of ``g(c)`` where items are codes.

        Args:
            items: external ids of items, or one id.
            k: number of neighbours an item; the item itself is left out.

        Returns:
            Columns item, similar, score (cosine) and rank (from 1).

        Raises:
            ArgumentError: k is no positive integer.
            UnknownIdError: an item is unknown.
            NotFittedError: the model is not trained.
        """
        k, codes = positive_int("k", k), self.model.item_ids.encode(_listed(items), name="items")
        vectors, searcher = self._similarity
        exclude = Exclusion.build(len(self.model.items), seen=(np.arange(len(codes) + 1), codes))
        hits = searcher.search(vectors(codes), k, exclude)
        return self._table("item", self.model.item_ids.decode(codes), "similar", hits)

    def save(self, folder: str | Path) -> Path:
        """Write the model to a folder, all or nothing; an artifact that is there is replaced.

        Raises:
            ArtifactError: it cannot be written; what was there before is untouched.
            ArgumentError: the folder holds something else than an artifact.
            NotFittedError: the model is not trained.
        """
        return save_artifact(self.model, folder)

    def info(self) -> dict[str, Any]:
        """What the model is: sizes, configuration, validation metrics, provenance. Ready for JSON."""
        model, items = self.model, self.model.items
        return {
            "kind": model.kind,
            "users": len(model.user_ids),
            "items": len(model.item_ids),
            "interactions": len(model.seen[1]),
            "bits": items.decoder.bits if isinstance(items, CodedItems) else None,
            "bytes_per_item": items.bytes_per_item,
            "query_width": items.width,
            "metrics": model.metrics,
            "config": model.config,
            "provenance": model.provenance,
        }

    def __repr__(self) -> str:
        if self._model is None:
            return f"{type(self).__name__}(not trained)"
        model = self._model
        return (
            f"{type(self).__name__}({model.kind}, {len(model.user_ids):,} users, {len(model.item_ids):,} items, "
            f"{model.items.bytes_per_item:g} bytes an item)"
        )

    @cached_property
    def _similarity(self) -> tuple[Callable[[Ints], Floats], Searcher]:
        """Unit vectors of items by number, and a searcher whose scores against them are cosines."""
        items = self.model.items
        if isinstance(items, FloatItems):
            unit = _unit(items.vectors)
            return lambda codes: unit[codes], build_searcher(FloatItems(unit), self.engine, self.threads)
        blocks = (items.packed[start : start + 65_536] for start in range(0, len(items), 65_536))
        lengths = [np.linalg.norm(items.decoder.decode(block), axis=1) for block in blocks]
        scale = 1 / np.maximum(np.concatenate([np.empty(0, np.float32), *lengths]), 1e-12)
        coded = CodedItems(items.packed, items.decoder, scale)
        return (
            lambda codes: _unit(coded.decoder.decode(coded.packed[codes])),
            build_searcher(coded, self.engine, self.threads),
        )

    def _table(self, label: str, labels: npt.NDArray[Any], answer: str, hits: Hits) -> Table:
        counts = np.diff(hits.indptr)
        return Table(
            {
                label: np.repeat(labels, counts),
                answer: self.model.item_ids.decode(hits.items),
                "score": hits.scores,
                "rank": np.arange(len(hits.items)) - np.repeat(hits.indptr[:-1], counts) + 1,
            }
        )

    def _users(self, users: Any, skip: bool) -> Ints:
        codes = self.model.user_ids.encode(_listed(users), name="users", on_unknown="mark" if skip else "raise")
        return codes[codes >= 0]

    def _items(self, name: str, items: Any, skip: bool) -> Ints | None:
        if items is None:
            return None
        codes = self.model.item_ids.encode(_listed(items), name=name, on_unknown="mark" if skip else "raise")
        return codes[codes >= 0]

    def _histories(self, history: Any, skip: bool) -> tuple[npt.NDArray[Any], tuple[Ints, Ints]]:
        """Names of new users, and their item numbers in compressed-row form, ascending, each once."""
        if self.model.fold_in is None:
            raise ArgumentError("history needs a model saved with its fold-in (this one has none)")
        lists = history if isinstance(history, Mapping) else {0: history}
        rows, names = [], []
        for name, items in lists.items():
            codes = self._items("history", items, skip)
            if skip and codes is not None and not len(codes):
                continue
            if codes is None or not len(codes):
                raise ArgumentError(f"history must hold at least one known item for every user (got none for {name!r})")
            names.append(name)
            rows.append(np.unique(codes))
        indptr = np.cumsum([0, *map(len, rows)])
        ids, codes = Ids.from_values(names, name="names in history")
        return ids.decode(codes), (indptr, np.concatenate(rows) if rows else np.empty(0, np.int64))


def load(folder: str | Path, *, engine: str = "auto", threads: int | None = None) -> Recommender:
    """Load a saved model, ready to answer; PyTorch is not needed.

    Raises:
        ArtifactError: the folder is no artifact, or a damaged, altered or newer one.
    """
    return Recommender(load_artifact(folder), engine=engine, threads=threads)


def _listed(values: Any) -> Any:
    """One id as a list of one."""
    return [values] if isinstance(values, str) or not isinstance(values, Iterable) else values


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
