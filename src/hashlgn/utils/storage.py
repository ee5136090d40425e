"""All-or-nothing writing: a file stands under its name whole, or as it was before."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hashlgn.errors import ArgumentError

__all__ = ["json_text", "reason", "replaced_file", "result_file", "sync_folder"]

_DAY = 86_400  # seconds


def reason(error: Exception) -> str:
    """What went wrong, without the path that the caller names anyway."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())


def json_text(name: str, value: Any, indent: int | None = None) -> bytes:
    """A value as JSON in UTF-8; NumPy numbers become plain ones.

    Raises:
        ArgumentError: it holds what JSON does not have, such as NaN.
    """

    def plain(other: Any) -> Any:
        if isinstance(other, np.generic):
            return other.item()
        raise TypeError(f"{type(other).__name__} is no JSON type")

    try:
        return json.dumps(value, indent=indent, allow_nan=False, default=plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{name} must be JSON-able ({error})") from error


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk; a no-op where folders cannot be opened (Windows).

    Raises:
        OSError: they cannot be written.
    """
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replaced_file(target: str | Path) -> Iterator[Path]:
    """Give a path beside ``target`` to write to; at the end, what was written there takes the target's place.

    Where the body raises, the written file is removed and the target stays as it was. A link stays a link: the file
    that it points to is replaced. The new file has the mode of the old one. What is no regular file, such as
    ``/dev/null``, ``/dev/stdout`` or a FIFO, is written in place. What killed writers of the same target left behind
    is removed.

    Raises:
        OSError: the file cannot be put in place.
    """
    target = Path(target).expanduser()
    mode = target.stat().st_mode if target.exists() else None
    if (mode is not None and not stat.S_ISREG(mode)) or target.absolute().parts[1:2] in (("dev",), ("proc",)):
        yield target
        return
    target = Path(os.path.realpath(target))
    _sweep(target)
    temporary = target.with_name(f"{_writing(target)}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield temporary
        with temporary.open("rb+") as file:  # a name must not come to the disk before what it names
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(stat.S_IMODE(mode))
        temporary.replace(target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def result_file(name: str, path: Path) -> Iterator[Path]:
    """``replaced_file`` for a file that a person asked for.

    Raises:
        ArgumentError: it cannot be written; the message calls it by ``name``.
    """
    try:
        with replaced_file(path) as temporary:
            yield temporary
    except OSError as error:
        raise ArgumentError(f"{name} must be a writable file (got {str(path)!r}: {reason(error)})") from error


def _writing(target: Path) -> str:
    """How the names of this machine's temporary files for a target begin; the process and a random part follow."""
    return f".{target.name[:40]}.writing-{re.sub('[^A-Za-z0-9]', '', socket.gethostname())[:40]}-"


def _sweep(target: Path) -> None:
    """Remove temporary files of a target whose writers no longer live, or that are a day old."""
    pattern = re.compile(re.escape(f".{target.name[:40]}.writing-") + "[A-Za-z0-9]*-([0-9]+)-[0-9a-f]{8}")
    with contextlib.suppress(OSError):  # a folder that cannot be listed, a file that another process removes
        for path in target.parent.iterdir():
            if (match := pattern.fullmatch(path.name)) and (
                time.time() - path.stat().st_mtime > _DAY
                or (path.name.startswith(_writing(target)) and not _lives(int(match[1])))
            ):
                path.unlink()


def _lives(process: int) -> bool:
    if os.name == "nt":  # there, such a signal would end the process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
