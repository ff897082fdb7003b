from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from realtime_ssd.core.files import replace_file, sha256_of


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_text() == "new"
    (tmp_path / "folder/inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        replace_file(tmp_path / "folder", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "folder"]


def test_a_reader_finds_one_of_the_files_that_many_write(tmp_path: Path) -> None:
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
