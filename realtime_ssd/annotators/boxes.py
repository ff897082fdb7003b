"""Boxes and labels onto a copy of the frame."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import cv2
import numpy as np

from realtime_ssd.core.frames import Image
from realtime_ssd.core.results import FrameResult

__all__ = ["BoxAnnotator", "color_of", "draw_lines"]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN = 0.618033988749895
Color = tuple[int, int, int]


@lru_cache(maxsize=1024)
def color_of(class_id: int) -> Color:
    """Give the BGR colour of a class: neighbouring ids get colours far apart."""
    red, green, blue = colorsys.hsv_to_rgb((0.08 + class_id * _GOLDEN) % 1.0, 0.72, 0.98)
    return round(blue * 255), round(green * 255), round(red * 255)


class BoxAnnotator:
    """Draws the box of every detection with its label and score."""

    def annotate(self, image: Image, result: FrameResult) -> None:
        """See `realtime_ssd.core.results.Annotator`."""
        height, width = image.shape[:2]
        line = max(1, round(min(height, width) / 320))
        # The best detections are drawn last, so that their labels stay readable.
        for detection in reversed(list(result.detections)):
            x1, y1, x2, y2 = (round(value) for value in detection.box)
            color = color_of(detection.class_id)
            cv2.rectangle(image, (x1, y1), (x2, y2), color, line)
            _label(image, f"{detection.label} {detection.score:.2f}", (x1, y1), color)


def _scale(canvas: Image) -> float:
    return max(0.35, float(min(canvas.shape[:2])) / 1000)


def _ink(color: Color) -> Color:
    """Choose black or white, whichever is better to read on a colour."""
    blue, green, red = color
    return (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 130 else (255, 255, 255)


def _label(canvas: Image, text: str, corner: tuple[int, int], color: Color) -> None:
    """Write a label above a box, or inside it where the picture ends."""
    scale = _scale(canvas)
    thick = max(1, round(scale * 1.6))
    (width, height), below = cv2.getTextSize(text, _FONT, scale, thick)
    pad = max(2, round(height * 0.3))
    left = min(max(corner[0], 0), max(0, canvas.shape[1] - width - 2 * pad))
    top = corner[1] - height - below - pad
    if top < 0:
        top = max(0, corner[1])
    bottom = top + height + below + pad
    cv2.rectangle(canvas, (left, top), (left + width + 2 * pad, bottom), color, cv2.FILLED)
    at = (left + pad, bottom - below)
    cv2.putText(canvas, text, at, _FONT, scale, _ink(color), thick, cv2.LINE_AA)


def draw_lines(canvas: Image, lines: list[str]) -> None:
    """Write lines of text into the upper left corner, on a darkened ground.

    Args:
        canvas: H × W × 3, BGR; drawn on in place.
        lines: What to write.
    """
    scale = max(0.4, min(canvas.shape[:2]) / 900)
    thick = max(1, round(scale * 1.6))
    sizes = [cv2.getTextSize(line, _FONT, scale, thick)[0] for line in lines]
    step = round(max((height for _, height in sizes), default=0) * 1.9)
    right = min(canvas.shape[1], max((width for width, _ in sizes), default=0) + step)
    bottom = min(canvas.shape[0], step * len(lines) + step // 2)
    ground = canvas[:bottom, :right]
    ground[:] = (ground.astype(np.uint16) * 2 // 5).astype(np.uint8)
    for number, line in enumerate(lines, start=1):
        at = (step // 2, round(step * (number - 0.05)))
        cv2.putText(canvas, line, at, _FONT, scale, (255, 255, 255), thick, cv2.LINE_AA)
