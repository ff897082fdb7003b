"""Annotators that processors add to a result: paths, zones, lines and their counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.annotators.palette import Color, color_of
from realtime_ssd.annotators.text import font_size_for, label_plate
from realtime_ssd.core.frames import Image
from realtime_ssd.core.results import FrameResult

__all__ = ["ShapeOverlay", "TraceOverlay"]

_FILL = 0.18
"""Opacity of the inside of a zone."""


@dataclass(frozen=True, slots=True)
class TraceOverlay:
    """Draws the paths of objects.

    Attributes:
        paths: Track id, and N × 2 float32 positions in pixels of the frame, of each object.
    """

    paths: Sequence[tuple[int, NDArray[np.float32]]]

    def annotate(self, image: Image, result: FrameResult) -> None:
        """See `realtime_ssd.core.results.Annotator`."""
        width = _line_width(image)
        for number, points in self.paths:
            curve = np.round(points).astype(np.int32).reshape(-1, 1, 2)
            cv2.polylines(image, [curve], False, color_of(number), width, cv2.LINE_AA)


@dataclass(frozen=True, slots=True)
class ShapeOverlay:
    """Draws a zone or a line with its name and counts.

    Attributes:
        points: N × 2 float32 corners in pixels of the frame; two of them are a line.
        text: Name and counts.
        color: Index of the color.
    """

    points: NDArray[np.float32]
    text: str
    color: int

    def annotate(self, image: Image, result: FrameResult) -> None:
        """See `realtime_ssd.core.results.Annotator`."""
        color, width = color_of(self.color), _line_width(image)
        corners = np.round(self.points).astype(np.int32)
        if len(corners) == 2:
            cv2.line(image, corners[0].tolist(), corners[1].tolist(), color, width, cv2.LINE_AA)
        else:
            _fill(image, corners, color)
            cv2.polylines(image, [corners], True, color, width, cv2.LINE_AA)
        x, y = corners[corners[:, 1].argmin()].tolist()
        _draw_plate(image, label_plate((self.text,), font_size_for(image), color), x, y)


def _fill(image: Image, corners: NDArray[np.int32], color: Color) -> None:
    """Tint the inside of a polygon, touching only its bounding box."""
    height, width = image.shape[:2]
    x1, y1 = np.clip(corners.min(axis=0), 0, [width, height]).tolist()
    x2, y2 = np.clip(corners.max(axis=0) + 1, 0, [width, height]).tolist()
    if x2 <= x1 or y2 <= y1:
        return
    part = image[y1:y2, x1:x2]
    tinted = part.copy()
    cv2.fillPoly(tinted, [corners - np.array([x1, y1], np.int32)], color)
    cv2.addWeighted(tinted, _FILL, part, 1 - _FILL, 0, dst=part)


def _draw_plate(image: Image, plate: Image, x: int, y: int) -> None:
    """Draw a plate above a point, or as near to that as the image has room."""
    left = max(0, min(x, image.shape[1] - plate.shape[1]))
    top = max(0, min(y - plate.shape[0], image.shape[0] - plate.shape[0]))
    target = image[top : top + plate.shape[0], left : left + plate.shape[1]]
    target[:] = plate[: target.shape[0], : target.shape[1]]


def _line_width(image: Image) -> int:
    height, width = image.shape[:2]
    return int(max(2, min(height, width) // 360))
