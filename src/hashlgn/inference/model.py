"""A trained model as it is served: arrays that fit together, and nothing that needs PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data.ids import Ids
from hashlgn.errors import ArgumentError, shown
from hashlgn.inference.live import Live
from hashlgn.inference.stored import Stored
from hashlgn.inference.texts import Tags, Texts
from hashlgn.scoring.calibration import Calibration
from hashlgn.scoring.decoders import CodebookDecoder, Floats, ReweightDecoder
from hashlgn.scoring.fold_in import FoldIn
from hashlgn.scoring.histories import Histories, queries
from hashlgn.scoring.items import FloatItems, Items
from hashlgn.search.block_items import BlockItems
from hashlgn.utils.pages import Pages
from hashlgn.utils.storage import json_text

__all__ = ["RECENT", "ServedModel"]

RECENT = 0.1  # share of the interactions that is recent


@dataclass(frozen=True, eq=False, repr=False)
class ServedModel:
    """A trained model as it is served: arrays alone, nothing that needs torch.

    Attributes:
        kind: ``hashlgn``, or ``float``.
        config: the configuration it was trained with, JSON-able (tuples come back as lists).
        user_ids: external ids of the users.
        item_ids: external ids of the items.
        items: the catalogue, items as answers.
        stored: the histories of the users.
        histories: items in a history, ``p_i``, or how an encoder folds histories in; None where only the users of the
            training can be answered.
        users: a vector for each user of the training, ``f(q)``, ``(n_users, width)`` float32. None, as for every
            default model, where a user is the history.
        calibration: the map from scores to probabilities, or None.
        titles: one string per item, or None; a list becomes ``Texts``.
        genres: one tuple of strings per item, or None; a list becomes ``Tags``.
        metrics: validation metrics at training, JSON-able.
        provenance: version, data fingerprint, seed, machine, threads, time of creation and the like,
            JSON-able.
        encoder_state: the encoder's parameters by name, float32, or None.
        live: what is known of the changes since the training, or None where there were none.
        contents: whether all numbers are read and checked (finite floats, ranges of histories); types, shapes and what
            is small always are.

    Raises:
        ArgumentError: an array has another type or shape, or the parts do not fit together.
    """

    kind: str
    config: dict[str, Any]
    user_ids: Ids
    item_ids: Ids
    items: Items
    stored: Stored
    histories: FoldIn | Histories | None = None
    users: Floats | None = None
    calibration: Calibration | None = None
    titles: Sequence[str] | None = None
    genres: Sequence[tuple[str, ...]] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    encoder_state: dict[str, Floats] | None = None
    live: Live | None = None
    contents: InitVar[bool] = True

    def __post_init__(self, contents: bool) -> None:
        if not isinstance(self.kind, str) or not self.kind:
            raise ArgumentError(f"kind must be a name (got {shown(self.kind)})")
        for name in ("config", "metrics", "provenance"):
            value = getattr(self, name)
            if not isinstance(value, dict):
                raise ArgumentError(f"{name} must be a dict (got {type(value).__name__})")
            if contents:  # what comes from a file or a model was checked before
                json_text(name, value)
        n_users, n_items = len(self.user_ids), len(self.item_ids)
        if self.users is not None:
            _check("users", self.users, "float32", (n_users, self.items.width), contents)
        elif self.histories is None:
            raise ArgumentError("histories must be given where there are no users' vectors (got None)")
        if len(self.items) != n_items:
            raise ArgumentError(f"items must be {n_items}, one per item id (got {len(self.items)})")
        _check_items(self.items, contents)
        self.stored.check(n_users, n_items, contents)
        for name, array in (self.encoder_state or {}).items():
            _check(f"encoder_state[{name!r}]", array, "float32", (None,) * np.ndim(array), contents)
        if isinstance(self.histories, FoldIn):
            _check_fold_in(self.histories, n_items, self.items.width, contents)
        elif self.histories is not None:
            sizes = len(self.histories), self.histories.width
            if sizes != (n_items, self.items.width):
                raise ArgumentError(f"histories must be {n_items} of width {self.items.width} (got {sizes})")
        if self.live is not None:
            for name in ("counts", "removed"):
                array = getattr(self.live, name)
                if array is not None and len(array) != n_items:
                    raise ArgumentError(f"live.{name} must have length {n_items} (got {len(array)})")
        for name, kind, what in (("titles", Texts, "strings"), ("genres", Tags, "tuples of strings")):
            values = getattr(self, name)
            if values is None or (isinstance(values, kind) and len(values) == n_items):
                continue
            if not isinstance(values, list | tuple) or len(values) != n_items:
                raise ArgumentError(f"{name} must be a list of {n_items} {what}, one per item")
            try:
                object.__setattr__(self, name, kind.of(values))
            except ArgumentError as error:
                raise ArgumentError(f"{name} must be a list of {n_items} {what}, one per item ({error})") from error

    def changed(self, **values: Any) -> ServedModel:
        """The same with other values of some fields, which are not checked."""
        made = object.__new__(ServedModel)
        made.__dict__.update({name: self.__dict__[name] for name in _FIELDS} | values)
        return made

    @property
    def seen(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """The histories of all users in compressed-row form: ``indptr (n_users + 1,)``, and ``indices``, strictly
        ascending within a user. After a change, the first question copies all of them.
        """
        return self.stored.flat.indptr, self.stored.flat.indices

    @property
    def strengths(self) -> Floats | None:
        """``a_ui`` of the interactions in ``seen``, positive, aligned with ``indices``; 1 where None."""
        return self.stored.flat.strengths

    @property
    def times(self) -> npt.NDArray[np.int64] | None:
        """Times of the interactions in ``seen``, or None."""
        return self.stored.flat.times

    @property
    def removed(self) -> npt.NDArray[np.bool_] | None:
        """Items that are never answered, ``(n_items,)``, or None."""
        return None if self.live is None else self.live.removed

    def __repr__(self) -> str:
        return f"ServedModel({self.kind}, {len(self.user_ids):,} users, {len(self.item_ids):,} items)"

    def queries(
        self, indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.integer[Any]], strengths: Floats | None = None
    ) -> Floats:
        """Queries of histories in compressed-row form, ``(q, width)`` float32: ``q_u = normalise(Σ_{i∈H_u} a_ui p_i)``.

        Neither the order within a history nor the batch changes a bit.

        Raises:
            ArgumentError: the arrays do not fit, an item is not in the catalogue or twice in a history, a strength is
                not positive and finite, or this model has no histories.
        """
        if self.histories is None:
            raise ArgumentError("history needs a model that knows items in histories (this one has users' vectors)")
        if isinstance(self.histories, FoldIn):
            return self.histories.queries(indptr, indices)
        return queries(self.histories, indptr, indices, strengths)

    def queries_of(self, users: npt.NDArray[np.integer[Any]]) -> Floats:
        """Queries of users of the training by number, ``(q, width)``: their vectors, or their stored histories'."""
        if self.users is not None:
            vectors: Floats = self.users[users]
            return vectors
        return self.queries(*self.stored.rows(np.ascontiguousarray(users, np.int64)))

    @property
    def item_counts(self) -> npt.NDArray[np.int64]:
        """How many users have each item, ``(n_items,)``."""
        return self.counts.whole

    @cached_property
    def counts(self) -> Pages:
        """The same in pages."""
        items, n_items = self.seen[1], len(self.item_ids)
        if len(items) and not 0 <= items.min() <= items.max() < n_items:  # a file that was damaged since
            raise ArgumentError(f"seen.indices must lie in 0 … {n_items - 1} (got {items.min()} … {items.max()})")
        return Pages.of(np.bincount(items, minlength=n_items))

    @cached_property
    def popularity(self) -> npt.NDArray[np.float64]:
        """What ranks items for somebody of whom nothing is known, ``(n_items,)``: how many of the training's users have
        an item. Where interactions have times, those of the newest tenth count first, the others break ties.
        """
        counts = self.item_counts.astype(np.float64)
        if self.times is None or not len(self.times):
            return counts
        newest = self.times >= np.quantile(self.times, 1 - RECENT)
        recent: npt.NDArray[np.float64] = counts / (counts.max() + 1)
        recent += np.bincount(self.seen[1][newest], minlength=len(counts))
        return recent

    @cached_property
    def most_popular(self) -> npt.NDArray[np.int64]:
        """All items by falling popularity, ties by number, ``(n_items,)``."""
        return np.argsort(-self.popularity, kind="stable")


_FIELDS = tuple(one.name for one in fields(ServedModel))


def _check(name: str, array: Any, dtype: str, shape: tuple[int | None, ...], contents: bool = True) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        kind = array.dtype.name if isinstance(array, np.ndarray) else type(array).__name__
        raise ArgumentError(f"{name} must be an array of {dtype} (got {kind})")
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        raise ArgumentError(f"{name} must have shape {shape} (got {array.shape})")
    if contents and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ArgumentError(f"{name} must be finite")


def _check_items(items: Items, contents: bool) -> None:
    if isinstance(items, FloatItems):
        _check("items.vectors", items.vectors, "float32", (None, None), contents)
        return
    if isinstance(items, BlockItems):  # of a file: their arrays were checked when it was read
        for scale in (one.scale for one in items.segments if one.scale is not None):
            _check("items.scale", scale, "float16", (None,), contents)
    else:
        _check("items.packed", items.packed, "uint8", (None, None))
        if items.scale is not None:
            _check("items.scale", items.scale, "float16", (len(items),))
    decoder = items.decoder
    if isinstance(decoder, ReweightDecoder):
        for name, weights in (("alpha", decoder.alpha), ("beta", decoder.beta)):
            _check(f"items.{name}", weights, "float32", (decoder.bits,), contents)
            if (weights < 0).any():
                raise ArgumentError(f"items.{name} must not be negative")
    elif isinstance(decoder, CodebookDecoder):
        _check("items.codewords", decoder.codewords, "float32", (None, 16, None), contents)
    else:
        raise ArgumentError(f"items.decoder must be a reweight or codebook decoder (got {type(decoder).__name__})")


def _check_fold_in(fold_in: FoldIn, n_items: int, width: int, contents: bool) -> None:
    vectors = fold_in.item_vectors
    if not isinstance(vectors, np.ndarray) or vectors.dtype.name not in ("float16", "float32"):
        raise ArgumentError("fold_in.item_vectors must be an array of float16 or float32")
    _check("fold_in.item_vectors", vectors, vectors.dtype.name, (n_items, None), contents)
    out = vectors.shape[1]
    for depth, (weight, bias) in enumerate(fold_in.layers):
        _check(f"fold_in.weight.{depth}", weight, "float32", (None, out))
        out = weight.shape[0]
        _check(f"fold_in.bias.{depth}", bias, "float32", (out,))
    if out != width:
        raise ArgumentError(f"fold_in must end in queries of width {width} (got {out})")
