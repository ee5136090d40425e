"""What the page asks of a model beside recommendations: a map of the catalogue, and one item with its codes as bits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.inference.model import ServedModel
from hashlgn.scoring.codes import Bytes
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.histories import CodedHistories
from hashlgn.scoring.items import CodedItems, Items

__all__ = ["MAP_ITEMS", "item_details", "map_of", "plane"]

MAP_ITEMS = 100_000  # items on a map; of a larger catalogue the most popular ones
_BLOCK = 8192  # items that are decoded at a time
_STEPS = 65_535  # coordinates are integers from 0 to this

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


def map_of(model: ServedModel) -> dict[str, Any]:
    """The map of a catalogue, ready for JSON.

    Returns:
        ``items``, the ids, most popular first; ``x`` and ``y``, their places as integers from 0 to 65,535, one scale
        for both axes; ``genre``, the place of the item's first genre in ``genres``, or −1; ``genres``, the names, most
        frequent first; ``catalogue``, the number of items of the model.
    """
    numbers = np.argsort(-model.popularity, kind="stable")[:MAP_ITEMS]
    places = plane(model.items, numbers)
    low = places.min(axis=0, initial=np.inf)
    span = float((places - low).max(initial=0.0)) or 1.0
    x, y = np.rint((places - low) / span * _STEPS).astype(np.int64).T
    first = [""] * len(numbers) if model.genres is None else [(*model.genres[i], "")[0] for i in numbers.tolist()]
    names = [name for name, _ in Counter(first).most_common() if name]
    place = {name: number for number, name in enumerate(names)}
    return {
        "catalogue": len(model.item_ids),
        "items": model.item_ids.decode(numbers).tolist(),
        "x": x.tolist(),
        "y": y.tolist(),
        "genre": [place.get(name, -1) for name in first],
        "genres": names,
    }


def plane(items: Items, numbers: Ints) -> Doubles:
    """Two coordinates per item, ``(n, 2)``: the first two principal components of the directions of decoded vectors.

    Lengths are left out: they follow how popular items are. The sign of a component is the one in which its largest
    weight is positive, so that the same model gives the same map.

    Args:
        items: the catalogue.
        numbers: items, ``(n,)``.
    """
    total, products = np.zeros(items.width), np.zeros((items.width, items.width))
    blocks = range(0, len(numbers), _BLOCK)
    for start in blocks:
        vectors = _directions(items, numbers[start : start + _BLOCK])
        total += vectors.sum(axis=0, dtype=np.float64)
        products += vectors.T @ vectors
    mean = total / max(1, len(numbers))
    weights = np.linalg.eigh(products - np.outer(mean, total))[1][:, :-3:-1]
    if weights.shape[1] < 2:  # vectors of a single number
        weights = np.pad(weights, ((0, 0), (0, 1)))
    weights = weights * np.sign(weights[np.abs(weights).argmax(axis=0), [0, 1]])
    places = [(_directions(items, numbers[start : start + _BLOCK]) - mean) @ weights for start in blocks]
    return np.concatenate([np.empty((0, 2)), *places])


def item_details(model: ServedModel, number: int) -> dict[str, Any]:
    """One item, ready for JSON: id, title, genres, how many users of the training have it, scale and bits.

    ``code`` and ``history_code`` are strings of 0 and 1, four characters per sub-code, the first bit first; None where
    the model keeps floats.
    """
    items, histories = model.items, model.histories
    coded = items if isinstance(items, CodedItems) else None
    scale = None if coded is None else coded.scale
    return {
        "item": model.item_ids.decode(np.array([number])).tolist()[0],
        "title": (model.titles[number] or None) if model.titles is not None else None,
        "genres": None if model.genres is None else list(model.genres[number]),
        "users": int(model.counts.take(np.array([number]))[0]),
        "scale": None if scale is None else float(scale[number]),
        "code": None if coded is None else _bits(coded.packed[number]),
        "history_code": _bits(histories.take(np.array([number]))[0][0])
        if isinstance(histories, CodedHistories)
        else None,
    }


def _directions(items: Items, numbers: Ints) -> Floats:
    vectors = items.take(numbers).decode()
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def _bits(packed: Bytes) -> str:
    return "".join(map(str, np.unpackbits(packed, bitorder="little").tolist()))
