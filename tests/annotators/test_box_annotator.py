"""Boxes and labels, checked pixel by pixel."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from realtime_ssd import Detections
from realtime_ssd.annotators import annotate
from realtime_ssd.annotators.box_annotator import color_of
from realtime_ssd.core.frames import Image
from realtime_ssd.core.results import FrameResult

Box = tuple[float, float, float, float]
LABELS = ("background", "car", "bus")


def detections(*boxes: tuple[Box, float, int]) -> Detections:
    """Return detections of (box, score, class id)."""
    return Detections(
        np.array([box for box, _, _ in boxes], np.float32),
        np.array([score for _, score, _ in boxes], np.float32),
        np.array([class_id for _, _, class_id in boxes], np.int32),
        LABELS,
    )


def car(box: Box) -> Detections:
    return detections((box, 0.75, 1))


def test_box_is_drawn_in_the_color_of_its_class_with_a_label_above() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    drawn = annotate(image, car((100, 80, 220, 200)))
    assert not image.any()
    assert drawn.flags.writeable
    for y, x in ((80, 200), (200, 160), (140, 100), (140, 220)):
        assert tuple(drawn[y, x]) == color_of(1)
    assert not drawn[82:199, 102:219].any()  # the inside is unchanged
    assert not drawn[202:].any()
    assert tuple(drawn[79, 101]) == color_of(1)  # background of the label
    assert (drawn[60:80, 100:160] < 80).all(axis=2).any()  # text of the label


def test_line_width_grows_with_the_image() -> None:
    widths = []
    for scale in (1, 4):
        image = np.zeros((240 * scale, 320 * scale, 3), np.uint8)
        drawn = annotate(image, car((100 * scale, 80 * scale, 220 * scale, 200 * scale)))
        widths.append(int(drawn[150 * scale, 80 * scale : 120 * scale].any(axis=1).sum()))
    assert widths[0] == 1
    assert widths[1] in (3, 4, 5)


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((10, 100, 90, 150), (78, 100), (10, 20)),  # above the box
        ((10, 2, 90, 150), (3, 18), (12, 20)),  # inside, at the upper edge of the image
        ((-50, 100, 40, 150), (84, 100), (0, 10)),  # from the left edge of the image
        ((310, 100, 330, 150), (84, 100), (275, 319)),  # up to the right edge of the image
    ],
)
def test_label_stays_inside_the_image(
    box: Box, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    drawn = annotate(np.zeros((240, 320, 3), np.uint8), car(box))
    label = drawn[slice(*rows), slice(*columns)]
    assert (label == color_of(1)).all(axis=2).mean() > 0.4
    assert not drawn[155:].any()


def label_region(results: Detections) -> Image:
    return annotate(np.zeros((240, 320, 3), np.uint8), results)[60:79, 100:135]


def test_label_of_the_better_detection_is_on_top() -> None:
    better, worse = ((100, 80, 220, 200), 0.9, 1), ((100, 80, 220, 200), 0.6, 2)
    both = label_region(detections(better, worse))
    np.testing.assert_array_equal(both, label_region(detections(better)))
    assert (both != label_region(detections(worse))).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (4320, 64)])
def test_tiny_and_narrow_images_are_supported(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    assert annotate(image, car((0, 0, size[1], size[0]))).shape == image.shape


def test_colors_are_bgr_and_distinct() -> None:
    blue, green, red = color_of(0)
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    assert (hue, saturation, value) == pytest.approx((0.08, 0.72, 0.98), abs=0.01)
    assert red > green > blue  # orange
    assert len({color_of(number) for number in range(30)}) == 30
    neighbors = [np.subtract(color_of(n), color_of(n + 1)) for n in range(30)]
    assert min(np.abs(difference).max() for difference in neighbors) > 100


def test_label_text_contrasts_with_its_background() -> None:
    for class_id in range(8):
        results = Detections(
            np.array([[100, 80, 220, 200]], np.float32),
            np.array([0.75], np.float32),
            np.array([class_id], np.int32),
            ("n",) * 8,
        )
        label = annotate(np.full((240, 320, 3), 128, np.uint8), results)[66:79, 102:140]
        blue, green, red = color_of(class_id)
        dark_text = 0.114 * blue + 0.587 * green + 0.299 * red > 130
        assert (label < 60).all(axis=2).any() == dark_text
        assert (label > 200).all(axis=2).any() != dark_text


class Corner:
    """Marks the upper left pixel."""

    def __init__(self, level: int) -> None:
        self._level = level

    def annotate(self, image: Image, result: FrameResult) -> None:
        image[0, 0] = self._level


def test_annotators_draw_in_order() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    drawn = annotate(image, car((100, 80, 220, 200)), [Corner(1), Corner(2)])
    assert (drawn[0, 0] == 2).all()
    assert drawn.sum() == 6
    assert not annotate(image, car((100, 80, 220, 200)), []).any()
