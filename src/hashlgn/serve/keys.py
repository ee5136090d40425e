"""Keys that let clients in: the file holds the hash of each key and what it allows, never the key.

A key is ``hlg_`` and 256 random bits, so that one SHA-256 is enough: there is nothing to guess. A file that changes is
read again with the next request; keys are created and revoked without a restart.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hashlgn.errors import ArgumentError, choose, shown
from hashlgn.utils.storage import json_text, reason, replaced_file

__all__ = ["SCOPES", "Key", "KeyFile", "create_key", "read_keys", "revoke_key"]

SCOPES = {"read": 1, "write": 2, "admin": 3}  # each allows what those before it allow
_FORMAT = "hashlgn-keys"
_LONGEST = 200  # characters of a key that anybody may send


@dataclass(frozen=True)
class Key:
    """What is known of a key.

    Attributes:
        name: what people call it.
        scope: ``read``, ``write`` or ``admin``.
        sha256: hash of the key, hexadecimal.
        created: when, in ISO 8601.
    """

    name: str
    scope: str
    sha256: str
    created: str


def read_keys(path: Path) -> list[Key]:
    """The keys of a file.

    Raises:
        ArgumentError: the file cannot be read, is no file of keys, or others than its owner may write to it.
    """
    try:
        if os.name != "nt" and path.stat().st_mode & 0o022:
            raise ArgumentError(f"keys must be a file that only its owner can write ({path}; chmod 600 {path})")
        held = json.loads(path.read_bytes())
        if held["format"] != _FORMAT or held["version"] != 1:
            raise ValueError(f"the format must be {_FORMAT}, version 1")
        keys = [Key(**key) for key in held["keys"]]
        for key in keys:
            choose("scope", key.scope, SCOPES)
            if len(bytes.fromhex(key.sha256)) != 32:
                raise ValueError("a hash must have 32 bytes")
    except OSError as error:
        raise ArgumentError(f"keys must be a readable file (got {str(path)!r}: {reason(error)})") from error
    except ArgumentError:
        raise
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ArgumentError(
            f"keys must be a file that hashlgn keys create wrote (got {str(path)!r}: {error})"
        ) from error
    return keys


def create_key(path: Path, scope: str, name: str | None = None) -> tuple[str, Key]:
    """Make a key and add it to a file, which is made where it is missing.

    Returns:
        The key, which is nowhere else, and what is known of it.

    Raises:
        ArgumentError: the scope is unknown, the name is taken, or the file cannot be read or written.
    """
    choose("scope", scope, SCOPES)
    keys = read_keys(path) if path.exists() else []
    secret = "hlg_" + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    digest = hashlib.sha256(secret.encode()).hexdigest()
    key = Key(name or f"{scope}-{digest[:8]}", scope, digest, datetime.now(UTC).isoformat(timespec="seconds"))
    if any(other.name == key.name for other in keys):
        raise ArgumentError(f"name must be new in {path} (got {shown(name)})")
    _write(path, [*keys, key])
    return secret, key


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of a file.

    Raises:
        ArgumentError: no key has the name, or the file cannot be read or written.
    """
    keys = read_keys(path)
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        known = ", ".join(repr(key.name) for key in keys) or "none"
        raise ArgumentError(f"name must be that of a key in {path}: {known} (got {shown(name)})")
    _write(path, left)


class KeyFile:
    """The keys of a service; a file that changes is read again.

    Args:
        path: the file.

    Raises:
        ArgumentError: as ``read_keys``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: tuple[Any, list[tuple[bytes, str]]] = (None, [])
        self._keys()

    def scope_of(self, key: str | None) -> str | None:
        """What a key allows: ``read``, ``write`` or ``admin``; None where it is missing or unknown.

        The time that this takes tells nothing of the keys: every hash is compared, and each in constant time.

        Raises:
            ArgumentError: the file has changed and is no file of keys any more: nobody is let in.
        """
        keys = self._keys()
        if key is None or len(key) > _LONGEST:
            return None
        digest, found = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest(), None
        for known, scope in keys:
            if hmac.compare_digest(known, digest):
                found = scope
        return found

    def _keys(self) -> list[tuple[bytes, str]]:
        try:
            found = self.path.stat()
        except OSError as error:
            raise ArgumentError(f"keys must be a readable file (got {str(self.path)!r}: {reason(error)})") from error
        version = found.st_mtime_ns, found.st_size, found.st_ino
        held = self._held
        if held[0] != version:
            held = version, [(bytes.fromhex(key.sha256), key.scope) for key in read_keys(self.path)]
            self._held = held
        return held[1]


def _write(path: Path, keys: list[Key]) -> None:
    held = {"format": _FORMAT, "version": 1, "keys": [vars(key) for key in keys]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path) as temporary:
            temporary.touch(0o600)
            temporary.write_bytes(json_text("keys", held, indent=2) + b"\n")
        path.chmod(0o600)
    except OSError as error:
        raise ArgumentError(f"keys must be a writable file (got {str(path)!r}: {reason(error)})") from error
