"""What a model is, and what it costs: bytes per item and per user, and what they are spent on."""

from __future__ import annotations

from typing import Any

from hashlgn.inference.artifact import tensor_bytes
from hashlgn.inference.model import ServedModel
from hashlgn.scoring.histories import CodedHistories
from hashlgn.scoring.items import CodedItems

__all__ = ["model_bytes", "model_info"]

_BOUNDS = ("starts", "counts", "largest", "smallest")
_ITEMS = {"codes": "codes", "vectors": "vectors", "scale": "scale", "order": "order"} | dict.fromkeys(_BOUNDS, "bounds")
_HISTORIES = {"codes": "codes", "vectors": "vectors", "level": "weight", "weight": "weight"}
# Parts that grow with the data, by what they are called here; the rest of each model is constant.
_PARTS = {"ids": "ids", "titles": "titles", "genres": "titles", "seen": "stored histories", "encoder": "encoder"}


def model_info(model: ServedModel, spent: dict[str, Any]) -> dict[str, Any]:
    """Sizes, bytes as ``model_bytes`` gives them, configuration, validation metrics and provenance, ready for JSON."""
    items, histories = model.items, model.histories
    return {
        "kind": model.kind,
        "users": len(model.user_ids),
        "items": len(model.item_ids),
        "interactions": len(model.stored.flat.indices),
        "bits": items.decoder.bits if isinstance(items, CodedItems) else None,
        "history_bits": 4 * len(histories.codewords) if isinstance(histories, CodedHistories) else None,
        "bytes": spent,
        "query_width": items.width,
        "metrics": model.metrics,
        "config": model.config,
        "provenance": model.provenance,
    }


def model_bytes(model: ServedModel) -> dict[str, Any]:
    """Bytes of a saved model without its manifest, exact, ready for JSON.

    Returns:
        ``total``; ``per_item``, of both sides of an item: the answer and what counts in a history; ``per_user``, of
        vectors of users, 0 where users are their histories; ``items`` and ``histories``, bytes by what they hold
        (codes, scale, order, bounds of blocks, weight, vectors); ``users``; ``constants``, which do not grow with the
        data (codewords, calibration, an encoder's map of histories); ``ids``; ``titles``; ``stored histories``, those
        of the training's users; ``encoder``, parameters for another training.
    """
    total: dict[str, int] = dict.fromkeys(("users", "constants", *_PARTS.values()), 0)
    sides: dict[str, dict[str, int]] = {"items": {}, "histories": {}}
    sizes = tensor_bytes(model)
    for tensor, size in sizes.items():
        part, name = tensor.split(".", 1)
        what = {"items": _ITEMS, "histories": _HISTORIES}.get(part, {}).get(name)
        if what is not None:
            sides[part][what] = sides[part].get(what, 0) + size
        else:
            total["users" if part == "users" else _PARTS.get(part, "constants")] += size
    both = sum(sum(side.values()) for side in sides.values())
    return {
        "total": sum(sizes.values()),
        "per_item": both / max(len(model.item_ids), 1),
        "per_user": total["users"] / max(len(model.user_ids), 1),
        **sides,
        **total,
    }
