from __future__ import annotations

import numpy as np
import pytest

from realtime_ssd.annotators.text import draw_label, draw_lines


def test_lines_are_white_on_a_darkened_corner() -> None:
    image = np.full((240, 320, 3), 200, np.uint8)
    draw_lines(image, ["30.0 FPS"])
    corner = image[:18, :40]
    assert corner.min() == 80
    assert corner.max() > 230
    assert (image[40:] == 200).all()
    assert (image[:, 130:] == 200).all()


def test_each_line_is_below_the_one_before() -> None:
    heights = []
    for count in (1, 2, 3):
        image = np.full((240, 320, 3), 200, np.uint8)
        draw_lines(image, ["text"] * count)
        heights.append(int((image[:, 0, 0] < 200).sum()))
        white = (image[:, :60].min(axis=2) > 220).any(axis=1)
        assert int(np.diff(white.astype(int), prepend=0).clip(0).sum()) == count
    assert heights[2] - heights[1] == heights[1] - heights[0] > 10


def test_text_grows_with_the_image() -> None:
    areas = []
    for side in (300, 1800):
        image = np.full((side, side, 3), 200, np.uint8)
        draw_lines(image, ["text"])
        areas.append(int((image[..., 0] < 200).sum()))
    assert areas[1] > 10 * areas[0]


def test_no_lines_leave_the_image_unchanged() -> None:
    image = np.full((240, 320, 3), 200, np.uint8)
    draw_lines(image, [])
    assert (image == 200).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (4320, 64)])
def test_tiny_and_narrow_images_are_supported(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    draw_lines(image, ["12.0 FPS", "3 dropped"])
    draw_label(image, "car 0.50", (0, 0), (1, 2, 3))


@pytest.mark.parametrize(("color", "text"), [((0, 255, 0), 0), ((255, 0, 0), 255)])
def test_label_text_is_black_or_white_for_contrast(color: tuple[int, int, int], text: int) -> None:
    image = np.full((100, 300, 3), 128, np.uint8)
    draw_label(image, "MMMM", (10, 60), color)
    colors = {tuple(pixel) for pixel in image[40:60, 10:60].reshape(-1, 3).tolist()}
    assert color in colors
    assert (text, text, text) in colors
