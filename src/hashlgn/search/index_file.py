"""A kernel's catalogue on disk: arrays that are mapped into memory, shared by the processes that open them.

    index.json        format name and version, sizes, and for every array its file's size and SHA-256
    index.sha256      checksum of that
    *.npy             the arrays, as NumPy maps them

A save is all or nothing (:mod:`hashlgn.utils.storage`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError, ArtifactError
from hashlgn.scoring.decoders import CodebookDecoder, Decoder, ReweightDecoder
from hashlgn.search.blocks import BLOCK, Blocks
from hashlgn.utils.storage import reason, replaced_folder, standing_folder, write_file

__all__ = ["read_index", "write_index"]

_FORMAT, _VERSION = "hashlgn-index", 1
_FIELDS = ("rows", "starts", "counts", "order", "scale", "largest", "smallest")
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError)

Arrays = dict[str, npt.NDArray[Any]]


def write_index(
    folder: Path, decoder: Decoder, parts: tuple[Blocks, ...], n: int, removed: npt.NDArray[np.bool_] | None
) -> None:
    """Write a catalogue to a folder; an index that is there is replaced.

    Raises:
        ArgumentError: the folder holds something else than an index.
        ArtifactError: it cannot be written; what was there before is untouched.
    """
    arrays: Arrays = {} if removed is None else {"removed": removed}
    for name in ("codewords", "alpha", "beta"):
        if hasattr(decoder, name):
            arrays[name] = getattr(decoder, name)
    for number, part in enumerate(parts):
        held = {name: getattr(part, name) for name in _FIELDS}
        arrays |= {f"{number}.{name}": array for name, array in held.items() if array is not None}
    try:
        target = folder.resolve()
        with replaced_folder(target) as new:
            if target.exists() and not (target / "index.json").is_file() and any(target.iterdir()):
                raise ArgumentError(f"folder must be new, empty or an index (got {str(folder)!r}, which is none)")
            files = {}
            for name, array in arrays.items():
                with (new / f"{name}.npy").open("xb") as file:
                    np.save(file, array, allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
                files[name] = _described(new / f"{name}.npy")
            manifest = {"format": _FORMAT, "format_version": _VERSION, "items": n, "first": [p.first for p in parts]}
            text = json.dumps(manifest | {"files": files}, indent=1).encode()
            write_file(new / "index.json", text)
            write_file(new / "index.sha256", f"{hashlib.sha256(text).hexdigest()}  index.json\n".encode())
    except OSError as error:
        raise ArtifactError(f"cannot save to {folder}: {reason(error)}") from error


def read_index(folder: Path, *, verify: bool) -> tuple[Decoder, tuple[Blocks, ...], int, npt.NDArray[np.bool_] | None]:
    """Map a catalogue into memory: decoder, parts, number of items, removed items.

    Raises:
        ArtifactError: the index is missing, damaged, altered or of a newer format.
    """
    place = standing_folder(folder)
    try:
        text = (place / "index.json").read_bytes()
        if (place / "index.sha256").read_bytes().split()[:1] != [hashlib.sha256(text).hexdigest().encode()]:
            raise ValueError("index.json is not what was written")
        manifest = json.loads(text)
        if manifest["format"] != _FORMAT:
            raise ValueError(f"format must be {_FORMAT} (got {manifest['format']!r})")
        if manifest["format_version"] != _VERSION:
            raise ValueError(f"format version {manifest['format_version']} is not known: a newer hashlgn may read it")
        arrays: Arrays = {}
        for name, said in manifest["files"].items():
            path = place / f"{name}.npy"
            if path.stat().st_size != said["size"] or (verify and _described(path) != said):
                raise ValueError(f"{path.name} is not what was written")
            arrays[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        return _assembled(arrays, manifest["first"], manifest["items"])
    except OSError as error:
        raise ArtifactError(f"{folder}: {reason(error)}") from error
    except _MALFORMED as error:
        raise ArtifactError(f"{folder}: {error or type(error).__name__}") from error


def _assembled(
    arrays: Arrays, first: list[int], n: int
) -> tuple[Decoder, tuple[Blocks, ...], int, npt.NDArray[np.bool_] | None]:
    decoder: Decoder = (
        CodebookDecoder(arrays["codewords"])
        if "codewords" in arrays
        else ReweightDecoder(arrays["alpha"], arrays["beta"])
    )
    parts = []
    for number, start in enumerate(first):
        held: dict[str, Any] = {name: arrays.get(f"{number}.{name}") for name in _FIELDS}
        parts.append(Blocks(first=start, **held))  # the kernel checks that the arrays fit together
    removed = arrays.get("removed")
    ends = list(itertools.accumulate(map(len, parts), initial=0))
    if [*first, n] != ends or (removed is not None and len(removed) != n) or any(p.part is None for p in parts):
        raise ValueError(f"the parts must hold {n} items, one after the other")
    if any(4 * p.rows.shape[1] != decoder.bits or len(p.rows) * BLOCK < len(p) for p in parts):
        raise ValueError("the codes must be as long as the decoder's")
    return decoder, tuple(parts), n, removed


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
