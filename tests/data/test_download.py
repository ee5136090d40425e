"""Downloads against a server on this machine: whole, resumed, refused; nothing half-done passes for a data set."""

from __future__ import annotations

import hashlib
import http.server
import io
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import hashlgn.data.download as room
from hashlgn.data import read_interactions
from hashlgn.data.download import DATASETS, RemoteFile, cache_folder, cached, download
from hashlgn.errors import ArgumentError, DownloadError


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files`` by path; breaks off after ``stop_after`` bytes, once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.stop_after: int | None = None
        self.ranges: list[str | None] = []
        self.knows_ranges = True

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Server = self.server  # type: ignore[assignment]
        content = server.files.get(self.path.strip("/"))
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        if content is None:
            self.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.knows_ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop, server.stop_after = server.stop_after, None
        self.wfile.write(content[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("HASHLGN_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def archive(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, text in members.items():
            zipped.writestr(name, text)
    return buffer.getvalue()


RATINGS = "".join(f"{u}::{i}::4::{100 + i}\n" for u in range(1, 40) for i in range(1, 9))
ML = archive({"ml-x/ratings.dat": RATINGS, "ml-x/movies.dat": "1::One (1999)::Drama|War\n", "ml-x/sub/note.txt": "a"})


def publish(server: Server, monkeypatch: pytest.MonkeyPatch, **files: bytes) -> None:
    """Make the data set ``made`` of these files."""
    server.files |= {name.replace("_", "."): content for name, content in files.items()}
    remote = [
        RemoteFile(server.url(name.replace("_", ".")), "sha256:" + hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    ]
    monkeypatch.setitem(DATASETS, "made", tuple(remote))


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_an_archive_becomes_a_folder_that_can_be_read(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(server, monkeypatch, made_zip=ML)
    assert cached("made") is None
    folder = download("made")
    assert folder == cache_folder() / "made" == cached("made")
    assert names(cache_folder()) == ["made/movies.dat", "made/ratings.dat", "made/sub/note.txt"]
    data = read_interactions(folder)
    assert (data.n_users, data.n_items, data.titles[0]) == (39, 8, "One (1999)")
    assert data.genres[0] == ("Drama", "War")
    assert download("made") == folder
    assert server.ranges == [None]  # fetched once
    assert capsys.readouterr().out == ""


def test_files_of_a_folder(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, train_txt=b"0 1 2\n1 2\n", test_txt=b"0 3\n")
    folder = download("made", progress=False)
    assert len(read_interactions(folder, part="all")) == 4
    (folder / "test.txt").write_bytes(b"0 4\n")
    assert cached("made") is None
    with pytest.raises(DownloadError, match=r"test\.txt is not the file http.*checksum.*remove it"):
        download("made", progress=False)


def test_a_wrong_checksum_leaves_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, made_zip=ML)
    server.files["made.zip"] = ML + b"x"
    with pytest.raises(DownloadError, match="has not the checksum sha256:") as caught:
        download("made", progress=False)
    assert str(cache_folder() / "made.zip") in str(caught.value)
    assert server.url("made.zip") in str(caught.value)
    assert names(cache_folder()) == []
    assert cached("made") is None


def test_a_missing_file(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, made_zip=ML)
    server.files.clear()
    with pytest.raises(DownloadError, match=r"the server answered 404 Not Found\. By hand: .* save it as .*made\.zip"):
        download("made", progress=False)
    assert names(cache_folder()) == []


def test_no_connection_says_where_to_put_the_file(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/made.zip"
    checksum = "md5:" + hashlib.md5(ML, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(DATASETS, "made", (RemoteFile(url, checksum),))
    with pytest.raises(DownloadError, match=r"could not be downloaded: no connection") as caught:
        download("made", progress=False)
    place = cache_folder() / "made.zip"
    assert str(caught.value).endswith(f"save it as {place}")
    place.write_bytes(ML)  # by hand
    assert len(read_interactions(download("made", progress=False))) == 39 * 8
    assert place.exists()


def test_a_wrong_file_by_hand_is_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, made_zip=ML)
    cache_folder().mkdir()
    (cache_folder() / "made.zip").write_bytes(b"something else")
    with pytest.raises(DownloadError, match=r"made\.zip is not the file http"):
        download("made", progress=False)
    assert server.ranges == []


def test_no_answer_ends_within_the_patience(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PATIENCE", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        file = RemoteFile(f"http://127.0.0.1:{silent.getsockname()[1]}/made.zip", "md5:0")
        monkeypatch.setitem(DATASETS, "made", (file,))
        with pytest.raises(DownloadError, match="no answer within 0 seconds"):
            download("made", progress=False)


def test_an_interrupted_download_goes_on_where_it_stopped(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, made_zip=ML)
    server.stop_after = 100
    monkeypatch.setattr(room, "_CHUNK", 50)  # less than a chunk at the end is lost
    with pytest.raises(DownloadError, match="the connection broke after 100 bytes, which are kept: try again"):
        download("made", progress=False)
    assert names(cache_folder()) == ["made.zip.part"]
    assert cached("made") is None
    download("made", progress=False)
    assert server.ranges == [None, "bytes=100-"]
    assert "made/ratings.dat" in names(cache_folder())


@pytest.mark.parametrize("part", [b"rest of another file", ML, ML + b"too long"])
@pytest.mark.parametrize("knows_ranges", [True, False])
def test_any_remains_end_in_the_right_file(
    server: Server, monkeypatch: pytest.MonkeyPatch, part: bytes, knows_ranges: bool
) -> None:
    publish(server, monkeypatch, made_zip=ML)
    server.knows_ranges = knows_ranges
    cache_folder().mkdir()
    (cache_folder() / "made.zip.part").write_bytes(part)
    assert len(read_interactions(download("made", progress=False))) == 39 * 8


@pytest.mark.parametrize("name", ["../outside.txt", "a/../../outside.txt", "/outside.txt", "..\\outside.txt", "C:evil"])
def test_an_archive_cannot_write_outside_its_folder(server: Server, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    publish(server, monkeypatch, made_zip=archive({"ml-x/ratings.dat": RATINGS, name: "evil"}))
    with pytest.raises(DownloadError, match=r"which would lie outside its folder; nothing unpacked"):
        download("made", progress=False)
    assert cached("made") is None
    assert names(cache_folder().parent) == ["cache/made.zip"]


def test_an_archive_cannot_hold_links(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        link = zipfile.ZipInfo("ml-x/link")
        link.external_attr = 0o120777 << 16
        zipped.writestr(link, "/etc")
    publish(server, monkeypatch, made_zip=buffer.getvalue())
    with pytest.raises(DownloadError, match="outside its folder"):
        download("made", progress=False)


def test_what_is_no_archive_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, made_zip=b"not a zip")
    with pytest.raises(DownloadError, match="is no sound zip archive"):
        download("made", progress=False)
    assert cached("made") is None


def test_a_folder_that_cannot_be_written(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    publish(server, monkeypatch, made_zip=ML)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HASHLGN_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match=r"could not be written to .*file.*HASHLGN_CACHE names another folder"):
        download("made", progress=False)


def test_unknown_names_list_the_known() -> None:
    for ask in (download, cached):
        with pytest.raises(ArgumentError, match=r"name must be one of 'ml-100k', .*'amazon-book'.*\(got 'ml-2m'\)"):
            ask("ml-2m")


def test_the_cache_folder_is_the_users_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HASHLGN_CACHE", raising=False)
    assert cache_folder().name == "hashlgn"
    monkeypatch.setenv("HASHLGN_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


def test_git_names_content_by_its_length_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello\n")
    git = RemoteFile("http://x/file", "git:ce013625030ba8dba906f756967f9e9ca394464a")  # echo hello | git hash-object
    assert room._sound(tmp_path / "file", git)
    (tmp_path / "file").write_bytes(b"hello")
    assert not room._sound(tmp_path / "file", git)


def test_every_published_file_is_pinned() -> None:
    lengths = {"md5": 32, "sha256": 64, "git": 40}
    for files in DATASETS.values():
        for file in files:
            kind, _, digest = file.checksum.partition(":")
            assert re.fullmatch(f"[0-9a-f]{{{lengths[kind]}}}", digest)
            assert file.url.startswith("https://")


def test_the_given_gowalla_test_part_has_the_pinned_checksum(real_data: Path) -> None:
    assert room._sound(real_data / "gowalla" / "test.txt", DATASETS["gowalla"][1])
