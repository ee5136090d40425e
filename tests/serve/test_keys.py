from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hashlgn.errors import ArgumentError
from hashlgn.serve.keys import SCOPES, KeyFile, create_key, read_keys, revoke_key


def allows(keys: KeyFile, key: str | None, scope: str) -> bool:
    found = keys.scope_of(key)
    return found is not None and SCOPES[found] >= SCOPES[scope]


def test_a_key_allows_its_scope_and_those_below(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    secrets = {scope: create_key(path, scope)[0] for scope in SCOPES}
    keys = KeyFile(path)
    for mine, secret in secrets.items():
        assert keys.scope_of(secret) == mine
        assert [scope for scope in SCOPES if allows(keys, secret, scope)] == list(SCOPES)[: SCOPES[mine]]
    for wrong in (None, "", "hlg_", secrets["read"][:-1], secrets["read"] + "A", "x" * 10_000, "\ud800"):
        assert keys.scope_of(wrong) is None and not allows(keys, wrong, "read")


def test_the_file_holds_no_key_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    secret, _ = create_key(path, "admin", "mine")
    assert secret.removeprefix("hlg_") not in path.read_text() and len(secret) == 47
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    create_key(path, "read")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_change_while_a_service_runs(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    old, _ = create_key(path, "write", "old")
    keys = KeyFile(path)
    new, _ = create_key(path, "write", "new")
    assert allows(keys, old, "write") and allows(keys, new, "write")
    revoke_key(path, "old")
    assert not allows(keys, old, "write") and allows(keys, new, "write")
    with pytest.raises(ArgumentError, match="'new' \\(got 'old'\\)"):
        revoke_key(path, "old")
    with pytest.raises(ArgumentError, match="name must be new"):
        create_key(path, "read", "new")


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"format": "hashlgn-keys", "version": 1, "keys": [{"name": "a"}]}']
)
def test_a_file_that_is_no_file_of_keys_lets_nobody_in(content: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    secret, _ = create_key(path, "read")
    keys = KeyFile(path)
    path.write_text(content)
    with pytest.raises(ArgumentError, match="keys must be a file that hashlgn keys create wrote"):
        allows(keys, secret, "read")
    path.unlink()
    with pytest.raises(ArgumentError, match="keys must be a readable file"):
        allows(keys, secret, "read")


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    create_key(path, "read")
    path.chmod(0o620)
    with pytest.raises(ArgumentError, match="chmod 600"):
        read_keys(path)


def test_an_unknown_scope_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="scope must be one of 'read', 'write', 'admin'"):
        create_key(tmp_path / "keys.json", "root")
    assert not list(tmp_path.iterdir())
