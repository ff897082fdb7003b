"""Default boxes, offsets and overlap, checked against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_ssd.core.boxes import (
    AnchorLayer,
    AnchorSpec,
    area,
    cell_sizes,
    decode,
    encode,
    iou,
    to_center,
    to_corners,
)

VARIANCES = (0.1, 0.1, 0.2, 0.2)
LAYER = AnchorLayer(1, 2, 1.0, 0.5, ((0.5, 0.25), (1.5, 2.0)))


def test_boxes_are_ordered_by_cell_then_size() -> None:
    spec = AnchorSpec((LAYER, AnchorLayer(2, 1, 0.5, 1.0, ((0.1, 0.2),), offset=0.25)))
    assert spec.count == LAYER.count + 2 == 6
    boxes = spec.boxes()
    assert boxes.dtype.name == "float32"
    assert boxes.tolist() == [
        [0.25, 0.5, 0.5, 0.25],
        [0.25, 0.5, 1.5, 2.0],
        [0.75, 0.5, 0.5, 0.25],
        [0.75, 0.5, 1.5, 2.0],
        pytest.approx([0.25, 0.125, 0.1, 0.2]),
        pytest.approx([0.25, 0.625, 0.1, 0.2]),
    ]


def test_clip_limits_corners() -> None:
    boxes = to_corners(AnchorSpec((LAYER,), clip=True).boxes())
    assert boxes.tolist() == [
        [0, 0.375, 0.5, 0.625],
        [0, 0, 1, 1],
        [0.5, 0.375, 1, 0.625],
        [0, 0, 1, 1],
    ]


def test_clamp_limits_center_and_size() -> None:
    layer = AnchorLayer(1, 2, 1.0, 1.0, ((1.5, 0.5),))
    assert AnchorSpec((layer,), clamp=True).boxes().tolist() == [
        [0.5, 0.5, 1, 0.5],
        [1, 0.5, 1, 0.5],
    ]


def test_rounding_to_a_step() -> None:
    layer = AnchorLayer(1, 1, 1.0, 1.0, ((0.3, 0.1),))
    assert AnchorSpec((layer,), rounding=0.25).boxes().tolist() == [[0.5, 0.5, 0.25, 0.0]]


def test_explicit_boxes_are_kept() -> None:
    boxes = np.arange(12, dtype=np.float64).reshape(3, 4) / 7
    spec = AnchorSpec.from_array(boxes)
    assert spec.count == 3
    assert np.array_equal(spec.boxes(), boxes.astype(np.float32))


def test_cell_sizes_in_the_order_of_caffe() -> None:
    root = 2**0.5
    expected = [
        (0.25, 0.25),
        (0.5, 0.5),
        (0.25 * root, 0.25 / root),
        (0.25 / root, 0.25 * root),
        (0.5, 0.125),
        (0.125, 0.5),
    ]
    assert np.allclose(cell_sizes(0.25, 1.0, (2.0, 4.0)), expected)
    assert cell_sizes(0.25, None, ()) == ((0.25, 0.25),)


def test_corners_and_center() -> None:
    boxes = np.array([[[0.5, 0.25, 0.5, 0.25]]], np.float32)
    assert to_corners(boxes).tolist() == [[[0.25, 0.125, 0.75, 0.375]]]
    assert to_center(to_corners(boxes)).tolist() == boxes.tolist()
    assert to_corners(boxes).dtype == to_center(boxes).dtype == np.float32


def test_encode_as_in_the_paper() -> None:
    default = np.array([[0.5, 0.5, 0.5, 0.25]])
    box = np.array([[0.5, 0.25, 1.0, 0.5]])
    expected = [
        (0.75 - 0.5) / 0.5 / 0.1,
        (0.375 - 0.5) / 0.25 / 0.1,
        np.log(0.5 / 0.5) / 0.2,
        np.log(0.25 / 0.25) / 0.2,
    ]
    assert encode(box, default, VARIANCES)[0].tolist() == pytest.approx(expected)
    wide = encode(np.array([[0.0, 0.0, 1.0, 1.0]]), default, VARIANCES)[0].tolist()
    assert wide[2:] == pytest.approx([np.log(2) / 0.2, np.log(4) / 0.2])


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_decode_is_the_inverse_of_encode(seed: int) -> None:
    random = np.random.default_rng(seed)
    default = random.uniform(0.1, 0.9, (20, 4))
    corner = random.uniform(0, 0.5, (20, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0.01, 0.5, (20, 2))], axis=1)
    offsets = encode(boxes, default, VARIANCES)
    assert np.allclose(decode(offsets, default, VARIANCES), boxes)
    assert decode(offsets.astype(np.float32), default.astype(np.float32), VARIANCES).dtype == "f4"


def test_iou_and_area() -> None:
    first = np.array([[0, 0, 2, 2], [5, 5, 5, 5]], np.float32)
    second = np.array([[0, 0, 2, 2], [1, 1, 3, 2], [2, 0, 4, 2], [5, 5, 5, 5]], np.float32)
    expected = np.array([[1, 0.2, 0, 0], [0, 0, 0, 0]])
    assert np.allclose(iou(first, second), expected)
    wide, tall = np.array([[0, 0, 0.4, 0.1]]), np.array([[0.1, 0.05, 0.2, 0.45]])
    assert iou(wide, tall)[0, 0] == pytest.approx(0.005 / (0.04 + 0.04 - 0.005))
    assert iou(tall, wide)[0, 0] == iou(wide, tall)[0, 0]
    assert area(np.array([[0, 0, 2, 3], [2, 0, 1, 3], [0, 3, 1, 1]], np.float32)).tolist() == [
        6,
        0,
        0,
    ]
