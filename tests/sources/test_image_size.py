"""The size in the header of an image equals the one of the decoded image."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd import open_source
from realtime_ssd.core.errors import RealtimeSSDError, SourceError, UsageError
from realtime_ssd.sources.image_size import declared_size
from tests.videos import make_video

Pillow = pytest.importorskip("PIL.Image")
PHOTO = np.random.default_rng(1).integers(0, 256, (41, 67, 3), np.uint8)
FORMATS = (".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".pgm", ".pbm", ".pam", ".jp2", ".ras",
           ".hdr", ".pfm", ".gif", ".avif")  # fmt: skip


@pytest.mark.parametrize("suffix", FORMATS)
def test_opencv_writes_the_size_that_is_read(suffix: str) -> None:
    image = PHOTO.astype(np.float32) if suffix in (".hdr", ".pfm") else PHOTO
    if suffix in (".pbm", ".pgm"):
        image = image[..., 0]
    try:
        _, data = cv2.imencode(suffix, image)
    except cv2.error:
        pytest.skip(f"this OpenCV does not write {suffix}")
    assert declared_size(data.tobytes()) == (67, 41)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": b"Exif\0\0" + os.urandom(20_000)}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"lossless": False, "quality": 50}),
        ("WEBP", {"exif": b"Exif\0\0" + bytes(100)}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"big_tiff": True}),
        ("BMP", {}),
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
        ("GIF", {}),
        ("AVIF", {}),
        ("PPM", {}),
    ],
)
def test_pillow_writes_the_size_that_is_read(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    path = tmp_path / "image"
    try:
        Pillow.fromarray(PHOTO).save(path, name, **options)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {name}")
    assert declared_size(path.read_bytes()) == (67, 41)


def test_photos(shared_data: Path) -> None:
    paths = [*shared_data.glob("photos/**/*.jp*g"), *shared_data.glob("photos/**/*.png")]
    assert len(paths) > 3
    for path in paths:
        with Pillow.open(path) as image:
            assert declared_size(path.read_bytes()) == image.size


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\0", b"BM", b"II*\0", b"P5 "]
)
def test_damaged_headers_have_no_size(data: bytes) -> None:
    assert declared_size(data) is None


def test_unknown_files_have_no_size() -> None:
    assert declared_size(b"<svg width='5'/>" * 10) is None


def png_bomb(width: int, height: int) -> bytes:
    """Return a small PNG file that declares a large image."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_the_size_of_a_bomb_is_read() -> None:
    assert declared_size(png_bomb(60_000, 50_000)) == (60_000, 50_000)


@pytest.mark.parametrize("count", [1, 3])
def test_bombs_are_skipped_without_memory(tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"{number}.png").write_bytes(png_bomb(60_000, 50_000))
    if count > 1:
        cv2.imwrite(str(tmp_path / "photo.png"), PHOTO)
    with open_source(tmp_path) as source:
        if count > 1:
            assert source.read() is not None
        with pytest.raises(SourceError) as caught:
            source.read()
    assert "has 60000x50000 pixels, more than the 200000000 that are accepted; raise" in str(
        caught.value
    )


def test_the_limit_is_an_option(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), PHOTO)
    make_video(tmp_path / "clip.mp4", [0, 1001])
    for name, size in (("photo.png", "67x41"), ("clip.mp4", "160x120"), ("demo:64x64", "64x64")):
        text = name if ":" in name else tmp_path / name
        with pytest.raises(RealtimeSSDError, match=f"has {size} pixels, more than the 1000 that"):
            open_source(text, max_pixels=1000).read()
    with pytest.raises(UsageError, match="`max_pixels` must be between 1 and 1073741824, not 0"):
        open_source("demo", max_pixels=0)
    with pytest.raises(UsageError, match="has 16384x16384 pixels, more than the 200000000"):
        open_source("demo:16384x16384")


def test_a_video_that_declares_another_size_is_not_decoded(tmp_path: Path) -> None:
    """The container of an H.264 stream declares a small size, the stream itself a larger one."""
    make_video(tmp_path / "clip.mp4", [0, 1001], size=(640, 480))
    data = (tmp_path / "clip.mp4").read_bytes()
    start = data.index(b"avc1") + 28  # width and height in the description of the track
    start = data.index(struct.pack(">HH", 640, 480), start - 10)
    changed = data[:start] + struct.pack(">HH", 16, 16) + data[start + 4 :]
    (tmp_path / "clip.mp4").write_bytes(changed)
    with pytest.raises(SourceError):
        open_source(tmp_path / "clip.mp4", max_pixels=10_000).read()
