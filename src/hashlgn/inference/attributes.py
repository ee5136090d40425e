"""Where an item starts that nobody has yet: at the mean of its neighbours by attributes, such as genres or vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import linalg

from hashlgn.errors import ArgumentError, shown
from hashlgn.inference.model import ServedModel

__all__ = ["Neighbours", "neighbours"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Neighbours = dict[int, tuple[Ints, Floats]]  # by number of an item: items of the catalogue, and weights that sum to 1

_NEAREST = 20  # neighbours, and all that are as near as the last of them
_KNOWN = 5  # interactions from which on an item is a neighbour: others hardly have a place themselves


def neighbours(
    model: ServedModel, ids: list[Any], numbers: Ints, attributes: Any, genres: Mapping[int, tuple[str, ...]]
) -> Neighbours:
    """The items of the catalogue that are nearest to new ones, by the cosine of attributes, which is their weight.

    Args:
        model: before the change.
        ids: of the new items.
        numbers: their numbers.
        attributes: None for no neighbours; ``genres``; or a mapping from ids, of new items and of items of the
            catalogue, to vectors.
        genres: of the new items, by number.

    Raises:
        ArgumentError: it is something else, an item has no vector, vectors are not finite numbers of one length, or
            none is of an item that can be a neighbour.
    """
    if attributes is None:
        return {}
    known = np.flatnonzero(model.item_counts >= _KNOWN)
    if model.removed is not None:
        known = known[~model.removed[known]]
    if isinstance(attributes, str) and attributes == "genres":
        if model.genres is None:
            raise ArgumentError("attributes='genres' needs a model that knows genres (this one does not)")
        tags = model.genres
        there = len(tags)  # an item that comes back has the genres that it had
        new_tags = [genres.get(n, tags[n] if n < there else ()) for n in numbers.tolist()]
        rows = _by_genre(new_tags, [tags[i] for i in known.tolist()])
    elif isinstance(attributes, Mapping):
        known, rows = _by_vector(model, ids, known, attributes)
    else:
        raise ArgumentError(f"attributes must be 'genres', or a mapping from ids to vectors (got {shown(attributes)})")
    new, old = (part.multiply(1 / np.maximum(linalg.norm(part, axis=1), 1e-12)[:, None]).tocsr() for part in rows)
    found: Neighbours = {}
    for place, number in enumerate(numbers.tolist()):
        cosines = np.asarray((old @ new[place].T).todense(), np.float32).ravel()
        if not (cosines > 0).any():  # like nothing that is known: an average item
            continue
        least = np.partition(cosines, -min(_NEAREST, len(cosines)))[-min(_NEAREST, len(cosines))]
        chosen = np.flatnonzero((cosines >= least) & (cosines > 0))
        found[number] = known[chosen], cosines[chosen] / cosines[chosen].sum()
    return found


def _by_genre(new: list[tuple[str, ...]], old: list[tuple[str, ...]]) -> tuple[Any, Any]:
    """Genres as rows of zeros and ones."""
    place: dict[str, int] = {}
    columns = [[place.setdefault(name, len(place)) for name in dict.fromkeys(names)] for names in (*new, *old)]
    bounds = np.cumsum([0, *map(len, columns)])
    flat = np.array([column for row in columns for column in row], np.int64)
    rows = sparse.csr_matrix((np.ones(len(flat), np.float32), flat, bounds), (len(columns), max(len(place), 1)))
    return rows[: len(new)], rows[len(new) :]


def _by_vector(
    model: ServedModel, ids: list[Any], known: Ints, attributes: Mapping[Any, Any]
) -> tuple[Ints, tuple[Any, Any]]:
    """Vectors that a caller gave: the known items that have one, and rows of new and of known items."""
    missing = [key for key in ids if key not in attributes]
    if missing:
        raise ArgumentError(f"attributes must have a vector for each new item (got none for {shown(missing[0])})")
    named = [key for key in attributes if key not in set(ids)]
    numbers = model.item_ids.encode(named, name="attributes") if named else np.empty(0, np.int64)
    try:
        vectors = np.array([attributes[key] for key in (*ids, *named)], np.float32)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"attributes must be vectors of one length ({error})") from error
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ArgumentError(f"attributes must be finite vectors of one length (got an array of shape {vectors.shape})")
    kept = np.isin(numbers, known)
    if not kept.any():
        raise ArgumentError(f"attributes must have a vector for an item that {_KNOWN} users have (got none)")
    return numbers[kept], (sparse.csr_matrix(vectors[: len(ids)]), sparse.csr_matrix(vectors[len(ids) :][kept]))
