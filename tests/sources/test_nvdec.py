"""Frames in GPU memory: their description, late download, and the fallback without a GPU.

NV12 frames in host memory stand in for those of the decoder: PyAV describes both the same way.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from realtime_ssd_engines.cuda.kernel_params import Color

from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.sources import file, nvdec, open_source
from realtime_ssd.sources.ffmpeg import FrameConverter
from realtime_ssd.sources.file import VideoFile
from realtime_ssd.sources.nvdec import open_on_gpu, surface_of, unavailable_reason
from tests.videos import make_video


def make_nv12(
    width: int = 64, height: int = 36, seed: int = 0
) -> tuple[av.VideoFrame, NDArray[np.uint8]]:
    values = np.random.default_rng(seed).integers(0, 256, (height * 3 // 2, width), np.uint8)
    return av.VideoFrame.from_ndarray(values, format="nv12"), values


def read_plane(address: int, pitch: int, width: int, rows: int) -> NDArray[np.uint8]:
    raw = (ctypes.c_uint8 * (pitch * rows)).from_address(address)
    return np.ctypeslib.as_array(raw).reshape(rows, pitch)[:, :width]


def test_surface_points_to_the_planes() -> None:
    frame, values = make_nv12(70, 36)
    surface = surface_of(frame)
    assert surface is not None
    assert (surface.width, surface.height) == (70, 36)
    assert surface.pitches[0] >= 70
    luma = read_plane(surface.planes[0], surface.pitches[0], 70, 36)
    chroma = read_plane(surface.planes[1], surface.pitches[1], 70, 18)
    np.testing.assert_array_equal(np.concatenate([luma, chroma]), values)


def test_surface_keeps_the_frame_alive() -> None:
    frame, values = make_nv12()
    surface = surface_of(frame)
    assert surface is not None
    del frame
    for seed in range(1, 50):
        make_nv12(seed=seed)
    luma = read_plane(surface.planes[0], surface.pitches[0], 64, 36)
    np.testing.assert_array_equal(luma, values[:36])


@pytest.mark.parametrize(
    ("space", "color_range", "standard", "full"),
    [
        (1, 1, "bt709", False),
        (1, 2, "bt709", True),
        (2, 0, "bt601", False),
        (5, 2, "bt601", True),
        (6, 1, "bt601", False),
    ],
)
def test_surface_has_the_color_standard_of_the_frame(
    space: int, color_range: int, standard: str, full: bool
) -> None:
    frame, _ = make_nv12()
    frame.colorspace, frame.color_range = space, color_range
    surface = surface_of(frame)
    assert surface is not None
    assert (surface.standard, surface.full_range) == (standard, full)


def test_formats_that_the_kernels_cannot_read_have_no_surface() -> None:
    wide, _ = make_nv12()
    wide.colorspace = 9  # BT.2020
    assert surface_of(wide) is None
    for width, height in ((65, 36), (64, 35)):
        assert surface_of(av.VideoFrame(width, height, "nv12")) is None
    for layout in ("yuv420p", "p010le", "yuv444p"):
        assert surface_of(make_nv12()[0].reformat(format=layout)) is None


@pytest.mark.parametrize("clip", ["carnd_vehicle_test_video.mp4", "solidWhiteRight.mp4"])
def test_surface_and_converted_image_have_the_same_colors(shared_data: Path, clip: str) -> None:
    """One clip is in BT.709, the other in BT.601; the wrong standard has a larger error."""
    with av.open(str(shared_data / "clips" / clip)) as container:
        decoded = next(container.decode(video=0))
    converted = FrameConverter().to_bgr(decoded).astype(np.float32)
    keep = {"src_color_range": decoded.color_range, "dst_color_range": decoded.color_range}
    frame = decoded.reformat(format="nv12", **keep)
    surface = surface_of(frame)
    assert surface is not None
    values = frame.to_ndarray()
    luma, chroma = values[: frame.height], values[frame.height :].reshape(-1, frame.width // 2, 2)
    error = {}
    standards: tuple[Literal["bt601", "bt709"], ...] = ("bt601", "bt709")
    for standard in standards:
        factors = Color.of(standard, surface.full_range)
        y = (luma - np.float32(factors.luma_offset)) * factors.luma_scale
        u, v = np.repeat(np.repeat(chroma, 2, 0), 2, 1).astype(np.float32).transpose(2, 0, 1) - 128
        green = y + factors.green_u * u + factors.green_v * v
        image = np.stack([y + factors.blue_u * u, green, y + factors.red_v * v], -1)
        error[standard] = float(np.abs(np.clip(image, 0, 255) - converted).mean())
    assert min(error, key=lambda name: error[name]) == surface.standard
    assert error[surface.standard] < 2


@pytest.fixture
def supported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which nothing is missing."""
    monkeypatch.setattr(nvdec, "cuda_version", lambda: (12, 8))
    monkeypatch.setattr(nvdec, "find_gpus", lambda: ("a GPU",))
    monkeypatch.setattr(nvdec, "hwdevices_available", lambda: ["cuda"])
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    unavailable_reason.cache_clear()
    yield
    unavailable_reason.cache_clear()


@pytest.mark.usefixtures("supported")
def test_nothing_is_missing_on_a_complete_machine() -> None:
    assert not unavailable_reason()


@pytest.mark.usefixtures("supported")
@pytest.mark.parametrize(
    ("function", "value", "reason"),
    [
        ("cuda_version", None, "there is no NVIDIA driver"),
        ("find_gpus", (), "the driver finds no GPU"),
        ("hwdevices_available", ["vaapi"], "this FFmpeg was built without CUDA"),
    ],
)
def test_missing_part_is_named(
    monkeypatch: pytest.MonkeyPatch, function: str, value: object, reason: str
) -> None:
    monkeypatch.setattr(nvdec, function, lambda: value)
    assert unavailable_reason() == reason


@pytest.mark.usefixtures("supported")
def test_missing_decoding_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        assert "nvcuvid" in name
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert "libnvcuvid is missing" in unavailable_reason()


def test_decoding_on_the_gpu_is_opt_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    VideoFile(str(make_video(tmp_path / "v.mp4", [0]))).close()
    assert not caplog.messages


@pytest.mark.skipif(bool(find_gpus()), reason="this machine has a GPU")
def test_without_a_gpu_the_cpu_decodes_and_logs_the_reason(
    shared_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = shared_data / "clips" / "nasa_13013.mp4"
    assert unavailable_reason()
    assert open_on_gpu(str(path), None) == (None, unavailable_reason())
    with open_source(path) as on_cpu, open_source(path, decoder="gpu") as on_gpu:
        assert caplog.messages == [f"'{path}' is decoded on the CPU: {unavailable_reason()}"]
        assert on_gpu.info == on_cpu.info
        for _ in range(3):
            expected, frame = on_cpu.read(), on_gpu.read()
            assert expected is not None
            assert frame is not None
            assert frame.surface is None
            np.testing.assert_array_equal(frame.image, expected.image)


@pytest.mark.parametrize(("hardware", "threads"), [(True, 1), (False, 4)])
def test_the_hardware_decoder_has_one_thread(
    monkeypatch: pytest.MonkeyPatch, hardware: bool, threads: int
) -> None:
    """FFmpeg adds a surface per thread to those of the codec, and NVDEC has at most 32."""
    monkeypatch.setattr(file, "cpu_count", lambda: 16)
    context = SimpleNamespace(width=1920, height=1080, thread_count=0, is_hwaccel=hardware)
    stream: Any = SimpleNamespace(codec_context=context, thread_type="")
    file._set_threads(stream)
    assert context.thread_count == threads


def test_no_surfaces_are_added_to_those_of_the_decoder(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg copies frames out of the decoder's surfaces."""
    monkeypatch.setattr(nvdec, "unavailable_reason", lambda: "")
    monkeypatch.setattr(nvdec, "HWAccel", lambda *_, **__: None)
    container, reason = open_on_gpu(str(shared_data / "clips" / "nasa_13013.mp4"), None)
    assert container is not None
    assert not reason
    with container:
        assert "extra_hw_frames" not in container.streams.video[0].codec_context.options


def test_an_unsupported_video_is_opened_again_for_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(make_video(tmp_path / "v.mp4", [0, 1, 2]))
    opened = []

    def open_without_gpu(
        path: str, timeout: float | None, _: object
    ) -> tuple[av.container.InputContainer, str]:
        opened.append(path)
        return av.open(path), ""

    monkeypatch.setattr(file, "open_on_gpu", open_without_gpu)
    monkeypatch.setattr(VideoFile, "_on_cpu_despite_gpu", lambda self, frame: self._gpu)
    with VideoFile(path, gpu=True) as video:
        assert [frame.index for frame in video] == [0, 1, 2]
    assert opened == [f"file:{path}"]
    assert caplog.messages == [
        f"'{path}' is decoded on the CPU: NVDEC does not support this kind of video"
    ]
