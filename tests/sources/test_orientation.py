"""Videos with a display matrix, with an unknown codec, and with text in an unknown encoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from realtime_ssd import open_source
from realtime_ssd.core.errors import SourceError
from tests.flash_and_beep import COLORS, annotate, clip_image, frames_of, make_clip
from tests.sources.test_stream import HttpServer
from tests.videos import readable, set_display_matrix

MATRICES = [
    (1, 0, 0, 1),
    (-1, 0, 0, -1),
    (-1, 0, 0, 1),
    (1, 0, 0, -1),
    (0, 1, -1, 0),
    (0, -1, 1, 0),
    (0, 1, 1, 0),
    (0, -1, -1, 0),
]


@pytest.mark.parametrize("matrix", MATRICES)
def test_each_corner_is_where_the_display_matrix_puts_it(
    tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    a, b, c, d = matrix
    path = set_display_matrix(make_clip(tmp_path / "clip.mp4", sounds=[]), *matrix)
    with open_source(path) as source:
        frame = source.read()
        size = source.info.width, source.info.height
    assert frame is not None
    assert size == (frame.width, frame.height) == ((96, 64) if a else (64, 96))
    original = clip_image(0, (96, 64))
    for x, y in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
        color = original[(y + 1) * 31, (x + 1) * 47]
        moved_x, moved_y = a * x + c * y, b * x + d * y
        row, column = (moved_y + 1) * (size[1] // 2 - 1), (moved_x + 1) * (size[0] // 2 - 1)
        assert np.abs(frame.image[row, column].astype(int) - color).max() < 20


def test_mirrored_video_is_written_as_players_show_it(tmp_path: Path) -> None:
    path = set_display_matrix(make_clip(tmp_path / "a.mp4"), -1, 0, 0, 1)
    annotate(path, tmp_path / "b.mp4")
    image = frames_of(tmp_path / "b.mp4")[1][0]
    assert np.abs(image[8, 8].astype(int) - COLORS[1]).max() < 14


def make_unknown(path: Path) -> Path:
    """Write a video whose codec no FFmpeg knows."""
    data = make_clip(path, codec="mpeg4", sounds=[], size=(64, 48)).read_bytes()
    assert b"FMP4" in data
    path.write_bytes(data.replace(b"FMP4", b"ZZZZ"))
    return path


def test_unknown_codec_is_named_by_its_tag(tmp_path: Path) -> None:
    path = make_unknown(tmp_path / "clip.avi")
    with pytest.raises(SourceError) as caught:
        open_source(path)
    assert str(caught.value) == (
        f"'{path}' cannot be decoded: this FFmpeg has no decoder for its codec 'ZZZZ'; convert "
        "the video to H.264"
    )


def test_unknown_codec_of_a_stream_is_named_by_its_tag(tmp_path: Path) -> None:
    data = make_unknown(tmp_path / "clip.avi").read_bytes()
    message = "no decoder for its codec 'ZZZZ'"
    with HttpServer(data, clients=2) as server, pytest.raises(SourceError, match=message):
        open_source(server.url)


def test_text_in_another_encoding_is_harmless(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv")
    data = path.read_bytes()
    assert b"ger" in data
    path.write_bytes(data.replace(b"ger", b"\xff\xfe\xe4"))
    frames, problem = readable(path)
    assert (len(frames), problem) == (40, "")
    annotate(path, tmp_path / "b.mkv")
    assert len(frames_of(tmp_path / "b.mkv")[0]) == 40
