"""A trained model on disk: one file, ``model.safetensors``, that is mapped and answers at once; no pickle.

Tensors by part; ``FORMS`` says how each kind of part is written and read.

    items.*        codes, starts, counts, order, scale, largest, smallest: the catalogue in blocks, as the kernel reads
                   it (``hashlgn.search.block_items``); codewords, or alpha and beta, of the decoder; ``vectors`` of
                   floats
    histories.*    codes, codewords, level and levels of the weights: items in a history; ``vectors`` of floats, and
                   weight.0, bias.0, weight.1, … where an encoder folds histories in
    seen.*         indptr int64 (n_users + 1,), indices int32: the histories of the training's users; strengths, times
    live.*         newer bool (interactions,), counts int32 and removed bool (n_items,): what has changed
    placement.*    float32: where new items go (:mod:`hashlgn.inference.placement`)
    users.*        queries float32 (n_users, width), of models with an encoder alone
    calibration.*  knots of the map from scores to probabilities
    ids.users.*, ids.items.*    external ids
    titles.*, genres.*          texts of the items: UTF-8 bytes and offsets
    encoder.*      the encoder's parameters, float32, for a training that starts from them

The manifest (:mod:`hashlgn.utils.tensors`) holds kind, configuration, metrics, provenance, the form of each part and
the checksum of each tensor. A save is all or nothing: a kill at any moment leaves the old file or the new.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hashlgn.data.ids import Ids
from hashlgn.errors import ArtifactError
from hashlgn.inference.live import Live
from hashlgn.inference.model import ServedModel
from hashlgn.inference.placement import Placement
from hashlgn.inference.stored import Stored
from hashlgn.inference.texts import Tags, Texts
from hashlgn.scoring.calibration import Calibration
from hashlgn.scoring.fold_in import FoldIn
from hashlgn.scoring.histories import CodedHistories, FloatHistories
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.search.block_items import BlockItems, items_arrays, items_from
from hashlgn.utils.pages import Pages
from hashlgn.utils.tensors import MALFORMED, Arrays, Part, model_file, read_tensors, write_tensors

__all__ = ["FORMAT", "FORMS", "bytes_by_part", "load_artifact", "save_artifact", "tensor_bytes"]

FORMAT = "hashlgn-model"


class Form(NamedTuple):
    """How a kind of part is saved.

    Attributes:
        kind: its class.
        put: arrays by name, and what the manifest says of them.
        get: the part again, of arrays, what the manifest says and whether every value is to be checked; raises a
            ``ValueError`` or the like where the arrays do not fit together.
    """

    kind: type
    put: Callable[[Any], Part]
    get: Callable[[Arrays, dict[str, Any], bool], Any]


def _put_codes(items: CodedItems) -> Part:
    return items_arrays(BlockItems.of(items).whole().segments, items.decoder)


def _get_codes(arrays: Arrays, said: dict[str, Any], full: bool) -> BlockItems:
    segments, decoder = items_from(arrays, said)
    if len(segments) > 1:
        raise ValueError(f"items must be one segment (got {len(segments)})")
    return BlockItems(segments, decoder)


def _put_fold_in(fold_in: FoldIn) -> Part:
    layers = {
        f"{name}.{depth}": array
        for depth, layer in enumerate(fold_in.layers)
        for name, array in zip(("weight", "bias"), layer, strict=True)
    }
    said = {"layers": len(fold_in.layers), "normalise": bool(fold_in.normalise), "signs": bool(fold_in.signs)}
    return {"vectors": fold_in.item_vectors} | layers, said


def _put_histories(histories: CodedHistories) -> Part:
    levels, numbers = np.unique(histories.weight, return_inverse=True)
    arrays: Arrays = {"codes": histories.packed, "codewords": histories.codewords}
    if len(levels) <= 256:  # one byte per item in place of two
        return arrays | {"level": numbers.astype(np.uint8), "levels": levels}, {}
    return arrays | {"weight": histories.weight}, {}


def _get_histories(arrays: Arrays, said: dict[str, Any], full: bool) -> CodedHistories:
    weight = arrays["weight"] if "weight" in arrays else arrays["levels"][arrays["level"]]
    return CodedHistories(arrays["codes"], arrays["codewords"], weight)


def _put_calibration(calibration: Calibration) -> Part:
    said = {name: getattr(calibration, name) for name in ("slope", "activity", "share")}
    return {"z": calibration.z, "p": calibration.p}, said


def _get_calibration(arrays: Arrays, said: dict[str, Any], full: bool) -> Calibration:
    return Calibration(said["slope"], said["activity"], said["share"], arrays["z"], arrays["p"])


def _get_fold_in(arrays: Arrays, said: dict[str, Any], full: bool) -> FoldIn:
    layers = tuple((arrays[f"weight.{depth}"], arrays[f"bias.{depth}"]) for depth in range(said["layers"]))
    return FoldIn(arrays["vectors"], layers, normalise=said["normalise"] is True, signs=said["signs"] is True)


FORMS = {
    "codes": Form(CodedItems, _put_codes, _get_codes),
    "floats": Form(
        FloatItems, lambda items: ({"vectors": items.vectors}, {}), lambda arrays, *_: FloatItems(arrays["vectors"])
    ),
    "fold_in": Form(FoldIn, _put_fold_in, _get_fold_in),
    "coded histories": Form(CodedHistories, _put_histories, _get_histories),
    "float histories": Form(
        FloatHistories, lambda p: ({"vectors": p.items}, {}), lambda arrays, *_: FloatHistories(arrays["vectors"])
    ),
    "calibration": Form(Calibration, _put_calibration, _get_calibration),
    "ids": Form(Ids, lambda ids: (ids.arrays(), {}), lambda arrays, said, full: Ids.from_arrays(arrays, full=full)),
    "texts": Form(
        Texts,
        lambda texts: ({"utf8": texts.utf8, "offsets": texts.offsets}, {}),
        lambda arrays, *_: Texts(arrays["utf8"], arrays["offsets"]),
    ),
    "tags": Form(
        Tags,
        lambda tags: ({"utf8": tags.names.utf8, "offsets": tags.names.offsets, "rows": tags.rows}, {}),
        lambda arrays, *_: Tags(Texts(arrays["utf8"], arrays["offsets"]), arrays["rows"]),
    ),
    "placement": Form(
        Placement,
        lambda placement: (placement.arrays(), {}),
        lambda arrays, *_: Placement(**arrays),
    ),
    "arrays": Form(dict, lambda arrays: (dict(arrays), {}), lambda arrays, *_: arrays),
}


def save_artifact(model: ServedModel, path: str | Path, *, overwrite: bool = True) -> Path:
    """Write a model to a file, all or nothing.

    Args:
        model: the model.
        path: the file where it ends in ``.safetensors``, else the folder in which ``model.safetensors`` is to lie; it
            is made, and other files in it are left alone. ``~`` is expanded, and links are followed.
        overwrite: whether a model may be replaced. Whoever has it open goes on with the old one undisturbed.

    Returns:
        The file.

    Raises:
        ArgumentError: the file is something else than a model, or a model that may not be replaced.
        ArtifactError: it cannot be written (full or read-only disk); a model that was there is untouched.
    """
    manifest = {name: getattr(model, name) for name in ("kind", "config", "metrics", "provenance")}
    return write_tensors(path, FORMAT, manifest, _put(model), overwrite=overwrite)


def load_artifact(path: str | Path, *, verify: bool = False) -> ServedModel:
    """Map a model into memory: arrays are read where they are used, and processes that load a model share it.

    Always checked, in milliseconds: the header with its checksum, sizes, types, shapes, offsets, item numbers and
    scales of the codes, weights of decoders. Whatever else the data holds, it is answered by numbers of this catalogue
    or by an error, never by memory outside of it.

    Args:
        path: what ``save_artifact`` was given or has returned.
        verify: whether the file is also read whole: SHA-256 of every tensor, finite floats, ranges of histories. Ask
            for it once after a download.

    Raises:
        ArtifactError: the file is missing, damaged, altered, inconsistent or of another format; the message names the
            file and the reason.
    """
    held = read_tensors(path, FORMAT, verify=verify)
    try:
        parts = {name: FORMS[said["form"]].get(arrays, said, verify) for name, (arrays, said) in held.parts().items()}
        seen = parts["seen"]
        return ServedModel(
            kind=held.manifest["kind"],
            config=held.manifest["config"],
            user_ids=parts["ids.users"],
            item_ids=parts["ids.items"],
            items=parts["items"],
            stored=Stored.of(
                seen["indptr"],
                seen["indices"],
                seen.get("strengths"),
                seen.get("times"),
                parts["live"]["newer"] if "live" in parts else None,
            ),
            histories=parts.get("histories"),
            users=parts["users"]["queries"] if "users" in parts else None,
            calibration=parts.get("calibration"),
            titles=parts.get("titles"),
            genres=parts.get("genres"),
            metrics=held.manifest["metrics"],
            provenance=held.manifest["provenance"],
            encoder_state=parts.get("encoder"),
            live=_live(parts),
            contents=verify,
        )
    except MALFORMED as error:
        raise ArtifactError(f"{model_file(path)}: inconsistent: {type(error).__name__}: {error}") from error


def _live(parts: dict[str, Any]) -> Live | None:
    if "live" not in parts:
        return None
    arrays = parts["live"]
    items, changes = arrays["numbers"].tolist()
    return Live(parts.get("placement"), Pages.of(arrays["counts"]), items, arrays.get("removed"), changes)


def _live_arrays(live: Live, stored: Stored) -> Arrays:
    numbers, newer = np.array([live.items, live.changes], np.int64), stored.newer
    arrays: Arrays = {"newer": newer, "counts": live.counts.whole, "numbers": numbers}
    return arrays if live.removed is None else arrays | {"removed": live.removed}


def tensor_bytes(model: ServedModel) -> dict[str, int]:
    """Bytes of each tensor that a save of this model writes, by its name in the file, such as ``items.codes``."""
    return {
        f"{part}.{name}": array.nbytes for part, (arrays, _) in _put(model).items() for name, array in arrays.items()
    }


def bytes_by_part(path: str | Path) -> dict[str, int]:
    """Bytes of each part of a saved model, and of its ``manifest`` with what aligns arrays; together the whole file.

    Raises:
        ArtifactError: as ``load_artifact``.
    """
    held = read_tensors(path, FORMAT)
    sizes = {part: sum(array.nbytes for array in arrays.values()) for part, (arrays, _) in held.parts().items()}
    return sizes | {"manifest": model_file(path).stat().st_size - sum(sizes.values())}


def _put(model: ServedModel) -> dict[str, Part]:
    """Arrays of each part, and what the manifest says of it."""
    parts: dict[str, Part] = {}
    for name, part in _parts_of(model).items():
        form = next(form for form, held in FORMS.items() if isinstance(part, held.kind))
        arrays, said = FORMS[form].put(part)
        parts[name] = arrays, {**said, "form": form}
    return parts


def _parts_of(model: ServedModel) -> dict[str, Any]:
    stored = {
        "indptr": model.seen[0],
        "indices": model.seen[1],
        "strengths": model.strengths,
        "times": model.times,
    }
    parts = {
        "items": model.items,
        "histories": model.histories,
        "seen": {name: array for name, array in stored.items() if array is not None},
        "users": None if model.users is None else {"queries": model.users},
        "calibration": model.calibration,
        "ids.users": model.user_ids,
        "ids.items": model.item_ids,
        "titles": model.titles,
        "genres": model.genres,
        "encoder": model.encoder_state,
        "live": None if model.live is None else _live_arrays(model.live, model.stored),
        "placement": None if model.live is None else model.live.placement,
    }
    return {name: part for name, part in parts.items() if part is not None}
