"""A file of changes beside a model: appended to before a change is visible, replayed when the model is loaded again.

One record a line: the CRC-32 of a JSON text, a blank, the text. The first record names the model that the changes are
of; each other one holds a change and its number, or that the change before it was taken back. A record is on the disk
before its change is visible. The last one may be torn by a crash: then its change was never visible, and it is dropped.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hashlgn.errors import ArgumentError, ArtifactError
from hashlgn.inference.changes import Change, Pairs, Placed
from hashlgn.inference.model import ServedModel
from hashlgn.inference.placement import Placement
from hashlgn.utils.storage import json_text, reason, replaced_file
from hashlgn.utils.tensors import MALFORMED

__all__ = ["Journal"]

_PARTS = {"pairs": Pairs, "placed": Placed, "placement": Placement}
_KINDS = ("uint8", "int64", "float16", "float32")


class Journal:
    """The journal of a model, open for one writer.

    Args:
        path: the file; made where there is none.
        model: what the changes are of.

    Raises:
        ArtifactError: the file is damaged, of another model, in use, or cannot be read or written.
    """

    def __init__(self, path: str | Path, model: ServedModel) -> None:
        self.path = Path(path).expanduser()
        self._model = _fingerprint(model)
        self._file = self._opened()

    def _opened(self) -> BinaryIO:
        try:
            file = self.path.open("a+b")
            _lock(file, self.path)
            if not file.seek(0, os.SEEK_END):
                self._write(file, {"model": self._model})
        except OSError as error:
            raise ArtifactError(f"{self.path}: the journal cannot be opened ({reason(error)})") from error
        return file

    def records(self) -> Iterator[tuple[int, Change | None]]:
        """Numbers and changes in order, None where the change before was taken back. A torn last record is cut off.

        Raises:
            ArtifactError: as the constructor.
        """
        self._file.seek(0)
        content = self._file.read()
        whole, end = content.split(b"\n")[:-1], 0
        texts = [_checked(line) for line in whole]
        # A crash tears the end. A file that does not begin as a journal is something else, which a wrong path named.
        if not any(texts[:1]) and not _line({"model": self._model}).startswith(content):
            raise ArtifactError(f"{self.path}: no journal of a model's changes: it does not begin as one does")
        while texts and texts[-1] is None:
            texts.pop()
        damaged = [number for number, text in enumerate(texts, 1) if text is None]
        if damaged:
            raise ArtifactError(f"{self.path}: damaged: line {damaged[0]} does not have its checksum")
        end = sum(len(line) + 1 for line in whole[: len(texts)])
        try:
            os.ftruncate(self._file.fileno(), end)
            if not texts:
                self._write(self._file, {"model": self._model})
                return
        except OSError as error:
            raise ArtifactError(f"{self.path}: the journal cannot be written ({reason(error)})") from error
        try:
            held = [json.loads(text) for text in texts if text is not None]
            if held[0]["model"] != self._model:
                which = "the journal of another model, or of another training of it"
                raise ArtifactError(f"{self.path}: {which} (load that model with it, or name another file)")
            for record in held[1:]:
                yield int(record["number"]), None if record["change"] is None else _change(record["change"])
        except MALFORMED as error:
            raise ArtifactError(f"{self.path}: inconsistent: {type(error).__name__}: {error}") from error

    def append(self, number: int, change: Change | None) -> None:
        """Write a change and wait until it is on the disk; None takes the one before back.

        Raises:
            ArtifactError: it cannot be written; the file holds what it held before.
        """
        size = self._file.seek(0, os.SEEK_END)
        try:
            self._write(self._file, {"number": number, "change": None if change is None else _plain(change)})
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), size)
            raise ArtifactError(f"{self.path}: the journal cannot be written ({reason(error)})") from error

    def restart(self) -> None:
        """Begin anew: all changes are in the saved model.

        Raises:
            ArtifactError: it cannot be written; the file holds what it held before, which does no harm.
        """
        try:
            with replaced_file(self.path) as beside, beside.open("wb") as file:
                self._write(file, {"model": self._model})
        except OSError as error:
            raise ArtifactError(f"{self.path}: the journal cannot be written ({reason(error)})") from error
        self.close()
        self._file = self._opened()

    def close(self) -> None:
        """Let another writer have the file."""
        self._file.close()

    @staticmethod
    def _write(file: BinaryIO, record: dict[str, Any]) -> None:
        file.write(_line(record))
        file.flush()
        os.fsync(file.fileno())


def _line(record: dict[str, Any]) -> bytes:
    text = json_text("change", record)
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _fingerprint(model: ServedModel) -> str:
    """What tells a training apart; changes do not enter it."""
    said = {"kind": model.kind, "config": model.config, "provenance": model.provenance}
    return hashlib.sha256(json.dumps(json.loads(json_text("model", said)), sort_keys=True).encode()).hexdigest()


def _checked(line: bytes) -> bytes | None:
    """The text of a record, or None where it does not have its checksum."""
    sum_, _, text = line.partition(b" ")
    return text if sum_ == b"%08x" % zlib.crc32(text) else None


def _plain(value: Any) -> Any:
    """A change as JSON has it: arrays as type, shape and bytes."""
    if isinstance(value, np.ndarray):
        little = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        return {
            "dtype": value.dtype.name,
            "shape": list(value.shape),
            "data": base64.b64encode(little.tobytes()).decode(),
        }
    if isinstance(value, Change | Pairs | Placed | Placement):
        held = {one.name: getattr(value, one.name) for one in fields(value) if one.name != "before"}
        return {name: _plain(part) for name, part in held.items() if part is not None and not _empty(part)}
    if isinstance(value, dict):
        return [[number, text] for number, text in value.items()]
    return value


def _empty(part: Any) -> bool:
    return isinstance(part, list | tuple | dict) and not part


def _change(held: dict[str, Any]) -> Change:
    """The change that ``_plain`` wrote."""
    made: dict[str, Any] = {}
    for name, part in held.items():
        if name in _PARTS:
            made[name] = _PARTS[name](**{key: _array(value) for key, value in {**_absent(name), **part}.items()})
        elif name in ("removed", "restored"):
            made[name] = tuple(int(number) for number in part)
        elif name in ("titles", "genres"):
            made[name] = {int(key): text if name == "titles" else tuple(text) for key, text in part}
        else:
            made[name] = part
    return Change(**made)


def _absent(name: str) -> dict[str, None]:
    """The arrays that a part may lack."""
    return {"pairs": {"strengths": None, "times": None}, "placed": {"scale": None, "weight": None}}.get(name, {})


def _array(held: Any) -> Any:
    if held is None:
        return None
    if held["dtype"] not in _KINDS:
        raise ArgumentError(f"dtype must be one of {', '.join(_KINDS)} (got {held['dtype']!r})")
    kind = np.dtype(held["dtype"])
    flat = np.frombuffer(base64.b64decode(held["data"]), kind.newbyteorder("<"))
    return flat.astype(kind).reshape(held["shape"])


def _lock(file: BinaryIO, path: Path) -> None:
    """Keep other writers out; where the system has no such locks, the caller sees to it."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ArtifactError(
            f"{path}: another process, or another model of this one, writes this journal ({reason(error)})"
        ) from error
