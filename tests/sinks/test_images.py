"""Annotated images: their names, formats and protection of existing files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd import Detections, Frame
from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.images import ImageSink


def result(index: int = 0, name: str = "", level: int = 0) -> FrameResult:
    image = np.full((8, 8, 3), level, np.uint8)
    return FrameResult(Frame(image, index, "x", name=name), Detections.empty())


def level_of(path: Path) -> int:
    image = cv2.imread(str(path))
    assert image is not None
    return int(image[0, 0, 0])


def test_images_have_the_names_of_their_frames(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    with ImageSink(folder) as sink:
        sink.write(result(0, "a.png", 10))
        sink.write(result(1, "sub/b.png", 20))
        sink.write(result(2, level=30))
    assert level_of(folder / "a.png") == 10
    assert level_of(folder / "sub" / "b.png") == 20
    assert level_of(folder / "000002.jpg") == 30


def test_names_replace_those_of_the_frames(tmp_path: Path) -> None:
    with ImageSink(tmp_path, ("first.png", "second.bmp")) as sink:
        sink.write(result(1, "a.png", 20))
    assert [path.name for path in tmp_path.iterdir()] == ["second.bmp"]


def test_existing_image_is_kept_unless_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("existing")
    with ImageSink(tmp_path) as sink, pytest.raises(UsageError) as caught:
        sink.write(result(name="a.png"))
    assert str(caught.value) == f"'{path}' exists; set `overwrite` to replace it"
    assert path.read_text() == "existing"
    with ImageSink(tmp_path, overwrite=True) as sink:
        sink.write(result(name="a.png", level=50))
    assert level_of(path) == 50


def test_unknown_format_is_an_error(tmp_path: Path) -> None:
    names, message = ["a.xyz"], r"no format '\.xyz'"
    with ImageSink(tmp_path, names) as sink, pytest.raises(UsageError, match=message):
        sink.write(result(name="a.xyz"))
    assert not list(tmp_path.iterdir())


def test_failed_write_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("realtime_ssd.core.files.replace_file", fail)
    with ImageSink(tmp_path) as sink, pytest.raises(RealtimeSSDError, match="No space left") as e:
        sink.write(result(name="a.png"))
    assert not isinstance(e.value, UsageError)
