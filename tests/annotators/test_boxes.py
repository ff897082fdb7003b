"""Drawing, looked at pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from realtime_ssd import Detections
from realtime_ssd.annotators import annotate
from realtime_ssd.annotators.boxes import color_of, draw_lines


def one(box: tuple[float, float, float, float], class_id: int = 1) -> Detections:
    return Detections(
        np.array([box], np.float32),
        np.array([0.75], np.float32),
        np.array([class_id], np.int32),
        ("background", "car"),
    )


def test_the_box_is_where_it_was_found() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    drawn = annotate(image, one((100, 80, 220, 200)))
    assert not image.any()
    for y, x in ((80, 160), (200, 160), (140, 100), (140, 220)):
        assert np.allclose(drawn[y, x], color_of(1), atol=40)  # the line is smoothed
    assert not drawn[100:190, 110:210].any()  # the inside stays as it was
    assert drawn[60:80, 100:160].any()  # the label stands on top


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (4320, 64)])
def test_no_picture_is_too_small(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    assert annotate(image, one((0, 0, size[1], size[0]))).shape == image.shape
    draw_lines(image, ["12.0 FPS", "3 dropped"])


def test_colours_differ() -> None:
    colours = [color_of(number) for number in range(30)]
    assert len(set(colours)) == 30


def test_text_on_a_darkened_ground() -> None:
    canvas = np.full((240, 320, 3), 200, np.uint8)
    draw_lines(canvas, ["30.0 FPS"])
    corner = canvas[:12, :40]
    assert corner.min() < 100
    assert (canvas[-40:] == 200).all()
