"""Files and folders that stand whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hashlgn.utils import storage
from hashlgn.utils.storage import reason, replaced_file, sync_folder

# What a writer does, in a process of its own: its n-th call of the system that changes or syncs the disk kills it.
WRITER = """
import os, sys
from pathlib import Path
from hashlgn.utils import storage

target, deadly = Path(sys.argv[1]), int(sys.argv[2])
calls = 0

def dies(real):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == deadly:
            os.kill(os.getpid(), 9)
        return real(*arguments, **options)
    return call

for name in ("replace", "unlink", "fsync", "chmod"):
    setattr(os, name, dies(getattr(os, name)))
with storage.replaced_file(target) as temporary:
    temporary.write_text("new new")
"""


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("first", [True, False], ids=["new", "replaced"])
def test_a_killed_writer_leaves_the_old_file_or_the_new(first: bool, tmp_path: Path) -> None:
    held = []
    for deadly in range(1, 10):
        target = tmp_path / str(deadly) / "rows.txt"
        target.parent.mkdir()
        if not first:
            target.write_text("old")
        killed = subprocess.run([sys.executable, "-c", WRITER, str(target), str(deadly)]).returncode == -9
        held.append(target.read_text() if target.exists() else None)
        assert held[-1] in (None if first else "old", "new new")
        with replaced_file(target) as file:  # what was left behind stands in nobody's way, and is swept
            file.write_text("later")
        assert content(target.parent) == {"rows.txt": "later"}
        if not killed:
            break
    assert not killed and held[0] != held[-1] == "new new"


@pytest.mark.parametrize("first", [True, False], ids=["new", "replaced"])
@pytest.mark.parametrize("call", ["replace", "fsync", "chmod"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_changes_nothing(
    code: int, call: str, first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if first and call == "chmod":
        pytest.skip("a new file has no mode to keep")
    target = tmp_path / "f"
    if not first:
        target.write_text("old")

    def refuses(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuses)
        with pytest.raises(OSError) as caught, replaced_file(target) as file:
            file.write_text("new")
    assert caught.value.errno == code
    assert content(tmp_path) == ({} if first else {"f": "old"})


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_body_that_raises_changes_nothing(kind: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    with pytest.raises(kind), replaced_file(tmp_path / "f") as file:
        file.write_text("new")
        raise kind
    assert content(tmp_path) == {"f": "old"}


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


def test_a_folder_that_is_not_there_cannot_be_synced(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        sync_folder(tmp_path / "none")


def test_the_mode_is_kept(tmp_path: Path) -> None:
    for mode in (0o600, 0o644, 0o444, 0o755):
        (tmp_path / "f").write_text("old")
        (tmp_path / "f").chmod(mode)
        with replaced_file(tmp_path / "f") as file:
            file.write_text("new")
        assert (tmp_path / "f").stat().st_mode & 0o777 == mode
        (tmp_path / "f").chmod(0o600)


def test_what_is_no_regular_file_is_written_in_place(tmp_path: Path) -> None:
    fifo, link = tmp_path / "fifo", tmp_path / "null"
    os.mkfifo(fifo)
    link.symlink_to("/dev/null")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    for path in (fifo, link):
        with replaced_file(path) as file:
            file.write_text("new")
    reader.join(10)
    assert read == ["new"] and stat.S_ISFIFO(fifo.stat().st_mode)
    assert link.is_symlink() and stat.S_ISCHR(link.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "null"]


def test_the_standard_output_is_written_in_place(tmp_path: Path) -> None:
    code = (
        "from hashlgn.utils.storage import replaced_file\n"
        "with replaced_file('/dev/stdout') as file: file.write_text('new')"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out == "new"
    with (tmp_path / "out").open("w") as file:
        subprocess.run([sys.executable, "-c", code], check=True, stdout=file)
    assert content(tmp_path) == {"out": "new"}


def test_neighbours_and_living_writers_are_left_alone(tmp_path: Path) -> None:
    """Files that are named much like leftovers of ours, but are not, or whose writer lives."""
    ours = storage._writing(tmp_path / "f")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [f"{ours}{dead.pid}-01234567", f".f.writing-elsewhere-{os.getpid()}-01234567"]
    kept = [
        f"{ours}{os.getpid()}-01234567",
        f"{ours}{dead.pid}-0123456",
        f".g.writing-{dead.pid}-01234567",
        ".f.writing-elsewhere-1-01234567",
        "f.writing",
    ]
    for name in (*left, *kept):
        (tmp_path / name).write_text("x")
    os.utime(tmp_path / left[1], (0, 0))  # of another machine, and old
    with replaced_file(tmp_path / "f") as file:
        file.write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["f", *kept])


def test_a_reason_is_never_empty() -> None:
    assert reason(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/where")) == os.strerror(errno.ENOSPC)
    assert reason(RuntimeError("ring of links")) == "ring of links"
    assert reason(OSError()) == "OSError"
