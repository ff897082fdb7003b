"""Pre-processing against OpenCV, step by step."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_ssd.core.preprocess import place, preprocess
from realtime_ssd.core.spec import InputSpec

sizes = st.integers(1, 90)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, sizes, st.sampled_from(["RGB", "BGR"]), st.integers(0, 2**32 - 1))
def test_equals_opencv(
    width: int, height: int, columns: int, rows: int, channels: str, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mean, scale = (104.0, 117.0, 123.0), (1 / 58, 1 / 57, 1.0)
    spec = InputSpec(columns, rows, channels, mean, scale)  # type: ignore[arg-type]
    plain = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    if channels == "RGB":
        plain = plain[..., ::-1]
    expected = (plain - np.float32(mean)) * np.float32(scale)
    assert np.array_equal(preprocess(image, spec), expected.transpose(2, 0, 1))


def test_writes_into_a_row_of_a_batch() -> None:
    spec = InputSpec(8, 6, "BGR", scale=(1 / 255,) * 3)
    batch = np.full((3, 3, 6, 8), -1, np.float32)
    given_back = preprocess(np.full((20, 30, 3), 255, np.uint8), spec, batch[1])
    assert np.shares_memory(given_back, batch)
    assert np.allclose(batch[1], 1)
    assert (batch[[0, 2]] == -1).all()


@pytest.mark.parametrize(("width", "height"), [(200, 100), (100, 200), (7, 900), (64, 64)])
def test_letterbox_and_back(width: int, height: int) -> None:
    spec = InputSpec(64, 64, "BGR", resize="letterbox", fill=7)
    tensor = preprocess(np.full((height, width, 3), 200, np.uint8), spec)
    spot = place(spec, width, height)
    inside = np.zeros((64, 64), bool)
    inside[spot.y : spot.y + spot.height, spot.x : spot.x + spot.width] = True
    assert (tensor[:, inside] == 200).all()
    assert (tensor[:, ~inside] == 7).all()
    fractions = np.array([[spot.x, spot.y, spot.x + spot.width, spot.y + spot.height]], np.float32)
    corners = spot.to_frame(fractions / 64, spec, width, height)
    assert corners.tolist() == [pytest.approx([0, 0, width, height], abs=1e-3)]
