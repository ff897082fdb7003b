"""Pre-processing kernel, executed on the host, against OpenCV."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from realtime_ssd_engines.cuda.kernel_params import SOURCE, Color, Precision, table_size

from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import InputSpec
from tests.engines.cuda.host_kernels import HostPreprocessor
from tests.engines.cuda.test_detect import make_spec

INPUTS = {
    "tensorflow": InputSpec(48, 40, "RGB", (128.0,) * 3, (1 / 128,) * 3),
    "caffe": InputSpec(48, 40, "BGR", (104.0, 117.0, 123.0)),
    "odd width": InputSpec(47, 33, "RGB", (1.0, 2.0, 3.0), (0.5, 0.25, 2.0)),
    "letterbox": InputSpec(64, 64, "RGB", resize="letterbox", fill=114),
}
FAST = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def random_image(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return noise mixed with a gradient, to exercise both rounding and edges."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height, width, 3), np.uint8)
    gradient = np.linspace(0, 255, width * height * 3).reshape(height, width, 3)
    mixed = np.where(rng.random((height, width, 1)) < 0.5, noise, gradient)
    return np.ascontiguousarray(mixed).astype(np.uint8)


def read_image(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path))
    assert image is not None
    pixels: NDArray[np.uint8] = image.astype(np.uint8, copy=False)
    return pixels


def kernel_for(name: str, output: Precision = "fp32") -> HostPreprocessor:
    return HostPreprocessor(make_spec(input=INPUTS[name]), output)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("size", [(40, 48), (1, 1), (2, 3), (96, 80), (301, 177), (720, 1280)])
def test_bgr_is_bit_exact_with_opencv(name: str, size: tuple[int, int]) -> None:
    image = random_image(1, *size)
    got = kernel_for(name).bgr([image])[0]
    np.testing.assert_array_equal(got, preprocess(image, INPUTS[name]))


@FAST
@given(height=st.integers(1, 130), width=st.integers(1, 130), seed=st.integers(0, 999))
def test_random_sizes_are_bit_exact_with_opencv(height: int, width: int, seed: int) -> None:
    image = random_image(seed, height, width)
    for name, spec in INPUTS.items():
        got = kernel_for(name).bgr([image])[0]
        np.testing.assert_array_equal(got, preprocess(image, spec))


def test_batch_of_different_sizes_and_pitches() -> None:
    wide = random_image(2, 50, 200)[:, 20:131]
    images = [wide, random_image(3, 33, 60), random_image(4, 100, 20)]
    got = kernel_for("tensorflow").bgr(images)
    for row, image in zip(got, images, strict=True):
        np.testing.assert_array_equal(row, preprocess(image, INPUTS["tensorflow"]))


def test_sources_without_pixels_are_blank() -> None:
    spec = INPUTS["letterbox"]
    rows = np.zeros(2, SOURCE)
    got = kernel_for("letterbox").run(rows, [bytes(table_size(spec))] * 2)
    np.testing.assert_array_equal(got, np.full_like(got, spec.fill))


def test_fp16_output_is_the_rounded_fp32_output() -> None:
    image = random_image(5, 77, 91)
    got = kernel_for("tensorflow", "fp16").bgr([image])[0]
    expected = preprocess(image, INPUTS["tensorflow"]).astype(np.float16)
    np.testing.assert_array_equal(got, expected)


def to_nv12(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Luma and interleaved chroma of a BGR image with even sides (OpenCV: BT.601, limited)."""
    height, width = image.shape[:2]
    planar = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    luma = planar[:height]
    chroma = planar[height:].reshape(2, height // 2, width // 2)
    return np.ascontiguousarray(luma), np.ascontiguousarray(np.stack(chroma, -1))


@pytest.mark.parametrize("pair", [(128, 128), (90, 160), (16, 240), (240, 16)])
def test_nv12_without_resizing_equals_opencv(pair: tuple[int, int]) -> None:
    """With one chroma for the whole picture nothing is interpolated: only roundings may differ."""
    spec = dataclasses.replace(INPUTS["caffe"], mean=(0.0, 0.0, 0.0))
    luma = np.random.default_rng(6).integers(16, 236, (40, 48), np.uint8)
    chroma = np.tile(np.array(pair, np.uint8), (20, 24, 1))
    both = np.concatenate([luma, chroma.reshape(20, 48)])
    got = HostPreprocessor(make_spec(input=spec)).nv12(
        luma, chroma, (48, 40), Color.of("bt601", full_range=False)
    )
    expected = cv2.cvtColor(both, cv2.COLOR_YUV2BGR_NV12).transpose(2, 0, 1)
    np.testing.assert_allclose(got, expected, atol=1)


@pytest.mark.parametrize("standard", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
def test_color_standards(standard: Literal["bt601", "bt709"], full_range: bool) -> None:
    """Primary colors survive a round trip through the standard's own forward equations."""
    red, blue = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[standard]
    color = Color.of(standard, full_range)
    spec = dataclasses.replace(INPUTS["caffe"], mean=(0.0, 0.0, 0.0), width=4, height=4)
    kernel = HostPreprocessor(make_spec(input=spec))
    for rgb in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (10, 200, 90)):
        r, g, b = (value / 255 for value in rgb)
        y = red * r + (1 - red - blue) * g + blue * b
        u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
        scale, offset, swing = (255, 0, 255) if full_range else (219, 16, 224)
        luma = np.full((4, 4), round(y * scale + offset), np.uint8)
        pair = [min(255, round(u * swing + 128)), min(255, round(v * swing + 128))]
        chroma = np.tile(np.array(pair, np.uint8), (2, 2, 1))
        got = kernel.nv12(luma, np.ascontiguousarray(chroma), (4, 4), color)
        np.testing.assert_allclose(got[:, 1, 1], rgb[::-1], atol=2)


def test_resized_nv12_is_close_to_conversion_before_resizing(shared_data: Path) -> None:
    image = read_image(shared_data / "photos" / "darknet" / "dog.jpg")
    spec = dataclasses.replace(INPUTS["caffe"], mean=(0.0, 0.0, 0.0), width=300, height=300)
    luma, chroma = to_nv12(image)
    color = Color.of("bt601", full_range=False)
    got = HostPreprocessor(make_spec(input=spec)).nv12(
        luma, chroma, (image.shape[1], image.shape[0]), color
    )
    expected = preprocess(image, spec)
    difference = np.abs(got - expected)
    assert difference.mean() < 2.0
    assert np.percentile(difference, 99) < 16
