"""Text on images: labels of boxes, and lines in the corner."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from realtime_ssd.core.frames import Image

__all__ = ["Color", "draw_label", "draw_lines"]

Color = tuple[int, int, int]
"""Blue, green and red from 0 to 255."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE: Color = (255, 255, 255)
_BLACK: Color = (0, 0, 0)


def draw_label(image: Image, text: str, corner: tuple[int, int], color: Color) -> None:
    """Draw a label above the upper left corner of a box, or inside the box at the image border.

    Args:
        image: H × W × 3, uint8, BGR; changed in place.
        text: Text of the label.
        corner: x and y of the corner in pixels.
        color: Background of the label; the text is black or white for contrast.
    """
    scale = max(0.35, min(image.shape[:2]) / 1000)
    thickness = _thickness(scale)
    (width, height), baseline = cv2.getTextSize(text, _FONT, scale, thickness)
    padding = max(2, round(height * 0.3))
    left = min(max(corner[0], 0), max(0, image.shape[1] - width - 2 * padding))
    top = corner[1] - height - baseline - padding
    if top < 0:
        top = max(0, corner[1])
    bottom = top + height + baseline + padding
    right = left + width + 2 * padding
    cv2.rectangle(image, (left, top), (right, bottom), color, cv2.FILLED)
    origin = (left + padding, bottom - baseline)
    cv2.putText(image, text, origin, _FONT, scale, _contrast(color), thickness, cv2.LINE_AA)


def draw_lines(image: Image, lines: Sequence[str]) -> None:
    """Draw lines of text in the upper left corner, on a darkened background.

    Args:
        image: H × W × 3, uint8, BGR; changed in place.
        lines: Lines from top to bottom.
    """
    scale = max(0.4, min(image.shape[:2]) / 900)
    thickness = _thickness(scale)
    sizes = [cv2.getTextSize(line, _FONT, scale, thickness)[0] for line in lines]
    step = round(max((height for _, height in sizes), default=0) * 1.9)
    right = min(image.shape[1], max((width for width, _ in sizes), default=0) + step)
    bottom = min(image.shape[0], step * len(lines) + step // 2)
    background = image[:bottom, :right]
    background[:] = (background.astype(np.uint16) * 2 // 5).astype(np.uint8)
    for number, line in enumerate(lines, start=1):
        origin = (step // 2, round(step * (number - 0.05)))
        cv2.putText(image, line, origin, _FONT, scale, _WHITE, thickness, cv2.LINE_AA)


def _thickness(scale: float) -> int:
    """Return the stroke width in pixels for a font scale."""
    return max(1, round(scale * 1.6))


def _contrast(color: Color) -> Color:
    """Return black or white, whichever is more readable on a color."""
    blue, green, red = color
    return _BLACK if 0.114 * blue + 0.587 * green + 0.299 * red > 130 else _WHITE
