"""Files and folders that stand whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hashlgn.utils import storage
from hashlgn.utils.storage import reason, replaced_file, replaced_folder, standing_folder, sync_folder, write_file

# What a writer does, in a process of its own: its n-th call of the system that changes or syncs the disk kills it.
WRITER = """
import os, sys
from pathlib import Path
from hashlgn.utils import storage

target, exchange, deadly = Path(sys.argv[1]), sys.argv[2] == "exchange", int(sys.argv[3])
if not exchange:
    storage._exchange = lambda a, b: False
calls = 0

def dies(real):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == deadly:
            os.kill(os.getpid(), 9)
        return real(*arguments, **options)
    return call

for module, names in ((os, ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync")), (storage, ("_exchange",))):
    for name in names:
        setattr(module, name, dies(getattr(module, name)))
if target.suffix:
    with storage.replaced_file(target) as temporary:
        temporary.write_text("new new")
else:
    with storage.replaced_folder(target) as folder:
        storage.write_file(folder / "a", b"new")
        storage.write_file(folder / "b", b"new")
"""


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def fill(target: Path, text: str) -> None:
    with replaced_folder(target) as folder:
        for name in "ab":
            write_file(folder / name, text.encode())


@pytest.mark.parametrize("first", [True, False], ids=["new", "replaced"])
@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_a_killed_writer_leaves_the_old_folder_or_the_new(way: str, first: bool, tmp_path: Path) -> None:
    """Killed before each of its system calls in turn, until it lives to the end."""
    held = []
    for deadly in range(1, 40):
        parent = tmp_path / str(deadly)
        target = parent / "m"
        if not first:
            fill(target, "old")
        killed = subprocess.run([sys.executable, "-c", WRITER, str(target), way, str(deadly)]).returncode == -9
        standing = standing_folder(target)
        held.append(content(standing) if standing.exists() else None)
        assert held[-1] in ([None] if first else [{"a": "old", "b": "old"}]) + [{"a": "new", "b": "new"}]
        fill(target, "later")  # what was left behind stands in nobody's way
        assert content(target) == {"a": "later", "b": "later"}
        assert [path.name for path in parent.iterdir()] == ["m"]
        if not killed:
            break
    assert not killed and held[0] != held[-1] == {"a": "new", "b": "new"}


@pytest.mark.parametrize("first", [True, False], ids=["new", "replaced"])
def test_a_killed_writer_leaves_the_old_file_or_the_new(first: bool, tmp_path: Path) -> None:
    held = []
    for deadly in range(1, 10):
        target = tmp_path / str(deadly) / "rows.txt"
        target.parent.mkdir()
        if not first:
            target.write_text("old")
        killed = subprocess.run([sys.executable, "-c", WRITER, str(target), "", str(deadly)]).returncode == -9
        held.append(target.read_text() if target.exists() else None)
        assert held[-1] in (None if first else "old", "new new")
        if not killed:
            break
    assert not killed and held[0] != held[-1] == "new new"


@pytest.mark.parametrize("first", [True, False], ids=["new", "replaced"])
@pytest.mark.parametrize("way", ["exchange", "renames"])
@pytest.mark.parametrize("call", ["mkdir", "rename", "fsync", "open"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_changes_nothing(
    code: int, call: str, way: str, first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused at each call in turn, until none is left to refuse."""
    if way == "renames":
        monkeypatch.setattr(storage, "_exchange", lambda a, b: False)
    real, failures = getattr(os, call), 0
    for when in range(1, 20):
        parent, calls = tmp_path / str(when), 0
        parent.mkdir()
        if not first:
            fill(parent / "m", "old")

        def refuses(*arguments: object, when: int = when, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == when:
                raise OSError(code, os.strerror(code))
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, refuses)
            try:
                fill(parent / "m", "new")
            except OSError as error:
                assert error.errno == code
                failures += 1
                wanted = {} if first else {"m": {"a": "old", "b": "old"}}
            else:  # some refusals do no harm: a folder that is there already, an old one that stays behind
                wanted = {"m": {"a": "new", "b": "new"}}
        assert {path.name: content(path) for path in parent.glob("[!.]*")} == wanted
        fill(parent / "m", "later")
        assert [path.name for path in parent.iterdir()] == ["m"]
        if calls < when:
            break
    assert calls < when
    assert failures or (call, way, first) == ("rename", "exchange", False)  # one exchange, and no rename at all


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_body_that_raises_changes_nothing(kind: type[BaseException], tmp_path: Path) -> None:
    fill(tmp_path / "m", "old")
    (tmp_path / "f").write_text("old")
    with pytest.raises(kind), replaced_folder(tmp_path / "m") as folder:
        write_file(folder / "a", b"new")
        raise kind
    with pytest.raises(kind), replaced_file(tmp_path / "f") as file:
        file.write_text("new")
        raise kind
    assert content(tmp_path / "m") == {"a": "old", "b": "old"} and (tmp_path / "f").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "m"]


def test_a_file_is_on_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "f"
    real, steps = os.fsync, []

    def noted(descriptor: int) -> None:
        steps.append(target.exists())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with replaced_file(target) as file:
        file.write_text("new")
    assert steps == [False, True]  # the content, then the name


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").write_text("old")
    (tmp_path / "f").symlink_to(tmp_path / "real" / "f")
    with replaced_file(tmp_path / "f") as file:
        file.write_text("new")
    assert (tmp_path / "f").is_symlink() and content(tmp_path / "real") == {"f": "new"}


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    with pytest.raises(FileNotFoundError), replaced_file(tmp_path / "f"):
        pass
    assert content(tmp_path) == {"f": "old"}


def test_a_file_is_written_once(tmp_path: Path) -> None:
    write_file(tmp_path / "f", b"one")
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "f", b"two")
    assert (tmp_path / "f").read_bytes() == b"one"
    with pytest.raises(OSError):
        sync_folder(tmp_path / "none")


def test_parents_are_made_and_neighbours_left_alone(tmp_path: Path) -> None:
    """Folders that are named much like leftovers of ours, but are not."""
    target = tmp_path / "x" / "y" / "m"
    neighbours = [
        ".m.saving-notours0",
        ".m.saving-1234",
        ".other.previous",
        ".mm.saving-00000000",
        "m.previous",
        "xmxprevious",
    ]
    target.parent.mkdir(parents=True)
    for name in neighbours:
        (target.parent / name).mkdir()
    (target.parent / ".m.saving-0123abcd").mkdir()
    fill(target, "new")
    assert sorted(path.name for path in target.parent.iterdir()) == sorted([*neighbours, "m"])
    fill(tmp_path / "p" / "q" / "m", "new")
    assert content(tmp_path / "p" / "q" / "m") == {"a": "new", "b": "new"}


def test_a_reason_is_never_empty() -> None:
    assert reason(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/where")) == os.strerror(errno.ENOSPC)
    assert reason(RuntimeError("ring of links")) == "ring of links"
    assert reason(OSError()) == "OSError"
