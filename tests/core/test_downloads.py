"""Downloads: verified, atomic, and with one sentence about each failure."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pooch
import pytest

from realtime_ssd.core import downloads
from realtime_ssd.core.downloads import CHECKSUMS, download
from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError
from tests.core.http_server import FolderServer, serve_folder

DATA, OTHER = b"weights" * 1000, b"other"
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FolderServer]:
    (tmp_path / "server").mkdir()
    (tmp_path / "server/m.pth").write_bytes(DATA)
    with serve_folder(tmp_path / "server") as running:
        yield running


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_file_with_a_full_checksum(server: FolderServer, tmp_path: Path) -> None:
    path = tmp_path / "cache/new/m.pth"
    download(f"{server.url}/m.pth", DIGEST.upper(), path, hint="use it")
    assert path.read_bytes() == DATA
    assert files(path.parent) == ["m.pth"]
    download(f"{server.url}/m.pth", DIGEST, path, hint="use it")
    assert server.requests == ["/m.pth"]


def test_damaged_file_is_downloaded_again(server: FolderServer, tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    path.write_bytes(DATA[:-1])
    download(f"{server.url}/m.pth", DIGEST, path, hint="use it")
    assert path.read_bytes() == DATA


def test_first_download_records_the_checksum_that_is_published_in_part(
    server: FolderServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, path = f"{server.url}/m.pth", tmp_path / "cache/m.pth"
    with caplog.at_level(logging.WARNING):
        download(url, DIGEST[:8], path, hint="use it")
    assert json.loads((tmp_path / "cache" / CHECKSUMS).read_text()) == {url: DIGEST}
    assert f"its full sha256 {DIGEST} was recorded" in caplog.text
    caplog.clear()
    path.unlink()
    download(url, DIGEST[:8], path, hint="use it")
    assert path.read_bytes() == DATA
    assert caplog.text == ""


def test_later_downloads_must_match_the_recorded_checksum(
    server: FolderServer, tmp_path: Path
) -> None:
    url, path = f"{server.url}/m.pth", tmp_path / "m.pth"
    record = tmp_path / "elsewhere.json"
    record.write_text(json.dumps({url: DIGEST[:8] + "0" * 56, "other": "1" * 64}))
    with pytest.raises(ModelError, match=rf"expected {DIGEST[:8]}00000000\.\.\."):
        download(url, DIGEST[:8], path, hint="use it", checksums=record)
    assert not path.exists()
    # A recorded checksum that contradicts the published digits belongs to an older file.
    record.write_text(json.dumps({url: "0" * 64, "other": "1" * 64}))
    download(url, DIGEST[:8], path, hint="use it", checksums=record)
    assert json.loads(record.read_text()) == {url: DIGEST, "other": "1" * 64}
    assert not (tmp_path / CHECKSUMS).exists()


def test_credentials_are_not_recorded(server: FolderServer, tmp_path: Path) -> None:
    url = f"{server.url}/m.pth".replace("http://", "http://user:secret@")
    download(url, DIGEST[:8], tmp_path / "m.pth", hint="use it")
    assert "secret" not in (tmp_path / CHECKSUMS).read_text()


@pytest.mark.parametrize("content", ["damaged", "[]"])
def test_unreadable_record_is_named(server: FolderServer, tmp_path: Path, content: str) -> None:
    (tmp_path / CHECKSUMS).write_text(content)
    with pytest.raises(ModelError, match=rf"{CHECKSUMS}' cannot be read .*; delete the file"):
        download(f"{server.url}/m.pth", DIGEST[:8], tmp_path / "m.pth", hint="use it")


def test_other_file_is_discarded(server: FolderServer, tmp_path: Path) -> None:
    (tmp_path / "server/m.pth").write_bytes(OTHER)
    path = tmp_path / "cache/m.pth"
    path.parent.mkdir()
    path.write_bytes(b"old")
    other = hashlib.sha256(OTHER).hexdigest()
    for digits in (DIGEST, DIGEST[:8]):
        message = rf"{other[:16]}\.\.\., expected {digits[:16]}\.\.\.; the download was discarded"
        with pytest.raises(ModelError, match=message):
            download(f"{server.url}/m.pth", digits, path, hint="use it")
    assert files(path.parent) == ["m.pth"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.pth", "the server answered 404 File not found"),
        ("truncated", "the connection was lost"),
        ("redirect?/redirect?/a", "the server answered 404 File not found"),
        ("redirect?file:///etc/hostname", "it redirects to an address other than http or https"),
        ("redirect?ftp://127.0.0.1/m.pth", "it redirects to an address other than http or https"),
    ],
)
def test_failed_download_leaves_nothing(
    server: FolderServer, tmp_path: Path, name: str, reason: str
) -> None:
    path = tmp_path / "cache/m.pth"
    with pytest.raises(RealtimeSSDError) as caught:
        download(f"{server.url}/{name}", DIGEST, path, hint="set `backbone` to its path")
    assert str(caught.value) == (
        f"'{server.url}/{name}' cannot be downloaded ({reason}); check the network, or download it "
        "by other means and set `backbone` to its path"
    )
    assert files(path.parent) == []


def test_full_disk(server: FolderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fail)
    with pytest.raises(RealtimeSSDError, match=r"\(No space left on device\)"):
        download(f"{server.url}/m.pth", DIGEST, tmp_path / "m.pth", hint="use it")


def test_redirect_within_http_is_followed(server: FolderServer, tmp_path: Path) -> None:
    download(f"{server.url}/redirect?/m.pth", DIGEST, tmp_path / "m.pth", hint="use it")
    assert (tmp_path / "m.pth").read_bytes() == DATA


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(RealtimeSSDError, match=r"\(no connection\)"):
        download("http://127.0.0.1:9/m.pth", DIGEST, tmp_path / "m.pth", hint="use it")


def test_silent_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/m.pth"
        with pytest.raises(RealtimeSSDError, match=r"\(no answer within 0 s\)"):
            download(url, DIGEST, tmp_path / "m.pth", hint="use it")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/m.pth", "m.pth"])
def test_other_schemes_are_rejected(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="use an http or https address"):
        download(url, DIGEST, tmp_path / "m.pth", hint="use it")


def test_folder_that_cannot_be_created(server: FolderServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be created"):
        download(f"{server.url}/m.pth", DIGEST, tmp_path / "file/new/m.pth", hint="use it")


@pytest.mark.parametrize("start", [b"HTTP/1.0 200 OK\r\nX-", b"HTTP/1.0 200 OK\r\n\r\n"])
def test_a_server_that_sends_next_to_nothing(
    start: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single bytes of the headers or of the content keep every time limit of a socket alive."""
    monkeypatch.setattr(downloads, "_STALL_TIMEOUT", 0.5)
    finished = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        connection.sendall(start)
        with suppress(OSError):
            while not finished.wait(0.02):
                connection.sendall(b"x")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/m.onnx"
        try:
            with pytest.raises(RealtimeSSDError, match=r"\(the server sends next to nothing\); "):
                download(url, DIGEST, tmp_path / "m", hint="use it")
        finally:
            finished.set()
    assert not (tmp_path / "m").exists()
