"""Frames in GPU memory: how planes are described, fetched late, and what happens without a GPU.

NV12 frames in host memory stand in for those of the decoder: PyAV describes both the same way.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import av
import numpy as np
import pytest
from realtime_ssd_engines.cuda.kernel_params import Colour

from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.sources import open_source
from realtime_ssd.sources.file import FrameConverter
from realtime_ssd.sources.nvdec import obstacle, open_on_gpu, surface_of


def nv12(width: int = 64, height: int = 36, seed: int = 0) -> tuple[av.VideoFrame, np.ndarray]:  # type: ignore[type-arg]
    values = np.random.default_rng(seed).integers(0, 256, (height * 3 // 2, width), np.uint8)
    return av.VideoFrame.from_ndarray(values, format="nv12"), values


def plane(address: int, pitch: int, width: int, rows: int) -> np.ndarray:  # type: ignore[type-arg]
    raw = (ctypes.c_uint8 * (pitch * rows)).from_address(address)
    return np.frombuffer(raw, np.uint8).reshape(rows, pitch)[:, :width]


def test_planes_are_where_the_surface_says() -> None:
    frame, values = nv12(70, 36)
    surface = surface_of(frame)
    assert surface is not None
    assert (surface.width, surface.height) == (70, 36)
    assert surface.pitches[0] >= 70
    luma = plane(surface.planes[0], surface.pitches[0], 70, 36)
    chroma = plane(surface.planes[1], surface.pitches[1], 70, 18)
    np.testing.assert_array_equal(np.concatenate([luma, chroma]), values)


def test_the_surface_keeps_the_frame_alive() -> None:
    frame, values = nv12()
    surface = surface_of(frame)
    assert surface is not None
    del frame
    for seed in range(1, 50):
        nv12(seed=seed)
    luma = plane(surface.planes[0], surface.pitches[0], 64, 36)
    np.testing.assert_array_equal(luma, values[:36])


@pytest.mark.parametrize(
    ("space", "colour_range", "standard", "full"),
    [
        (1, 1, "bt709", False),
        (1, 2, "bt709", True),
        (2, 0, "bt601", False),
        (5, 2, "bt601", True),
        (6, 1, "bt601", False),
    ],
)
def test_colours_are_those_of_the_stream(
    space: int, colour_range: int, standard: str, full: bool
) -> None:
    frame, _ = nv12()
    frame.colorspace, frame.color_range = space, colour_range
    surface = surface_of(frame)
    assert surface is not None
    assert (surface.standard, surface.full_range) == (standard, full)


def test_what_the_kernels_cannot_read_is_no_surface() -> None:
    wide, _ = nv12()
    wide.colorspace = 9  # BT.2020
    assert surface_of(wide) is None
    for layout in ("yuv420p", "p010le", "yuv444p"):
        assert surface_of(nv12()[0].reformat(format=layout)) is None


@pytest.mark.parametrize("clip", ["carnd_vehicle_test_video.mp4", "solidWhiteRight.mp4"])
def test_a_surface_and_the_painted_picture_have_the_same_colours(
    shared_data: Path, clip: str
) -> None:
    """One clip in BT.709, one in BT.601: the other standard is further off."""
    with av.open(str(shared_data / "clips" / clip)) as container:
        decoded = next(container.decode(video=0))
    painted = FrameConverter().paint(decoded).astype(np.float32)
    keep = {"src_color_range": decoded.color_range, "dst_color_range": decoded.color_range}
    frame = decoded.reformat(format="nv12", **keep)
    surface = surface_of(frame)
    assert surface is not None
    values = frame.to_ndarray()
    luma, chroma = values[: frame.height], values[frame.height :].reshape(-1, frame.width // 2, 2)
    error = {}
    for standard in ("bt601", "bt709"):
        factors = Colour.of(standard, surface.full_range)  # type: ignore[arg-type]
        y = (luma - np.float32(factors.luma_offset)) * factors.luma_scale
        u, v = np.repeat(np.repeat(chroma, 2, 0), 2, 1).astype(np.float32).transpose(2, 0, 1) - 128
        green = y + factors.green_u * u + factors.green_v * v
        picture = np.stack([y + factors.blue_u * u, green, y + factors.red_v * v], -1)
        error[standard] = float(np.abs(np.clip(picture, 0, 255) - painted).mean())
    assert min(error, key=lambda name: error[name]) == surface.standard
    assert error[surface.standard] < 2


@pytest.mark.skipif(bool(find_gpus()), reason="this machine has a GPU")
def test_without_a_gpu_the_cpu_decodes_the_same_frames_and_says_why(
    shared_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = shared_data / "clips" / "nasa_13013.mp4"
    assert obstacle()
    assert open_on_gpu(str(path), None) == (None, obstacle())
    with open_source(path) as plain, open_source(path, gpu=True) as wished:
        assert caplog.messages == [f"'{path}' is decoded on the CPU: {obstacle()}"]
        assert wished.info == plain.info
        for _ in range(3):
            one, two = plain.read(), wished.read()
            assert one is not None
            assert two is not None
            assert two.surface is None
            np.testing.assert_array_equal(one.image, two.image)


@pytest.mark.gpu
@pytest.mark.skipif(bool(obstacle()), reason="videos cannot be decoded on a GPU here")
def test_on_a_gpu_frames_stay_there_and_look_the_same(shared_data: Path) -> None:
    path = shared_data / "clips" / "solidWhiteRight.mp4"
    count = 0
    with open_source(path) as plain, open_source(path, gpu=True) as wished:
        while (one := plain.read()) is not None:
            two = wished.read()
            assert two is not None
            assert two.surface is not None
            assert (two.pts, two.width, two.height) == (one.pts, one.width, one.height)
            if count % 50 == 0:
                gap = np.abs(one.image.astype(int) - two.image.astype(int))
                assert gap.mean() < 1.5
            count += 1
        assert wished.read() is None
    assert count == 221
