"""All-or-nothing writing: a file or a folder stands under its name whole, or as it was before."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hashlgn.errors import ArgumentError

__all__ = ["json_text", "reason", "replaced_file", "replaced_folder", "standing_folder", "sync_folder", "write_file"]


def reason(error: Exception) -> str:
    """What went wrong, without the path that the caller names anyway."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


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


def write_file(path: Path, content: bytes) -> None:
    """Write a new file and wait until it is on the disk.

    Raises:
        OSError: it cannot be written, or exists.
    """
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


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
def replaced_file(target: Path) -> Iterator[Path]:
    """Give a path beside ``target`` to write to; at the end, what was written there takes the target's place.

    Where the body raises, the written file is removed and the target stays as it was. A link stays a link: what it
    points to is replaced.

    Raises:
        OSError: the file cannot be put in place.
    """
    target = Path(os.path.realpath(target))
    temporary = target.with_name(f".{target.name}.writing-{secrets.token_hex(4)}")
    try:
        yield temporary
        with temporary.open("rb+") as file:  # a name must not come to the disk before what it names
            os.fsync(file.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Give a new folder beside ``target`` to fill; at the end it takes the target's place in one step.

    At every moment, a killed process included, :func:`standing_folder` gives the old folder or the new one,
    whole. The body syncs the files it writes. Writers into one parent folder take turns, and each first
    clears away what killed writers left behind.

    Args:
        target: a resolved path; its parent is created.

    Raises:
        OSError: a folder cannot be written; the target stays as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _turn(target.parent):
        _tidy(target)
        temporary = target.with_name(f".{target.name}.saving-{secrets.token_hex(4)}")
        try:
            temporary.mkdir()
            yield temporary
            sync_folder(temporary)
            _put_in_place(temporary, target)
        finally:  # after an exchange, the temporary name holds the old folder
            shutil.rmtree(temporary, ignore_errors=True)


def standing_folder(target: Path) -> Path:
    """Where the content of ``target`` is: there, or set aside by a writer that was killed between two renames."""
    return _aside(target) if not target.exists() and _aside(target).exists() else target


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


@contextlib.contextmanager
def _turn(parent: Path) -> Iterator[None]:
    """Hold the lock on a folder; the system lets go of it when the process ends, however it ends."""
    if os.name == "nt":
        yield
        return
    import fcntl

    descriptor = os.open(parent, os.O_RDONLY)
    try:
        # Some network file systems know no locks: there, one writer at a time is the caller's business.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _tidy(target: Path) -> None:
    """Bring a set-aside folder back where it is the only one, and remove what killed writers left."""
    aside = _aside(target)
    if aside.exists() and not target.exists():
        aside.rename(target)
    leftover = re.compile(re.escape(f".{target.name}.") + "(previous|saving-[0-9a-f]{8})")
    for path in target.parent.iterdir():
        if leftover.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _put_in_place(new: Path, target: Path) -> None:
    aside = _aside(target)
    with contextlib.ExitStack() as undo:  # what a failure takes back, last step first
        if not target.exists():
            new.rename(target)
            undo.callback(target.rename, new)
        elif _exchange(new, target):
            undo.callback(_exchange, new, target)
        else:
            target.rename(aside)
            undo.callback(aside.rename, target)
            new.rename(target)
            undo.callback(target.rename, new)
        sync_folder(target.parent)
        undo.pop_all()
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two folders in one atomic step (Linux 3.15 and most of its file systems); False where it cannot be done."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <fcntl.h> and <linux/fs.h>
    return bool(libc.renameat2(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0)
