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
    fold_in.safetensors    item_vectors   float (n_items, dim), weight.0, bias.0, weight.1, …     where there is one
    encoder.safetensors    the encoder's parameters, float32, for a training that starts from them, where there are any
    titles.json            titles and genres of the items                                         where there are any

A save is all or nothing (:mod:`hashlgn.storage`): a kill at any moment leaves the old artifact or the new.
"""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data.ids import Ids
from hashlgn.errors import ArgumentError, ArtifactError
from hashlgn.scoring import CodebookDecoder, CodedItems, FloatItems, Floats, FoldIn, Items, ReweightDecoder
from hashlgn.storage import reason, replaced_folder, standing_folder, write_file

__all__ = ["FORMAT", "FORMAT_VERSION", "ServedModel", "check_target", "load_artifact", "save_artifact"]

FORMAT = "hashlgn-model"
FORMAT_VERSION = 1

_MANIFEST, _MANIFEST_SUM = "manifest.json", "manifest.sha256"
_REQUIRED = ("users.safetensors", "items.safetensors", "ids.safetensors", "seen.safetensors")
_OPTIONAL = ("fold_in.safetensors", "encoder.safetensors", "titles.json")

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A trained model as it is served: arrays alone, nothing that needs torch.

    Attributes:
        kind: name of the model, such as ``"hashlgn"`` or ``"lightgcn"``.
        config: the configuration it was trained with, JSON-able (tuples come back as lists).
        user_ids: external ids of the users.
        item_ids: external ids of the items.
        users: queries ``f(q)``, ``(n_users, width)`` float32.
        items: the catalogue.
        seen: ``indptr (n_users + 1,)`` int64 and ``indices`` int32, strictly ascending within a user.
        fold_in: queries for users who were not in training, or None.
        titles: one string an item, or None.
        genres: one tuple of strings an item, or None.
        metrics: validation metrics at training, JSON-able.
        provenance: version, data fingerprint, seed, machine, threads, time of creation and the like,
            JSON-able.
        encoder_state: the encoder's parameters by name, float32, or None.

    Raises:
        ArgumentError: an array has another type or shape, or the parts do not fit together.
    """

    kind: str
    config: dict[str, Any]
    user_ids: Ids
    item_ids: Ids
    users: Floats
    items: Items
    seen: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]
    fold_in: FoldIn | None = None
    titles: list[str] | None = None
    genres: list[tuple[str, ...]] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    encoder_state: dict[str, Floats] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or not self.kind:
            raise ArgumentError(f"kind must be a name (got {self.kind!r})")
        for name in ("config", "metrics", "provenance"):
            value = getattr(self, name)
            if not isinstance(value, dict):
                raise ArgumentError(f"{name} must be a dict (got {type(value).__name__})")
            _json(name, value)
        n_users, n_items = len(self.user_ids), len(self.item_ids)
        _check("users", self.users, "float32", (n_users, self.items.width))
        if len(self.items) != n_items:
            raise ArgumentError(f"items must be {n_items}, one an item id (got {len(self.items)})")
        _check_items(self.items)
        _check_seen(self.seen, n_users, n_items)
        for name, array in (self.encoder_state or {}).items():
            _check(f"encoder_state[{name!r}]", array, "float32", (None,) * np.ndim(array))
        if self.fold_in is not None:
            _check_fold_in(self.fold_in, n_items, self.items.width)
        if self.titles is not None and not (
            isinstance(self.titles, list)
            and len(self.titles) == n_items
            and all(isinstance(title, str) for title in self.titles)
        ):
            raise ArgumentError(f"titles must be a list of {n_items} strings, one an item")
        if self.genres is not None and not (
            isinstance(self.genres, list)
            and len(self.genres) == n_items
            and all(isinstance(row, tuple) and all(isinstance(name, str) for name in row) for row in self.genres)
        ):
            raise ArgumentError(f"genres must be a list of {n_items} tuples of strings, one an item")


def save_artifact(model: ServedModel, folder: str | Path, *, overwrite: bool = True) -> Path:
    """Write a model to ``folder``, all or nothing.

    Args:
        model: the model.
        folder: a path that does not exist, an empty folder, or an artifact to replace.
        overwrite: whether an artifact may be replaced.

    Returns:
        The folder.

    Raises:
        ArgumentError: ``folder`` holds something else than an artifact, or an artifact that may not be
        replaced. ArtifactError: it cannot be written (full or read-only disk); an artifact that was there is
        untouched.
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
        encoder_state: whether the encoder's parameters are kept, if there are any; serving does not need them.

    Raises:
        ArtifactError: the artifact is missing, damaged, altered, inconsistent or of a newer format; the
        message names
            the file and the reason.
    """
    target = Path(folder)
    for last in (False, False, True):
        before = _identity(target)
        try:
            return _read(standing_folder(target), verify, encoder_state)
        except ArtifactError:
            # A save may have replaced the folder while it was read: then what failed was a mixture, not an
            # artifact.
            if last or _identity(target) == before:
                raise
    raise AssertionError("unreachable")


# --- the parts fit together -------------------------------------------------------------------------------------


def _check(name: str, array: Any, dtype: str, shape: tuple[int | None, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype.name != dtype:
        kind = array.dtype.name if isinstance(array, np.ndarray) else type(array).__name__
        raise ArgumentError(f"{name} must be an array of {dtype} (got {kind})")
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        raise ArgumentError(f"{name} must have shape {shape} (got {array.shape})")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ArgumentError(f"{name} must be finite")


def _check_items(items: Items) -> None:
    if isinstance(items, FloatItems):
        _check("items.vectors", items.vectors, "float32", (None, None))
        return
    _check("items.packed", items.packed, "uint8", (None, None))
    if items.scale is not None:
        _check("items.scale", items.scale, "float16", (len(items),))
    decoder = items.decoder
    if isinstance(decoder, ReweightDecoder):
        for name, weights in (("alpha", decoder.alpha), ("beta", decoder.beta)):
            _check(f"items.{name}", weights, "float32", (decoder.bits,))
            if (weights < 0).any():
                raise ArgumentError(f"items.{name} must not be negative")
    elif isinstance(decoder, CodebookDecoder):
        _check("items.codewords", decoder.codewords, "float32", (None, 16, None))
    else:
        raise ArgumentError(f"items.decoder must be a reweight or codebook decoder (got {type(decoder).__name__})")


def _check_seen(seen: Any, n_users: int, n_items: int) -> None:
    if not isinstance(seen, tuple) or len(seen) != 2:
        raise ArgumentError("seen must be (indptr, indices)")
    indptr, indices = seen
    _check("seen.indptr", indptr, "int64", (n_users + 1,))
    _check("seen.indices", indices, "int32", (None,))
    if indptr[0] != 0 or indptr[-1] != len(indices) or (indptr[1:] < indptr[:-1]).any():
        raise ArgumentError(f"seen.indptr must ascend from 0 to the number of indices ({len(indices)})")
    if len(indices) and (indices.min() < 0 or indices.max() >= n_items):
        raise ArgumentError(f"seen.indices must lie in 0 … {n_items - 1} (got {indices.min()} … {indices.max()})")
    rising = np.ones(len(indices) + 1, np.bool_)
    rising[1:-1] = indices[1:] > indices[:-1]
    rising[indptr] = True  # where a user's list begins, it may fall
    if not rising.all():
        raise ArgumentError("seen.indices must be strictly ascending within each user")


def _check_fold_in(fold_in: FoldIn, n_items: int, width: int) -> None:
    vectors = fold_in.item_vectors
    if not isinstance(vectors, np.ndarray) or vectors.dtype.name not in ("float16", "float32"):
        raise ArgumentError("fold_in.item_vectors must be an array of float16 or float32")
    _check("fold_in.item_vectors", vectors, vectors.dtype.name, (n_items, None))
    out = vectors.shape[1]
    for depth, (weight, bias) in enumerate(fold_in.layers):
        _check(f"fold_in.weight.{depth}", weight, "float32", (None, out))
        out = weight.shape[0]
        _check(f"fold_in.bias.{depth}", bias, "float32", (out,))
    if out != width:
        raise ArgumentError(f"fold_in must end in queries of width {width} (got {out})")


# --- writing ----------------------------------------------------------------------------------------------------


def _write(model: ServedModel, folder: Path) -> None:
    from safetensors.numpy import save

    tensors: dict[str, Arrays] = {
        "users.safetensors": {"queries": model.users},
        "items.safetensors": _item_arrays(model.items),
        "ids.safetensors": {
            f"{side}.{name}": array
            for side, ids in (("users", model.user_ids), ("items", model.item_ids))
            for name, array in ids.to_arrays().items()
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
        tensors["encoder.safetensors"] = dict(model.encoder_state)
    files: dict[str, Any] = {}
    for name, arrays in tensors.items():
        content = save({key: np.ascontiguousarray(array) for key, array in arrays.items()})
        files[name] = _put(folder / name, content) | {"tensors": _described(arrays)}
    if model.titles is not None or model.genres is not None:
        texts = {"titles": model.titles, "genres": model.genres}
        files["titles.json"] = _put(folder / "titles.json", _json("titles", texts))
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": model.kind,
        "items": _item_form(model.items),
        "counts": _counts(model),
        "fold_in": None
        if model.fold_in is None
        else {"layers": len(model.fold_in.layers), "normalise": bool(model.fold_in.normalise)},
        "config": model.config,
        "metrics": model.metrics,
        "provenance": model.provenance,
        "files": files,
    }
    digest = _put(folder / _MANIFEST, _json("manifest", manifest, indent=2))["sha256"]
    _put(folder / _MANIFEST_SUM, _sum_line(digest))


def _put(path: Path, content: bytes) -> dict[str, Any]:
    write_file(path, content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _sum_line(digest: str) -> bytes:
    return f"{digest}  {_MANIFEST}\n".encode()


def _json(name: str, value: Any, indent: int | None = None) -> bytes:
    def plain(other: Any) -> Any:
        if isinstance(other, np.generic):
            return other.item()
        raise TypeError(f"{type(other).__name__} is no JSON type")

    try:
        return json.dumps(value, indent=indent, allow_nan=False, default=plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{name} must be JSON-able ({error})") from error


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
    contents = {name: _read_listed(folder, name, _need(folder, files, name, dict), verify) for name in files}
    try:
        model = _assemble(manifest, contents, encoder_state)
        if _item_form(model.items) != manifest["items"] or _counts(model) != manifest["counts"]:
            raise ArgumentError(
                f"counts must be those of the arrays (got {manifest['counts']}, found {_counts(model)})"
            )
    except Exception as error:  # what was crafted by hand can fail in any way; the cause stays attached
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


def _read_listed(folder: Path, name: str, entry: dict[str, Any], verify: bool) -> Any:
    """Read one data file: arrays by name, or what a JSON file holds."""
    path = folder / name
    content = _read_file(path, _need(folder, entry, "bytes", int))
    if verify and hashlib.sha256(content).hexdigest() != _need(folder, entry, "sha256", str):
        raise ArtifactError(f"{path}: altered: its SHA-256 is not the one in {_MANIFEST}")
    try:
        if path.suffix == ".json":
            return json.loads(content)
        from safetensors.numpy import load

        arrays = load(content)
    except Exception as error:  # the parser's own errors are of many kinds
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


def _assemble(manifest: dict[str, Any], contents: dict[str, Any], encoder_state: bool) -> ServedModel:
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
        encoder_state=contents.get("encoder.safetensors") if encoder_state else None,
    )


def _described(arrays: Arrays) -> dict[str, Any]:
    return {name: {"dtype": array.dtype.name, "shape": list(array.shape)} for name, array in arrays.items()}


def _need(folder: Path, table: dict[str, Any], key: str, kind: type) -> Any:
    """An entry of the manifest, of the type that the format gives it."""
    value = table.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ArtifactError(f"{folder / _MANIFEST}: {key!r} must be a {kind.__name__} (got {value!r:.60})")
    return value


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
