"""Similar items and similar users, by the cosine of their vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Ids
from hashlgn.errors import flag, k_or_threshold
from hashlgn.inference.answering import Ask, Catalogue, whole
from hashlgn.inference.model import ServedModel
from hashlgn.inference.requests import Limits, Rows, skips
from hashlgn.inference.tables import Table
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.items import CodedItems, FloatItems, Items
from hashlgn.search import Searcher

__all__ = ["Similar"]


class Similar:
    """What is similar to what, in a model that answers."""

    engine: str

    if TYPE_CHECKING:

        @property
        def model(self) -> ServedModel:
            """The arrays of the trained model."""

        def _catalogue(self, name: str, model: ServedModel, build: Callable[[ServedModel], Catalogue]) -> Catalogue: ...
        def _searcher(self, items: Items, engine: Any) -> Searcher: ...

    def similar_items(
        self,
        items: Any,
        k: int | None = None,
        *,
        threshold: float | None = None,
        allow: Any = None,
        deny: Any = None,
        on_unknown: str = "raise",
        titles: bool = True,
    ) -> Table:
        """The items most similar to each item, by the cosine of their vectors: of ``g(c)`` where items are codes.

        Args:
            items: external ids of items, or one id. The item itself is left out of its answer.
            k: number of neighbours per item. Default: 10, unless a threshold is given.
            threshold: instead of ``k``: every item whose cosine is greater than this.
            allow: external ids of the only items that may be answered, as in ``recommend``: for all, or per item asked.
            deny: external ids of items that must not be answered, in the same forms.
            on_unknown: what to do about unknown ids: ``raise``, the default, or ``skip`` them.
            titles: add a column ``title``, that of the similar item, where the model knows titles. Default: True.

        Returns:
            Columns item, similar, score (cosine) and rank (from 1), and title.

        Raises:
            ArgumentError: an argument breaks its rule, or ``k`` and ``threshold`` are both given.
            UnknownIdError: an id is unknown and ``on_unknown`` is ``raise``.
            NotFittedError: the model is not trained.
        """
        bounds = k_or_threshold(k, threshold)
        return self._similar("item", self._similar_items, items, bounds, (allow, deny), on_unknown, titles)

    def similar_users(
        self,
        users: Any,
        k: int | None = None,
        *,
        threshold: float | None = None,
        allow: Any = None,
        deny: Any = None,
        on_unknown: str = "raise",
    ) -> Table:
        """The users of the training who are most similar to each user, by the cosine of their queries ``f(q)``.

        Arguments and errors are those of ``similar_items``, of users in place of items. A user is left out of their own
        answer.

        Returns:
            Columns user, similar, score (cosine) and rank (from 1).
        """
        bounds = k_or_threshold(k, threshold)
        return self._similar("user", self._similar_users, users, bounds, (allow, deny), on_unknown, False)

    def _similar_items(self, model: ServedModel) -> Catalogue:
        """Unit vectors of items: scores are cosines."""
        items = model.items
        if isinstance(items, FloatItems):
            return self._cosines(model.item_ids, _unit(items.vectors), self.engine, model.removed)
        blocks = (items.packed[start : start + 65_536] for start in range(0, len(items), 65_536))
        lengths = [np.linalg.norm(items.decoder.decode(block), axis=1) for block in blocks]
        scale = 1 / np.maximum(np.concatenate([np.empty(0, np.float32), *lengths]), 1e-12)
        coded = CodedItems(items.packed, items.decoder, scale)

        def queries(rows: Rows) -> Floats:
            return _unit(coded.decoder.decode(coded.packed[rows.codes]))

        return Catalogue(model.item_ids, coded, self._searcher(coded, self.engine), queries, model.removed)

    def _similar_users(self, model: ServedModel) -> Catalogue:
        return self._cosines(model.user_ids, _unit(model.queries_of(np.arange(len(model.user_ids)))), "auto")

    def _cosines(self, ids: Ids, unit: Floats, engine: Any, removed: npt.NDArray[np.bool_] | None = None) -> Catalogue:
        items = FloatItems(unit)
        return Catalogue(ids, items, self._searcher(items, engine), lambda rows: unit[rows.codes], removed)

    def _similar(
        self,
        side: str,
        build: Callable[[ServedModel], Catalogue],
        values: Any,
        bounds: tuple[int | None, float | None],
        limits: tuple[Any, Any],
        on_unknown: str,
        titles: bool,
    ) -> Table:
        model = self.model
        ids, skip, titles = getattr(model, f"{side}_ids"), skips(on_unknown), flag("titles", titles)
        rows = Rows.of_ids(ids, f"{side}s", values, skip)
        ask = Ask(*bounds, columns=(side, "similar"), titles=model.titles if titles else None)
        catalogue = self._catalogue(f"similar {side}s", model, build)
        return whole(catalogue, rows, Limits.build(ids, ids, rows, *limits, skip), ask)


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
