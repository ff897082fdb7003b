"""HEIC and AVIF images, also those that are stored in tiles."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from realtime_ssd import open_source
from realtime_ssd.core.errors import RealtimeSSDError, SourceError
from realtime_ssd.sinks.images import ImageSink
from realtime_ssd.sources.file import VideoFile
from tests.core.http_server import serve_folder
from tests.videos import readable

GRID = Path(__file__).parent / "data" / "grid.heic"
"""768 × 512 pixels in 3 × 2 tiles of 256 × 256, as the cameras of phones write them."""


def make_avif(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Write an image of four colors and return it."""
    image = np.zeros((128, 192, 3), np.uint8)
    image[:64, :96], image[:64, 96:], image[64:, :96] = (200, 60, 60), (60, 200, 60), (60, 60, 200)
    with av.open(str(path), "w", format="avif") as container:
        stream = container.add_stream("libaom-av1", 1, options={"still-picture": "1", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        container.mux(stream.encode())
    return image


def test_image_in_tiles_is_read_whole(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    with open_source(GRID) as source:
        (frame,) = list(source)
    assert (frame.width, frame.height, source.info.names) == (768, 512, ("grid.heic",))
    expected = np.asarray(heif.open_heif(GRID))[..., ::-1]
    assert np.array_equal(frame.image, expected)
    # FFmpeg's decoder, which delivers the tiles one by one, agrees with each part.
    with av.open(str(GRID)) as container:
        for number, stream in enumerate(container.streams.video):
            container.seek(0)
            tile = next(container.decode(stream)).to_ndarray(format="bgr24").astype(int)
            y, x = 256 * (number // 3), 256 * (number % 3)
            assert np.abs(frame.image[y : y + 256, x : x + 256] - tile).mean() < 4


def test_without_the_library_a_tile_is_never_shown_as_the_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime_ssd.core.extras._is_installed", lambda name: False)
    (tmp_path / "a.HEIC").write_bytes(GRID.read_bytes())
    for text in (GRID, tmp_path, tmp_path / "a.HEIC"):
        with pytest.raises(RealtimeSSDError, match=r"tiles, requires .*realtime-ssd\[heif\]"):
            open_source(text)


def test_tile_is_no_video_and_no_image_of_a_web_server(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(GRID.read_bytes())
    message = "is an image stored in tiles; use a local file whose name ends in .heic"
    with pytest.raises(SourceError, match=message):
        VideoFile(str(tmp_path / "photo"))
    with serve_folder(tmp_path) as server:
        source = open_source(f"{server.url}/photo")
        with source, pytest.raises(SourceError, match="does not support this kind of file"):
            source.open()  # reading tiles needs a server with range requests


@pytest.mark.skipif("libaom-av1" not in av.codecs_available, reason="this FFmpeg writes no AVIF")
def test_avif_is_read_and_annotated_as_jpeg(tmp_path: Path) -> None:
    from realtime_ssd.core.detections import Detections
    from realtime_ssd.core.results import FrameResult

    image = make_avif(tmp_path / "a.avif")
    (frame,), problem = readable(tmp_path)
    assert not problem
    assert np.abs(frame.image.astype(int) - image).mean() < 3
    with ImageSink(tmp_path / "out") as sink:
        sink.write(FrameResult(frame, Detections.empty()))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.avif.jpg"]


@pytest.mark.parametrize("name", ["a.heic", "a.avif"])
def test_damaged_image_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf")
    assert "cannot be read as an image; it may be damaged" in readable(tmp_path / name)[1]
