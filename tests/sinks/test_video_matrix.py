"""Every container format with every kind of source: frames, times, sound and colors."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from realtime_ssd import open_source
from tests.flash_and_beep import (
    COLORS,
    FLASH_FRAME,
    FRAMES,
    annotate,
    beep_time,
    flash_time,
    frames_of,
    make_clip,
)
from tests.videos import set_display_matrix

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")
SOUND = {".mp4": "aac", ".mov": "aac", ".mkv": "aac", ".webm": "libopus", ".avi": "pcm_s16le"}
EVEN = tuple(range(0, 40 * FRAMES, 40))
VARIABLE = tuple(40 * k + (0, 17, 0, 31)[k % 4] for k in range(FRAMES))


def make_source(folder: Path, suffix: str, kind: str) -> Path:
    """Write the source: of the same format where that can hold this kind of video."""
    if kind in ("rotated", "mirrored"):
        matrix = (0, 1, -1, 0) if kind == "rotated" else (-1, 0, 0, 1)
        sound = "aac" if suffix != ".webm" else "libopus"
        path = make_clip(folder / "source.mp4", sounds=[sound])
        return set_display_matrix(path, *matrix)
    if suffix == ".webm" and kind == "b-frames":
        return make_clip(folder / "source.mkv", sounds=["libopus"], b_frames=2)
    if suffix == ".avi" and kind == "variable rate":
        return make_clip(folder / "source.mov", sounds=["aac"], times=VARIABLE)
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    return make_clip(
        folder / f"source{suffix}",
        codec=codec,
        sounds=[SOUND[suffix]] * {"no sound": 0, "two tracks": 2}.get(kind, 1),
        times=VARIABLE if kind == "variable rate" else EVEN,
        late=0.5 if kind == "late sound" else 0.0,
        b_frames=2 if kind == "b-frames" else 0,
        size=(97, 65) if kind == "odd size" else (96, 64),
    )


def quarters(image: NDArray[np.uint8]) -> list[int]:
    """Return which color each quarter has, as its number in `COLORS`."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    means = [
        image[y + 6 : y + height - 6, x + 6 : x + width - 6].reshape(-1, 3).mean(axis=0)
        for y in (0, height)
        for x in (0, width)
    ]
    distances = [[float(np.abs(mean - color).max()) for color in COLORS] for mean in means]
    assert max(min(row) for row in distances) < 14, means
    return [int(np.argmin(row)) for row in distances]


def chroma_psnr(expected: NDArray[np.uint8], image: NDArray[np.uint8]) -> float:
    """Return the PSNR of the worse chroma plane in dB, for images at half their size as coded."""
    size = expected.shape[1] // 2, expected.shape[0] // 2
    planes = []
    for one in (expected, image[: expected.shape[0], : expected.shape[1]]):
        chroma = cv2.cvtColor(np.ascontiguousarray(one), cv2.COLOR_BGR2YCrCb)[..., 1:]
        planes.append(cv2.resize(chroma, size, interpolation=cv2.INTER_AREA).astype(float))
    errors = np.square(planes[0] - planes[1]).mean(axis=(0, 1))
    return float(10 * np.log10(255**2 / max(errors.max(), 1e-9)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "kind",
    [
        "no sound",
        "two tracks",
        "late sound",
        "variable rate",
        "b-frames",
        "rotated",
        "mirrored",
        "odd size",
    ],
)
def test_written_video_has_frames_times_sound_and_colors_of_the_source(
    tmp_path: Path, suffix: str, kind: str
) -> None:
    source, target = make_source(tmp_path, suffix, kind), tmp_path / f"target{suffix}"
    annotate(source, target)
    times, images = frames_of(target)
    expected = VARIABLE if kind == "variable rate" else EVEN
    assert len(times) == FRAMES
    start = times[0] - expected[0] / 1000
    # AVI has the average rate; Matroska counts milliseconds.
    tolerance = 0.08 if (suffix, kind) == (".avi", "variable rate") else 0.001001
    errors = [abs(t - start - e / 1000) for t, e in zip(times, expected, strict=True)]
    assert max(errors) <= tolerance
    orders = {"rotated": [2, 0, 3, 1], "mirrored": [1, 0, 3, 2]}
    assert quarters(images[FLASH_FRAME - 2]) == orders.get(kind, [0, 1, 2, 3])
    with open_source(source) as opened:
        for frame, image in zip(opened, images, strict=True):
            assert chroma_psnr(frame.image, image) > 33
    with av.open(str(target)) as container:
        tracks = len(container.streams.audio)
    assert tracks == {"no sound": 0, "two tracks": 2}.get(kind, 1)
    for track in range(tracks):
        wanted = beep_time(source, track) - flash_time(source)
        offset = beep_time(target, track) - flash_time(target)
        # AVI counts packets of sound and frames rather than time.
        limits = {".avi": 0.08 if kind == "variable rate" else 0.015}
        assert offset == pytest.approx(wanted, abs=limits.get(suffix, 0.003))
