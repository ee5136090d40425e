"""One file of named arrays with a manifest: safetensors, every array at a multiple of 64 bytes, mapped and not read.

    8 bytes     length of the header, little-endian
    header      JSON, padded by blanks: name → dtype, shape and offsets of each array; in ``__metadata__`` the SHA-256
                of the header itself (taken with zeros in its place), the format and the manifest as JSON text
    data        the arrays; fillers, named ``pad.…``, bring the next one to a multiple of 64 bytes

The manifest holds ``format_version`` and, as ``sha256``, the checksum of every array. The ``safetensors`` library reads
such a file too. It is written by hand because the library aligns arrays to 8 bytes alone, and copies them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError, ArtifactError
from hashlgn.utils.storage import json_text, reason, replaced_file

__all__ = ["MALFORMED", "Arrays", "Part", "TensorFile", "check_target", "model_file", "read_tensors", "write_tensors"]

Arrays = dict[str, npt.NDArray[Any]]
Part = tuple[Arrays, dict[str, Any]]  # one part of what is saved: arrays by name, and what the manifest says of them

VERSION = 2
_LINE = 64
_PAD = "pad."
_ZEROS = "0" * 64  # stands for the checksum of the header while it is computed
_DTYPES = {"BOOL": "?", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4"}
_DTYPES |= {"U64": "u8", "I64": "i8", "F16": "f2", "F32": "f4", "F64": "f8"}
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}

# What values of another kind than the format's raise where they are used; every HashLGN error for data is a ValueError.
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError)


class TensorFile(NamedTuple):
    """What a file holds."""

    form: str  # name of the format, such as ``hashlgn-model``
    manifest: dict[str, Any]  # what the writer said, with the checksums under ``sha256``
    arrays: Arrays  # the arrays by name, mapped and read-only

    def parts(self) -> dict[str, Part]:
        """The parts by name."""
        return {
            part: ({n.removeprefix(f"{part}."): a for n, a in self.arrays.items() if n.startswith(f"{part}.")}, said)
            for part, said in self.manifest["parts"].items()
        }


def model_file(path: str | Path) -> Path:
    """The file that a path means: itself where it ends in ``.safetensors``, else ``model.safetensors`` in that folder.

    Raises:
        ArgumentError: ``path`` is no path, or begins with the ``~`` of somebody unknown.
    """
    try:
        place = Path(path).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ArgumentError(f"path must be a path (got {path!r}: {error})") from error
    return place if place.suffix == ".safetensors" and not place.is_dir() else place / "model.safetensors"


def _existing(file: Path) -> Path:
    """The nearest thing above a file that is there."""
    return next((parent for parent in file.absolute().parents if parent.exists()), file)


def check_target(path: str | Path, form: str, *, overwrite: bool = True) -> Path:
    """Check that a file may be written: it is new, empty, or of the same format and may be replaced.

    Returns:
        The file that ``path`` means.

    Raises:
        ArgumentError: it may not.
    """
    file = model_file(path)
    if not file.exists():
        if not (above := _existing(file)).is_dir():
            raise ArgumentError(f"path must be a folder or end in .safetensors ({above} is neither)")
        return file
    if not file.is_file():
        raise ArgumentError(f"path must be a regular file ({file} is something else)")
    if file.stat().st_size:
        try:
            held = _header(file)[1]["__metadata__"]["format"]
        except (OSError, *MALFORMED):
            held = None
        if held != form:
            raise ArgumentError(
                f"path must be free or hold a {form} to replace ({file} holds {held or 'another file'})"
            )
        if not overwrite:
            raise ArgumentError(f"path must be free, since overwrite is False ({file} exists)")
    return file


def write_tensors(
    path: str | Path, form: str, manifest: dict[str, Any], parts: dict[str, Part], *, overwrite: bool = True
) -> Path:
    """Write a file, all or nothing; one of the same format that is there is replaced.

    Args:
        path: the file, or the folder that it is to lie in; missing folders are made.
        form: name of the format.
        manifest: what JSON can hold.
        parts: arrays of booleans, integers or floats of at most 64 bits, and what the manifest says of them; array
            ``name`` of part ``items`` is called ``items.name`` in the file.
        overwrite: whether a file of this format may be replaced.

    Returns:
        The file.

    Raises:
        ArgumentError: the path holds something else, or a value cannot be written.
        ArtifactError: the file cannot be written; what was there before is untouched.
    """
    try:
        file = check_target(path, form, overwrite=overwrite)
        arrays = {f"{part}.{name}": array for part, (held, _) in parts.items() for name, array in held.items()}
        manifest = manifest | {"parts": {part: said for part, (_, said) in parts.items()}}
        header, blobs = _laid_out(form, manifest, arrays)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(file) as temporary, temporary.open("xb") as out:
            out.write(header)
            for blob in blobs:
                out.write(blob.data)
    except (OSError, RuntimeError, ValueError) as error:  # a ring of links is a RuntimeError, a zero byte a ValueError
        if isinstance(error, ArgumentError):
            raise
        raise ArtifactError(f"cannot save to {path}: {reason(error)}") from error
    return file


def read_tensors(path: str | Path, *forms: str, verify: bool = False) -> TensorFile:
    """Map a file into memory. Sizes, types, shapes and the header's checksum are always checked.

    On Windows the file is read, since the system refuses to replace a file that is mapped.

    Args:
        path: the file, or the folder that it lies in.
        forms: formats that are accepted.
        verify: whether the checksums of all arrays are compared too, which reads the whole file.

    Raises:
        ArtifactError: the file is missing, damaged, altered, of another format or of another version.
    """
    file = model_file(path)
    try:
        try:
            if not stat.S_ISREG(file.stat().st_mode):  # asked before it is opened: a FIFO would block
                raise ValueError("must be a regular file")
            digest, header, whole = _header(file)
        except (FileNotFoundError, NotADirectoryError):
            if (above := _existing(file)).is_file():
                raise ValueError(
                    f"missing: {above} is a file, not a folder (a model is a folder, or a file whose name ends in "
                    ".safetensors)"
                ) from None
            if any((file.parent / name).exists() for name in ("manifest.json", "index.json")):
                raise ValueError("missing: the folder is of an earlier, unreleased format: train again") from None
            raise
        metadata = header.pop("__metadata__")
        if metadata["format"] not in forms:
            raise ValueError(f"the format must be {' or '.join(forms)} (got {metadata['format']!r:.60})")
        manifest = json.loads(metadata["manifest"])
        if manifest["format_version"] != VERSION:
            raise ValueError(
                f"format version {manifest['format_version']!r:.60} is unknown; this hashlgn reads version {VERSION}"
            )
        if digest != metadata["sha256"]:
            raise ValueError("altered: the header does not have its checksum")
        arrays = _arrays(header, whole, manifest["sha256"] if verify else None)
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read ({reason(error)})") from error
    except MALFORMED as error:
        why = str(error) if type(error) is ValueError else f"damaged, or no file of hashlgn ({error!r:.200})"
        raise ArtifactError(f"{file}: {why}") from error
    return TensorFile(metadata["format"], manifest, arrays)


def _laid_out(form: str, manifest: dict[str, Any], arrays: Arrays) -> tuple[bytes, list[npt.NDArray[np.uint8]]]:
    """The header, its length included, and the bytes of arrays and fillers in their order."""
    entries: dict[str, Any] = {}
    blobs: list[npt.NDArray[np.uint8]] = []
    sums, end = {}, 0

    def add(name: str, kind: str, shape: tuple[int, ...], blob: npt.NDArray[np.uint8]) -> None:
        nonlocal end
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + len(blob)]}
        sums[name] = hashlib.sha256(blob.data).hexdigest()
        blobs.append(blob)
        end += len(blob)

    for name, array in arrays.items():
        flat = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        if flat.dtype not in _NAMES or name.startswith(_PAD) or name == "__metadata__":
            raise ArgumentError(f"arrays must be of a type and a name that can be saved (got {name!r}, {array.dtype})")
        if end % _LINE and flat.size:
            filler = np.zeros(-end % _LINE, np.uint8)
            add(f"{_PAD}{len(blobs)}", "U8", filler.shape, filler)
        add(name, _NAMES[flat.dtype], flat.shape, flat.reshape(-1).view(np.uint8))
    text = json_text("manifest", manifest | {"format_version": VERSION, "sha256": sums}).decode()
    metadata = {"sha256": _ZEROS, "format": form, "manifest": text}  # the checksum is the first to hold these zeros
    header = json.dumps({"__metadata__": metadata} | entries).encode()
    header += b" " * (-(8 + len(header)) % _LINE)
    digest = hashlib.sha256(header).hexdigest()
    return len(header).to_bytes(8, "little") + header.replace(_ZEROS.encode(), digest.encode(), 1), blobs


def _header(path: Path) -> tuple[str, dict[str, Any], npt.NDArray[np.uint8]]:
    """The checksum that the header has, the header, and all data behind it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            raise ValueError("truncated, or no safetensors file")
        text = file.read(length)
        start = file.tell()
        if start == size:
            whole = np.empty(0, np.uint8)
        elif os.name == "nt":
            whole = np.fromfile(file, np.uint8)
        else:
            whole = np.asarray(np.memmap(file, np.uint8, "r", start))
    header = json.loads(text)
    said = header["__metadata__"]["sha256"].encode()
    return hashlib.sha256(text.replace(said, _ZEROS.encode(), 1)).hexdigest(), header, whole


def _arrays(header: dict[str, Any], whole: npt.NDArray[np.uint8], sums: dict[str, str] | None) -> Arrays:
    arrays: Arrays = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"]
        if not all(type(number) is int and number >= 0 for number in (start, stop, *shape)) or start != end:
            raise ValueError(f"the place of {name!r:.60} is wrong")
        if stop - start != math.prod(shape) * dtype.itemsize or stop > len(whole):
            raise ValueError(f"truncated or altered: {name!r:.60} does not have its size")
        if sums is not None and hashlib.sha256(whole[start:stop].data).hexdigest() != sums[name]:
            raise ValueError(f"altered: {name!r:.60} does not have its checksum")
        end = stop
        if name.startswith(_PAD):
            continue
        if start % _LINE and stop > start:
            raise ValueError(f"{name!r:.60} must begin at a multiple of {_LINE} bytes")
        arrays[name] = whole[start:stop].view(dtype).reshape(shape)
    if end != len(whole):
        raise ValueError(f"altered: {len(whole) - end} bytes too many")
    return arrays
