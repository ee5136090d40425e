"""What a trained model is on disk: typed arrays with checksums and a format version, in one folder; no pickle.

    manifest.json          format name and version, kind, config, provenance, metrics, counts, and for every file its
                           size, SHA-256 and tensors
    manifest.sha256        checksum of the manifest, as `sha256sum -c` reads it
    users.safetensors      queries        float32 (n_users, width)
    items.safetensors      vectors        float32 (n_items, width)                                items "float"
                           packed         uint8 (n_items, bits / 8), scale float16 (n_items,)     otherwise
                           alpha, beta    float32 (bits,)                                         items "reweight"
                           codewords      float32 (bits / 4, 16, width)                           items "codebook"
    ids.safetensors        users.*, items.*   the arrays of the external ids
    seen.safetensors       indptr         int64 (n_users + 1,), indices int32
    fold_in.safetensors    item_vectors   float (n_items, dim), weight.0, bias.0, weight.1, …     where there is one;
                           its ``normalise`` and ``signs`` are in the manifest
    encoder.safetensors    the encoder's parameters, float32, for a training that starts from them, where there are any
    titles.json            titles and genres of the items                                         where there are any

A save is all or nothing (:mod:`hashlgn.utils.storage`): a kill at any moment leaves the old artifact or the new.
"""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data.ids import Ids
from hashlgn.errors import ArgumentError, ArtifactError
from hashlgn.inference.model import ServedModel
from hashlgn.scoring.decoders import CodebookDecoder, ReweightDecoder
from hashlgn.scoring.fold_in import FoldIn
from hashlgn.scoring.items import CodedItems, FloatItems, Items
from hashlgn.utils.storage import json_text, reason, replaced_folder, standing_folder, write_file

__all__ = ["FORMAT", "FORMAT_VERSION", "check_target", "load_artifact", "save_artifact"]

FORMAT = "hashlgn-model"
FORMAT_VERSION = 1

_MANIFEST, _MANIFEST_SUM = "manifest.json", "manifest.sha256"
_REQUIRED = ("users.safetensors", "items.safetensors", "ids.safetensors", "seen.safetensors")
_ENCODER = "encoder.safetensors"
_OPTIONAL = ("fold_in.safetensors", _ENCODER, "titles.json")

# What values of another kind than the format's raise where they are used; every HashLGN error for data is a ValueError.
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)

Arrays = dict[str, npt.NDArray[Any]]


def save_artifact(model: ServedModel, folder: str | Path, *, overwrite: bool = True) -> Path:
    """Write a model to ``folder``, all or nothing.

    Args:
        model: the model.
        folder: a path that does not exist, an empty folder, or an artifact to replace.
        overwrite: whether an artifact may be replaced.

    Returns:
        The folder.

    Raises:
        ArgumentError: ``folder`` holds something else than an artifact, or an artifact that may not be replaced.
        ArtifactError: it cannot be written (full or read-only disk); an artifact that was there is untouched.
    """
    path = Path(folder)
    try:
        target = path.resolve()
        with replaced_folder(target) as new:
            check_target(target, overwrite)
            _write(model, new)
    except (OSError, RuntimeError) as error:  # resolve() raises RuntimeError for a ring of links
        raise ArtifactError(f"cannot save to {path}: {reason(error)}") from error
    return path


def load_artifact(folder: str | Path, *, verify: bool = True, encoder_state: bool = False) -> ServedModel:
    """Read a model from ``folder``.

    Args:
        folder: what :func:`save_artifact` wrote.
        verify: whether the SHA-256 of the data files is checked; sizes, types, shapes and ranges always are.
        encoder_state: whether the encoder's parameters are given, if there are any; serving does not need them.

    Raises:
        ArtifactError: the artifact is missing, damaged, altered, inconsistent or of a newer format; the message names
            the file and the reason.
    """
    target = Path(folder)
    for _ in range(3):
        before = _identity(target)
        try:
            model = _read(standing_folder(target), verify, encoder_state)
        except ArtifactError:
            if _identity(target) == before:
                raise
        else:
            if _identity(target) == before:
                return model
        # A save has replaced the folder while it was read: what was read is a mixture, be it whole or broken.
    raise ArtifactError(f"{target}: replaced again and again while it was read")


# --- writing ----------------------------------------------------------------------------------------------------


def _write(model: ServedModel, folder: Path) -> None:
    from safetensors.numpy import save

    tensors: dict[str, Arrays] = {
        "users.safetensors": {"queries": model.users},
        "items.safetensors": _item_arrays(model.items),
        "ids.safetensors": {
            f"{side}.{name}": array
            for side, ids in (("users", model.user_ids), ("items", model.item_ids))
            for name, array in ids.arrays().items()
        },
        "seen.safetensors": {"indptr": model.seen[0], "indices": model.seen[1]},
    }
    if model.fold_in is not None:
        tensors["fold_in.safetensors"] = {"item_vectors": model.fold_in.item_vectors} | {
            f"{name}.{depth}": array
            for depth, layer in enumerate(model.fold_in.layers)
            for name, array in zip(("weight", "bias"), layer, strict=True)
        }
    if model.encoder_state is not None:
        tensors[_ENCODER] = dict(model.encoder_state)
    files: dict[str, Any] = {}
    for name, arrays in tensors.items():
        content = save({key: np.asarray(array, order="C") for key, array in arrays.items()})
        files[name] = _put(folder / name, content) | {"tensors": _described(arrays)}
    if model.titles is not None or model.genres is not None:
        texts = {"titles": model.titles, "genres": model.genres}
        files["titles.json"] = _put(folder / "titles.json", json_text("titles", texts))
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": model.kind,
        "items": _item_form(model.items),
        "counts": _counts(model),
        "fold_in": None
        if model.fold_in is None
        else {
            "layers": len(model.fold_in.layers),
            "normalise": bool(model.fold_in.normalise),
            "signs": bool(model.fold_in.signs),
        },
        "config": model.config,
        "metrics": model.metrics,
        "provenance": model.provenance,
        "files": files,
    }
    digest = _put(folder / _MANIFEST, json_text("manifest", manifest, indent=2))["sha256"]
    _put(folder / _MANIFEST_SUM, _sum_line(digest))


def _put(path: Path, content: bytes) -> dict[str, Any]:
    write_file(path, content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _sum_line(digest: str) -> bytes:
    return f"{digest}  {_MANIFEST}\n".encode()


def _item_arrays(items: Items) -> Arrays:
    if isinstance(items, FloatItems):
        return {"vectors": items.vectors}
    arrays: Arrays = {"packed": items.packed}
    if items.scale is not None:
        arrays["scale"] = items.scale
    if isinstance(items.decoder, ReweightDecoder):
        return arrays | {"alpha": items.decoder.alpha, "beta": items.decoder.beta}
    if isinstance(items.decoder, CodebookDecoder):
        return arrays | {"codewords": items.decoder.codewords}
    raise ArgumentError(f"items.decoder must be a reweight or codebook decoder (got {type(items.decoder).__name__})")


def _item_form(items: Items) -> str:
    if isinstance(items, FloatItems):
        return "float"
    return "reweight" if isinstance(items.decoder, ReweightDecoder) else "codebook"


def _counts(model: ServedModel) -> dict[str, int | None]:
    return {
        "users": len(model.user_ids),
        "items": len(model.item_ids),
        "seen": len(model.seen[1]),
        "width": model.items.width,
        "bits": model.items.decoder.bits if isinstance(model.items, CodedItems) else None,
    }


def check_target(target: Path, overwrite: bool = True) -> None:
    """Check that a model may be saved to a folder: it is new, empty, or holds an artifact that may be replaced.

    Raises:
        ArgumentError: it may not.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise ArgumentError(f"folder must be a folder ({target} is a file)")
    names = {path.name for path in target.iterdir()}
    stray = sorted(names - {_MANIFEST, _MANIFEST_SUM, *_REQUIRED, *_OPTIONAL})
    if stray or (names and _MANIFEST_SUM not in names):
        held = stray[0] if stray else f"no {_MANIFEST_SUM}"
        raise ArgumentError(f"folder must be empty or hold an artifact and nothing else ({target} holds {held})")
    if names and not overwrite:
        raise ArgumentError(f"folder must be free, since overwrite is False ({target} holds an artifact)")


# --- reading ----------------------------------------------------------------------------------------------------


def _read(folder: Path, verify: bool, encoder_state: bool) -> ServedModel:
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder")
    manifest = _read_manifest(folder)
    files = _need(folder, manifest, "files", dict)
    for name in files.keys() - {*_REQUIRED, *_OPTIONAL}:  # a path out of the folder is no name of the format either
        raise ArtifactError(f"{folder / _MANIFEST}: names the file {name!r}, which is no part of the format")
    for name in _REQUIRED:
        _need(folder, files, name, dict)
    contents = {}
    for name in files:
        entry = _need(folder, files, name, dict)
        content = _read_listed(folder, name, entry, verify)
        if name != _ENCODER or encoder_state:
            contents[name] = _parsed(folder / name, content, entry)
    try:
        model = _assemble(manifest, contents)
        if _counts(model) != manifest["counts"]:
            raise ArgumentError(
                f"counts must be those of the arrays (got {manifest['counts']}, found {_counts(model)})"
            )
    except _MALFORMED as error:
        raise ArtifactError(f"{folder}: inconsistent artifact: {type(error).__name__}: {error}") from error
    return model


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    content = _read_file(path, None)
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: no valid JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{path}: the format must be {FORMAT!r}; this is no saved model")
    version = _need(folder, manifest, "format_version", int)
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format version {version} is newer than {FORMAT_VERSION}, the newest that this hashlgn reads"
        )
    if version < 1:
        raise ArtifactError(f"{path}: format_version must be a positive integer (got {version})")
    if _read_file(folder / _MANIFEST_SUM, None) != _sum_line(hashlib.sha256(content).hexdigest()):
        raise ArtifactError(f"{path}: altered: its SHA-256 is not the one in {_MANIFEST_SUM}")
    return manifest


def _read_listed(folder: Path, name: str, entry: dict[str, Any], verify: bool) -> bytes:
    """Read one data file, of the size and checksum that the manifest gives."""
    path = folder / name
    content = _read_file(path, _need(folder, entry, "bytes", int))
    if verify and hashlib.sha256(content).hexdigest() != _need(folder, entry, "sha256", str):
        raise ArtifactError(f"{path}: altered: its SHA-256 is not the one in {_MANIFEST}")
    return content


def _parsed(path: Path, content: bytes, entry: dict[str, Any]) -> Any:
    """Arrays by name, or what a JSON file holds."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        if path.suffix == ".json":
            return json.loads(content)
        arrays = load(content)
    except (*_MALFORMED, SafetensorError, RecursionError) as error:
        raise ArtifactError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
    if _described(arrays) != entry.get("tensors"):
        raise ArtifactError(f"{path}: holds other tensors than {_MANIFEST} says")
    return arrays


def _read_file(path: Path, size: int | None) -> bytes:
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{path}: must be a plain file in the folder, not a link or anything else")
        if size is not None and status.st_size != size:
            raise ArtifactError(f"{path}: truncated or altered: {status.st_size} bytes where {size} were written")
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({reason(error)})") from error


def _assemble(manifest: dict[str, Any], contents: dict[str, Any]) -> ServedModel:
    arrays = contents["items.safetensors"]
    form = manifest["items"]
    items: Items
    if form == "float":
        items = FloatItems(arrays["vectors"])
    elif form == "reweight":
        items = CodedItems(arrays["packed"], ReweightDecoder(arrays["alpha"], arrays["beta"]), arrays.get("scale"))
    elif form == "codebook":
        items = CodedItems(arrays["packed"], CodebookDecoder(arrays["codewords"]), arrays.get("scale"))
    else:
        raise ArgumentError(f"items must be 'float', 'reweight' or 'codebook' (got {form!r})")
    user_ids, item_ids = (
        Ids.from_arrays(
            {
                name.removeprefix(side): array
                for name, array in contents["ids.safetensors"].items()
                if name.startswith(side)
            }
        )
        for side in ("users.", "items.")
    )
    fold_in = None
    if manifest["fold_in"] is not None:
        held, layers = contents["fold_in.safetensors"], manifest["fold_in"]["layers"]
        fold_in = FoldIn(
            held["item_vectors"],
            tuple((held[f"weight.{depth}"], held[f"bias.{depth}"]) for depth in range(layers)),
            normalise=manifest["fold_in"]["normalise"] is True,
            signs=manifest["fold_in"].get("signs") is True,  # earlier artifacts do not say, and have none
        )
    texts = contents.get("titles.json", {"titles": None, "genres": None})
    return ServedModel(
        kind=manifest["kind"],
        config=manifest["config"],
        user_ids=user_ids,
        item_ids=item_ids,
        users=contents["users.safetensors"]["queries"],
        items=items,
        seen=(contents["seen.safetensors"]["indptr"], contents["seen.safetensors"]["indices"]),
        fold_in=fold_in,
        titles=texts["titles"],
        genres=None if texts["genres"] is None else [tuple(row) for row in texts["genres"]],
        metrics=manifest["metrics"],
        provenance=manifest["provenance"],
        encoder_state=contents.get(_ENCODER),
    )


def _described(arrays: Arrays) -> dict[str, Any]:
    return {name: {"dtype": array.dtype.name, "shape": list(array.shape)} for name, array in arrays.items()}


def _need(folder: Path, table: dict[str, Any], key: str, kind: type) -> Any:
    """An entry of the manifest, of the type that the format gives it."""
    value = table.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ArtifactError(f"{folder / _MANIFEST}: {key!r} must be a {kind.__name__} (got {value!r:.60})")
    return value


def _identity(folder: Path) -> tuple[int, ...] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns
