"""Pre-processing, compared with OpenCV and numpy step by step."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_ssd.core.preprocess import LetterboxParams, letterbox_params, preprocess
from realtime_ssd.core.spec import Channels, InputSpec

sizes = st.integers(1, 90)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, sizes, st.sampled_from(["RGB", "BGR"]), st.integers(0, 2**32 - 1))
def test_equals_opencv(
    width: int, height: int, columns: int, rows: int, channels: Channels, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mean, scale = (104.0, 117.0, 123.0), (1 / 58, 1 / 57, 1.0)
    spec = InputSpec(columns, rows, channels, mean, scale)
    resized = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
    resized = resized.reshape(rows, columns, 3).astype(np.float32)
    if channels == "RGB":
        resized = resized[..., ::-1]
    expected = (resized - np.array(mean, np.float32)) * np.array(scale, np.float32)
    assert np.array_equal(preprocess(image, spec), expected.transpose(2, 0, 1))


def test_writes_to_one_image_of_a_batch() -> None:
    spec = InputSpec(8, 6, "BGR", scale=(1 / 255,) * 3)
    batch = np.full((3, 3, 6, 8), -1, np.float32)
    output = preprocess(np.full((20, 30, 3), 255, np.uint8), spec, batch[1])
    assert np.shares_memory(output, batch)
    assert np.allclose(batch[1], 1)
    assert (batch[[0, 2]] == -1).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((200, 100), (0, 16, 64, 32)),
        ((100, 200), (16, 0, 32, 64)),
        ((64, 64), (0, 0, 64, 64)),
        ((7, 900), (31, 0, 1, 64)),
        ((900, 7), (0, 31, 64, 1)),
        ((100, 99), (0, 0, 64, 63)),
        ((3, 2), (0, 10, 64, 43)),
    ],
)
def test_letterbox_is_centerd_and_keeps_the_aspect_ratio(
    size: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    spec = InputSpec(64, 64, resize="letterbox")
    assert letterbox_params(spec, *size) == LetterboxParams(*expected)


def test_warp_fills_the_input() -> None:
    assert letterbox_params(InputSpec(64, 32), 7, 900) == LetterboxParams(0, 0, 64, 32)


@pytest.mark.parametrize(("width", "height"), [(200, 100), (100, 200), (7, 900), (64, 64)])
def test_letterbox_and_back(width: int, height: int) -> None:
    spec = InputSpec(64, 64, "BGR", resize="letterbox", fill=7)
    tensor = preprocess(np.full((height, width, 3), 200, np.uint8), spec)
    params = letterbox_params(spec, width, height)
    right, bottom = params.x + params.width, params.y + params.height
    inside = np.zeros((64, 64), bool)
    inside[params.y : bottom, params.x : right] = True
    assert (tensor[:, inside] == 200).all()
    assert (tensor[:, ~inside] == 7).all()
    fractions = np.array([[params.x, params.y, right, bottom]], np.float32) / np.float32(64)
    corners = params.to_frame(fractions, spec, width, height)
    assert corners.tolist() == [pytest.approx([0, 0, width, height], abs=1e-3)]


def test_boxes_are_mapped_and_clipped_to_the_frame() -> None:
    spec = InputSpec(64, 64, resize="letterbox")
    params = letterbox_params(spec, 200, 100)
    boxes = np.array([[-0.5, 0, 2, 1], [0.5, 0.5, 0.75, 0.625]], np.float32)
    mapped = params.to_frame(boxes, spec, 200, 100)
    assert mapped.tolist() == [[0, 0, 200, 100], [100, 50, 150, 75]]
    assert mapped.dtype.name == "float32"
