from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd import open_source
from realtime_ssd.core.errors import UsageError
from tests.videos import readable


def photo(path: Path, level: int, size: tuple[int, int] = (30, 40)) -> None:
    cv2.imwrite(str(path), np.full((*size, 3), level, np.uint8))


def test_folder_in_natural_order_with_a_damaged_photo(tmp_path: Path) -> None:
    for name, level in (("10.png", 30), ("2.png", 20), ("1.png", 10)):
        photo(tmp_path / name, level)
    (tmp_path / "3.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    source = open_source(tmp_path)
    assert source.info.frame_count == 4
    frames, said = readable(tmp_path)
    assert "1 of 4 images cannot be read" in said
    assert "3.jpg" in said
    names = [(frame.name, int(frame.image[0, 0, 0]), frame.index) for frame in frames]
    assert names == [("1.png", 10, 0), ("2.png", 20, 1), ("10.png", 30, 3)]


def test_glob_single_and_sizes(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 5, (1, 1))
    photo(tmp_path / "b.png", 6)
    with open_source(str(tmp_path / "*.png")) as source:
        assert source.info.frame_count == 2
    with open_source(tmp_path / "a.png") as source:
        frame = source.read()
        assert frame is not None
        assert frame.image.shape == (1, 1, 3)
        assert source.read() is None


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no images"):
        open_source(tmp_path)
    with pytest.raises(UsageError, match="no image fits"):
        open_source(str(tmp_path / "*.png"))
