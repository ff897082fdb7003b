from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd import open_source
from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.sinks.images import written_name
from tests.videos import readable


def write_image(path: Path, level: int, size: tuple[int, int] = (30, 40)) -> None:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), level, np.uint8))


def test_folder_is_read_in_natural_order_without_its_damaged_image(tmp_path: Path) -> None:
    for name, level in (("10.png", 30), ("2.png", 20), ("1.png", 10)):
        write_image(tmp_path / name, level)
    (tmp_path / "3.jpg").write_bytes(b"not an image")
    (tmp_path / "notes.txt").write_text("not an image")
    with open_source(tmp_path) as source:
        assert source.info.frame_count == 4
        assert source.info.still
        assert source.info.files == tuple(tmp_path / name for name in source.info.names)
    frames, problem = readable(tmp_path)
    assert "1 of 4 images cannot be read and were skipped: " in problem
    assert problem.endswith("3.jpg")
    read = [(frame.name, int(frame.image[0, 0, 0]), frame.index, frame.time) for frame in frames]
    assert read == [("1.png", 10, 0, 0.0), ("2.png", 20, 1, 1.0), ("10.png", 30, 3, 3.0)]


@pytest.mark.parametrize(("damaged", "ending"), [(3, "2.png"), (4, "2.png and 1 more")])
def test_three_unreadable_images_are_named(tmp_path: Path, damaged: int, ending: str) -> None:
    for number in range(damaged):
        (tmp_path / f"{number}.png").write_bytes(b"")
    write_image(tmp_path / "whole.png", 1)
    problem = readable(tmp_path)[1]
    assert f"{damaged} of {damaged + 1} images" in problem
    assert problem.endswith(ending)


def test_unreadable_single_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not an image")
    with open_source(tmp_path / "a.png") as source, pytest.raises(SourceError) as caught:
        source.read()
    assert (
        str(caught.value) == f"'{tmp_path / 'a.png'}' cannot be read as an image; it may be damaged"
    )


def test_glob_and_single_image(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 5, (1, 1))
    write_image(tmp_path / "b.png", 6)
    (tmp_path / "b.txt").write_text("not an image")
    with open_source(str(tmp_path / "?.*")) as source:
        assert source.info.names == ("a.png", "b.png")
    with open_source(tmp_path / "a.png") as source:
        frame = source.read()
        assert frame is not None
        assert frame.image.shape == (1, 1, 3)
        assert source.read() is None


def test_equal_file_names_are_distinguished_by_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "x" / "a.png", 1)
    write_image(tmp_path / "y" / "a.png", 2)
    with open_source(str(tmp_path / "**" / "*.png")) as source:
        assert source.info.names == ("x/a.png", "y/a.png")


def test_file_with_glob_characters_in_its_name_is_read(tmp_path: Path) -> None:
    write_image(tmp_path / "[1].png", 7)
    with open_source(tmp_path / "[1].png") as source:
        assert source.info.names == ("[1].png",)


def test_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_image(tmp_path / "photos" / "a.png", 1)
    with open_source("~/photos") as source:
        assert source.info.files == (tmp_path / "photos" / "a.png",)


def test_missing_images_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contains no photos or videos"):
        open_source(tmp_path)
    with pytest.raises(UsageError, match="no photo or video matches"):
        open_source(str(tmp_path / "*.png"))
    with pytest.raises(UsageError, match="does not exist; use an image"):
        open_source(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "written"), [("snapshot", "snapshot.jpg"), ("a.jfif", "a.jfif.jpg")]
)
def test_image_without_a_known_suffix_is_a_photo(tmp_path: Path, name: str, written: str) -> None:
    data = cv2.imencode(".jpg", np.full((20, 30, 3), 90, np.uint8))[1].tobytes()
    (tmp_path / name).write_bytes(data)
    with open_source(tmp_path / name) as source:
        assert (source.info.still, source.info.names) == (True, (name,))
        assert len(list(source)) == 1
    assert written_name(name) == written
    (tmp_path / name).write_bytes(data * 3)  # MJPEG
    with open_source(tmp_path / name) as source:
        assert not source.info.still
        assert len(list(source)) == 3
