"""Output files, user folders and checksums."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.files import (
    cache_folder,
    check_output,
    data_folder,
    make_folder,
    open_output,
    replace_file,
    sha256_of,
)


def test_file_is_replaced_completely_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_text() == "new"
    (tmp_path / "folder/inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        replace_file(tmp_path / "folder", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "folder"]


def test_missing_folder_of_a_replaced_file_is_created(tmp_path: Path) -> None:
    replace_file(tmp_path / "b/c/d", b"new", durable=True)
    assert (tmp_path / "b/c/d").read_bytes() == b"new"


def test_only_durable_replacement_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_size))
    replace_file(tmp_path / "a", b"new")
    assert synced == []
    replace_file(tmp_path / "a", b"new", durable=True)
    assert synced == [len(b"new")]


def test_readers_see_complete_files_of_concurrent_writers(tmp_path: Path) -> None:
    path, texts = tmp_path / "a", [bytes([65 + k]) * 100_000 for k in range(4)]
    replace_file(path, texts[0])

    def write(text: bytes) -> None:
        for _ in range(10):
            replace_file(path, text)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_bytes() in texts
    assert [item.name for item in tmp_path.iterdir()] == ["a"]


def test_checksum(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def open_and_close(path: Path, *, overwrite: bool = False) -> None:
    open_output(path, overwrite=overwrite).close()


@pytest.mark.parametrize("check", [check_output, open_and_close])
def test_existing_outputs(tmp_path: Path, check: Callable[..., None]) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(UsageError, match="exists; set `overwrite` to replace it"):
        check(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "old"
    check(tmp_path / "a", overwrite=True)
    check(Path("/dev/null"))
    with pytest.raises(UsageError, match="it is a folder"):
        check(tmp_path, overwrite=True)
    with pytest.raises(UsageError, match=r"a' is not a folder"):
        check(tmp_path / "a/b")


def test_check_creates_nothing_and_open_creates_folders(tmp_path: Path) -> None:
    check_output(tmp_path / "new/folder/a")
    assert list(tmp_path.iterdir()) == []
    with open_output(tmp_path / "new/folder/a") as file:
        file.write(b"data")
        assert (tmp_path / "new/folder/a").read_bytes() == b"data"  # unbuffered


def test_output_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="cannot be written: permission denied"):
        check_output(tmp_path / "a")


def test_make_folder(tmp_path: Path) -> None:
    make_folder(tmp_path / "a/b")
    make_folder(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()
    (tmp_path / "c").touch()
    with pytest.raises(UsageError, match="cannot be created: "):
        make_folder(tmp_path / "c")


@pytest.mark.parametrize(
    ("folder", "default"),
    [
        (cache_folder, platformdirs.user_cache_path("realtime-ssd")),
        (data_folder, platformdirs.user_data_path("realtime-ssd")),
    ],
)
def test_user_folders_and_their_environment_variables(
    folder: Callable[[str], Path], default: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REALTIME_SSD_ENGINES", raising=False)
    assert folder("engines") == default / "engines"
    monkeypatch.setenv("REALTIME_SSD_ENGINES", "")
    assert folder("engines") == default / "engines"
    monkeypatch.setenv("REALTIME_SSD_ENGINES", "/elsewhere")
    assert folder("engines") == Path("/elsewhere")
    assert folder("other") == default / "other"
