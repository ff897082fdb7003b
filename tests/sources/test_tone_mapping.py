"""HDR video looks like ordinary video to the detector and in written files."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from realtime_ssd import open_source
from realtime_ssd.core.frames import Frame, Image
from tests.flash_and_beep import annotate

COLORS = (
    *((255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)),
    *((128, 128, 128), (200, 150, 110), (40, 80, 40), (20, 20, 20)),
)
"""RGB of the columns, as an ordinary display shows them."""

PQ, HLG, BT2020, BT2020_NCL = 16, 18, 9, 9
WIDTH, HEIGHT = 256, 64

Array = NDArray[np.float64]


def to_light(code: Array) -> Array:
    """Return linear light of sRGB values from 0 to 1."""
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def to_pq(luminance: Array) -> Array:
    power = (luminance / 10000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def to_hlg(luminance: Array) -> Array:
    light = luminance / 1000
    luma = np.maximum(light @ [0.2627, 0.678, 0.0593], 1e-9)[..., None]
    scene = np.clip(light * luma ** (-1 / 6), 0, 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    high = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


def make_hdr(path: Path, transfer: int, codec: str = "ffv1") -> Path:
    """Write a video with columns of `COLORS`, white at 203 cd/m², in 10 bits of BT.2020."""
    column = WIDTH // len(COLORS)
    image = np.repeat(np.array(COLORS)[None], HEIGHT, 0).repeat(column, 1)
    to_bt2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.088, 0.8956]]
    light = to_light(image / 255) @ np.array(to_bt2020).T
    red, green, blue = np.moveaxis((to_pq if transfer == PQ else to_hlg)(light * 203), -1, 0)
    luma = 0.2627 * red + 0.678 * green + 0.0593 * blue
    chroma = ((blue - luma) / 1.8814, (red - luma) / 1.4746)
    planes = [876 * luma + 64, *(896 * one[::2, ::2] + 512 for one in chroma)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 5)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_range = BT2020_NCL, 1
        context.color_primaries, context.color_trc = BT2020, transfer
        for number in range(3):
            frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p10le")
            for plane, values in zip(frame.planes, planes, strict=True):
                data = np.frombuffer(plane, np.uint16).reshape(plane.height, -1)  # type: ignore[call-overload]
                data[:, : plane.width] = np.round(values)
            frame.colorspace, frame.color_range = BT2020_NCL, 1
            frame.pts, frame.time_base = number, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def columns(image: Image) -> list[NDArray[np.int64]]:
    """Return the RGB color in the middle of each column."""
    side = WIDTH // len(COLORS)
    return [image[HEIGHT // 2, n * side + side // 2, ::-1].astype(int) for n in range(len(COLORS))]


def first_image(path: Path) -> Image:
    with open_source(path) as source:
        frame = source.read()
    assert isinstance(frame, Frame)
    return frame.image


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_colors_are_those_of_an_ordinary_display(tmp_path: Path, transfer: int) -> None:
    seen = columns(first_image(make_hdr(tmp_path / "hdr.mkv", transfer)))
    for color, expected in zip(seen[4:], COLORS[4:], strict=True):
        assert np.abs(color - expected).max() <= 14  # only bright colors are compressed
    assert seen[0].min() > 200
    for channel in range(3):
        others = np.delete(seen[1 + channel], channel)
        assert seen[1 + channel][channel] > 200
        assert others.max() < 45


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_colors_agree_with_another_implementation(tmp_path: Path, transfer: int) -> None:
    """FFmpeg's own program with the zimg library, whose curve for dark colors differs."""
    program = shutil.which("ffmpeg")
    filters = "" if program is None else run(program, "-filters")
    if "zscale" not in filters or "tonemap" not in filters:
        pytest.skip("needs an ffmpeg with zscale")
    assert program is not None
    path = make_hdr(tmp_path / "hdr.mkv", transfer)
    chain = (
        "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,tonemap=mobius:desat=0,"
        "zscale=t=iec61966-2-1:m=gbr:r=full,format=gbrp"
    )
    other = tmp_path / "other.mkv"
    run(program, "-v", "error", "-i", path, "-vf", chain, "-c:v", "ffv1", other)
    for mine, theirs in zip(columns(first_image(path)), columns(first_image(other)), strict=True):
        assert np.abs(mine - theirs).max() < 40
        assert np.abs(mine - theirs).mean() < 14


def run(*words: object) -> str:
    finished = subprocess.run(
        list(map(str, words)), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    return finished.stdout


def test_written_video_has_the_mapped_colors_and_their_tags(tmp_path: Path) -> None:
    path = make_hdr(tmp_path / "hdr.mkv", PQ)
    annotate(path, tmp_path / "o.mp4")
    with av.open(str(tmp_path / "o.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_trc, frame.color_primaries) == (6, 6, 6)
        image = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    for written, mapped in zip(columns(image), columns(first_image(path)), strict=True):
        assert np.abs(written - mapped).max() < 12


def test_size_may_change_and_ten_bits_without_hdr_are_left_alone(tmp_path: Path) -> None:
    path = make_hdr(tmp_path / "sdr.mkv", 14)  # BT.2020 with the transfer function of BT.709
    image = columns(first_image(path))
    assert all(np.ptp(image[number]) <= 4 for number in (0, 4, 7))
