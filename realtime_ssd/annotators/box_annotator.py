"""Boxes with labels, in one color per class."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import cv2

from realtime_ssd.annotators.text import Color, draw_label
from realtime_ssd.core.frames import Image
from realtime_ssd.core.results import FrameResult

__all__ = ["BoxAnnotator", "color_of"]

_GOLDEN_RATIO = 0.618033988749895


@lru_cache(maxsize=1024)
def color_of(class_id: int) -> Color:
    """Return the BGR color of a class; neighboring class ids have clearly different hues."""
    hue = (0.08 + class_id * _GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.72, 0.98)
    return round(blue * 255), round(green * 255), round(red * 255)


class BoxAnnotator:
    """Draws the box of every detection with its label and score."""

    def annotate(self, image: Image, result: FrameResult) -> None:
        """See `realtime_ssd.core.results.Annotator`."""
        line_width = max(1, round(min(image.shape[:2]) / 320))
        # In ascending order of score, so that the label of the better detection is on top.
        for detection in reversed(list(result.detections)):
            x1, y1, x2, y2 = (round(value) for value in detection.box)
            color = color_of(detection.class_id)
            cv2.rectangle(image, (x1, y1), (x2, y2), color, line_width)
            draw_label(image, f"{detection.label} {detection.score:.2f}", (x1, y1), color)
