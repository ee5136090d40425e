"""Published data sets, fetched once into the user's cache folder, each file against a pinned checksum."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from hashlgn.errors import DownloadError, choose
from hashlgn.utils.storage import reason

__all__ = ["DATASETS", "RemoteFile", "cache_folder", "cached", "download"]

_PATIENCE = 8.0  # seconds without an answer after which there is no network
_CHUNK = 1 << 18


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address that never changes."""

    url: str  # where it is
    checksum: str  # ``md5:…``, ``sha256:…``, or ``git:…``, the SHA-1 by which Git names a file's content

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[1]


Files = tuple[RemoteFile, ...]  # one zip archive, or the files of a folder


def _movielens(name: str, md5: str) -> Files:
    return (RemoteFile(f"https://files.grouplens.org/datasets/movielens/{name}.zip", f"md5:{md5}"),)


def _lightgcn(name: str, train: str, test: str) -> Files:
    """A split of the LightGCN authors, with Git's checksum of ``train.txt`` and SHA-256 of ``test.txt``."""
    commit = "947ca2b3b1d2d3545b114145710cb06c4e57b3d2"
    folder = f"https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/{commit}/data/{name}"
    return RemoteFile(f"{folder}/train.txt", f"git:{train}"), RemoteFile(f"{folder}/test.txt", f"sha256:{test}")


DATASETS: dict[str, Files] = {
    "ml-100k": _movielens("ml-100k", "0e33842e24a9c977be4e0107933c0723"),
    "ml-1m": _movielens("ml-1m", "c4d9eecfca2ab87c1945afe126590906"),
    "ml-10m": _movielens("ml-10m", "ce571fd55effeba0271552578f2648bd"),
    "ml-20m": _movielens("ml-20m", "cd245b17a1ae2cc31bb14903e1204af3"),
    "ml-25m": _movielens("ml-25m", "6b51fb2759a8657d3bfcbfc42b592ada"),
    "ml-32m": _movielens("ml-32m", "d472be332d4daa821edc399621853b57"),
    "gowalla": _lightgcn(
        "gowalla",
        "a27782bd7a1d4d0744148dc0460ea94da74763f2",
        "099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3",
    ),
    "yelp2018": _lightgcn(
        "yelp2018",
        "cda12361055ba448ae4bd1070f6000c16dea8f22",
        "9cd9b37926cd1447a06625ffa7914527573fb097c10cb0bbdb1d1b8ded3742fe",
    ),
    "amazon-book": _lightgcn(
        "amazon-book",
        "6ef55159c5f1fd7f6d86eb9ff290d0cc2854ac99",
        "6250754994dd953b91b48dccdd77a73f318e0634b4757c2abfcc9d33a54ab0f5",
    ),
}


def cache_folder() -> Path:
    """Where data sets are kept: ``HASHLGN_CACHE``, or the user's cache folder of this system."""
    return Path(os.environ.get("HASHLGN_CACHE") or pooch.os_cache("hashlgn")).expanduser()


def cached(name: str) -> Path | None:
    """The folder of a data set that ``download`` has fetched before, or None; never uses the network.

    Raises:
        ArgumentError: ``name`` is not a key of ``DATASETS``.
    """
    files: Files = choose("name", name, DATASETS)
    folder = cache_folder() / name
    if _zipped(files):
        return folder if folder.is_dir() else None
    return folder if all((folder / f.name).is_file() and _sound(folder / f.name, f) for f in files) else None


def download(name: str, *, progress: bool = True) -> Path:
    """Fetch a published data set, unless it is cached: a folder that ``read_interactions`` reads.

    A file that was put where the error message of a failed download says is checked and used. An interrupted
    download goes on where it stopped.

    Args:
        name: a key of ``DATASETS``.
        progress: show a bar on the standard error stream.

    Raises:
        ArgumentError: ``name`` is not a key of ``DATASETS``.
        DownloadError: no network, no such file, a wrong checksum, no place; with the address, the reason and the
            path where the file may be put by hand.
    """
    files: Files = choose("name", name, DATASETS)
    held = cached(name)
    if held is not None:
        return held
    folder = cache_folder() / name
    try:
        if not _zipped(files):
            folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                _fetch(file, folder / file.name, progress)
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        archive = folder.parent / f"{name}.zip"
        by_hand = archive.exists()
        _fetch(files[0], archive, progress)
        _extract(archive, folder.resolve())
        if not by_hand:
            archive.unlink(missing_ok=True)
    except OSError as error:
        raise DownloadError(
            f"{name} could not be written to {folder.parent} ({reason(error)}); HASHLGN_CACHE names another folder"
        ) from error
    return folder


def _zipped(files: Files) -> bool:
    return len(files) == 1 and files[0].name.endswith(".zip")


def _fetch(file: RemoteFile, target: Path, progress: bool) -> None:
    """Bring a file to ``target``, complete and with the right checksum."""
    if target.exists():
        if _sound(target, file):
            return
        raise DownloadError(
            f"{target} is not the file {file.url} (its checksum differs from {file.checksum}); remove it"
        )
    part = target.with_name(target.name + ".part")
    for resumed in (part.exists(), False):
        try:
            _transfer(file.url, part, progress)
        except requests.RequestException as error:
            raise DownloadError(_by_hand(file, target, _why(error, part))) from error
        if _sound(part, file):
            part.replace(target)
            return
        part.unlink()
        if not resumed:  # what was resumed may have been the rest of another file: worth a second, whole try
            raise DownloadError(_by_hand(file, target, f"what came has not the checksum {file.checksum}"))


def _transfer(url: str, part: Path, progress: bool) -> None:
    """Append the rest of a file to ``part``, or write it anew where the server sends it whole."""
    start = part.stat().st_size if part.exists() else 0
    # Compressed on the way, ranges would count other bytes.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    response = _within(_PATIENCE, lambda: requests.get(url, headers=headers, stream=True, timeout=_PATIENCE))
    with response:
        if response.status_code == 416:  # nothing is left of it, or it is not that long: the checksum will tell
            return
        response.raise_for_status()
        start = start if response.status_code == 206 else 0
        length = response.headers.get("Content-Length", "")
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        bar = Progress(*columns, console=Console(stderr=True), disable=not progress, transient=True)
        with bar, part.open("ab" if start else "wb") as out:
            name = url.rsplit("/", 1)[1]
            task = bar.add_task(name, total=start + int(length) if length.isdigit() else None, completed=start)
            for chunk in response.iter_content(_CHUNK):
                out.write(chunk)
                bar.advance(task, len(chunk))


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of a call, which may take so long at most: looking up a name has no timeout of its own."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = call()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds + 1)
    if "error" in outcome:
        raise outcome["error"]
    if "result" not in outcome:
        raise requests.ConnectTimeout(f"no answer within {seconds:.0f} seconds")
    return outcome["result"]


def _why(error: requests.RequestException, part: Path) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {_PATIENCE:.0f} seconds"
    if part.exists() and part.stat().st_size:
        return (
            f"the connection broke after {part.stat().st_size:,} bytes, which are kept: try again to go on from there"
        )
    return f"no connection ({type(error).__name__})"


def _by_hand(file: RemoteFile, target: Path, why: str) -> str:
    return f"{file.url} could not be downloaded: {why}. By hand: fetch that address and save it as {target}"


def _sound(path: Path, file: RemoteFile) -> bool:
    """Whether a file has the pinned checksum."""
    kind, _, wanted = file.checksum.partition(":")
    digest = hashlib.new({"git": "sha1"}.get(kind, kind), usedforsecurity=False)
    if kind == "git":
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as content:
        while block := content.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest() == wanted


def _extract(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder, all or nothing, without the one folder that holds everything in it.

    Raises:
        DownloadError: it is no sound archive, or a member would lie outside the folder.
    """
    try:
        with (
            zipfile.ZipFile(archive) as zipped,
            tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as scratch,
        ):
            temporary = Path(scratch) / folder.name
            members = [member for member in zipped.infolist() if not member.is_dir()]
            places = [_place(member, archive) for member in members]
            wrapped = len({place.parts[0] for place in places}) == 1 and all(len(p.parts) > 1 for p in places)
            for member, place in zip(members, places, strict=True):
                target = temporary.joinpath(*place.parts[wrapped:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with zipped.open(member) as content, target.open("xb") as out:
                    shutil.copyfileobj(content, out, _CHUNK)
                    out.flush()
                    os.fsync(out.fileno())
            temporary.rename(folder)
    # What ``zipfile`` raises for damaged, cut, unknown and encrypted members.
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"{archive} is no sound zip archive: {reason(error)}") from error


def _place(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    place = PurePosixPath(member.filename)
    odd = place.is_absolute() or not place.parts or ".." in place.parts
    if odd or any(c in member.filename for c in "\\:") or stat.S_ISLNK(member.external_attr >> 16):
        raise DownloadError(
            f"{archive} holds {member.filename!r}, which would lie outside its folder; nothing unpacked"
        )
    return place
