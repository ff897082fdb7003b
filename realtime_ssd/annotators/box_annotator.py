"""Boxes with labels, in one color per class."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, isfinite
from typing import Literal, get_args

import cv2
import numpy as np

from realtime_ssd.annotators.label_layout import place_labels
from realtime_ssd.annotators.palette import Color, color_of
from realtime_ssd.annotators.text import font_size_for, label_plate
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Image
from realtime_ssd.core.results import FrameResult

__all__ = ["BoxAnnotator", "Labels", "percent"]

Labels = Literal["full", "class", "none"]
"""What labels show: track, class and score; the class; or nothing."""

_WIDEST_LINE, _LARGEST_FONT = 100, 400
Outline = tuple[int, int, int, int]
"""x1, y1, x2, y2 of the outer edges of the lines of a box."""


class BoxAnnotator:
    """Draws the box of every detection, then the labels where they cover least.

    Lines start at even coordinates, so that video with 4:2:0 chroma keeps their color.

    Args:
        line_width: Width of the lines in pixels; None for one that suits the image, at least 2.
        font_size: Size of the labels' font in pixels; None for one that suits the image.
        labels: "full" for track, class and score, "class", or "none".
        scores: Whether full labels have the score.

    Raises:
        UsageError: If a value is out of range.

    Example:
        >>> annotator = BoxAnnotator(line_width=4, labels="class")
    """

    def __init__(
        self,
        *,
        line_width: int | None = None,
        font_size: int | None = None,
        labels: Labels = "full",
        scores: bool = True,
    ) -> None:
        _check_range("line_width", line_width, 1, _WIDEST_LINE)
        _check_range("font_size", font_size, 6, _LARGEST_FONT)
        if labels not in get_args(Labels):
            known = ", ".join(get_args(Labels))
            raise UsageError(f"`labels` must be one of {known}, not '{labels}'")
        self._line_width, self._font_size = line_width, font_size
        self._labels, self._scores = labels, scores

    def annotate(self, image: Image, result: FrameResult) -> None:
        """See `realtime_ssd.core.results.Annotator`."""
        height, width = image.shape[:2]
        line_width = self._line_width or 2 * max(1, round(min(height, width) / 560))
        detections = result.detections
        boxes, class_ids = detections.boxes.tolist(), detections.class_ids.tolist()
        shown = []
        for row in np.argsort(-detections.scores, kind="stable").tolist():
            outline = _outline(boxes[row], line_width, width, height)
            if outline is not None:
                shown.append((row, outline, color_of(class_ids[row])))
        for _, outline, color in reversed(shown):  # the better box is on top
            _draw_outline(image, outline, line_width, color)
        if self._labels != "none":
            self._draw_labels(image, detections, shown)

    def _draw_labels(
        self, image: Image, detections: Detections, shown: Sequence[tuple[int, Outline, Color]]
    ) -> None:
        size = self._font_size or font_size_for(image)
        plates = [label_plate(self._texts(detections, row), size, color) for row, _, color in shown]
        sizes = [(plate.shape[1], plate.shape[0]) for plate in plates]
        outlines = [outline for _, outline, _ in shown]
        positions = place_labels(sizes, outlines, image.shape[1], image.shape[0])
        for plate, (x, y) in zip(reversed(plates), reversed(positions), strict=True):
            target = image[y : y + plate.shape[0], x : x + plate.shape[1]]
            target[:] = plate[: target.shape[0], : target.shape[1]]

    def _texts(self, detections: Detections, row: int) -> tuple[str, ...]:
        """Return the parts of a label."""
        label = detections.label_of(int(detections.class_ids[row]))
        if self._labels == "class":
            return (label,)
        tracks = detections.track_ids
        track = () if tracks is None or tracks[row] < 0 else (f"#{tracks[row]}",)
        score = (percent(float(detections.scores[row])),) if self._scores else ()
        return (*track, label, *score)


def percent(score: float) -> str:
    """Return a score as a percentage, which is 100 % or 0 % only if the score is exactly that.

    Example:
        >>> percent(0.996), percent(1.0), percent(0.123)
        ('99%', '100%', '12%')
    """
    rounded = round(score * 100)
    if rounded == 100 and score < 1:
        return "99%"
    return "<1%" if rounded == 0 and score > 0 else f"{rounded}%"


def _check_range(name: str, value: int | None, lowest: int, highest: int) -> None:
    if value is not None and not lowest <= value <= highest:
        raise UsageError(f"`{name}` must be between {lowest} and {highest} pixels, not {value}")


def _outline(box: Sequence[float], line: int, width: int, height: int) -> Outline | None:
    """Return even coordinates around a box, within the image; None if nothing of it is visible.

    The middle of each line is on the edge of the box, where the image has room for that.
    """
    if not all(map(isfinite, box)):
        return None
    x1, x2 = _edges(box[0], box[2], line, width)
    y1, y2 = _edges(box[1], box[3], line, height)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _edges(first: float, second: float, line: int, size: int) -> tuple[int, int]:
    """Return where the outline of an interval starts and ends; an empty interval if outside."""
    low, high = (first, second) if first <= second else (second, first)
    if high < 0 or low > size:
        return 0, 0
    half = line / 2
    start = max(0, 2 * floor((min(low - half, size - line) + 1) / 2))
    end = -2 * floor((1 - min(high + half, size)) / 2)
    return start, min(size, max(end, start + line))


def _draw_outline(image: Image, outline: Outline, line: int, color: Color) -> None:
    x1, y1, x2, y2 = outline[0], outline[1], outline[2] - 1, outline[3] - 1
    top, bottom = min(y1 + line - 1, y2), max(y2 - line + 1, y1)
    left, right = min(x1 + line - 1, x2), max(x2 - line + 1, x1)
    cv2.rectangle(image, (x1, y1), (x2, top), color, cv2.FILLED)
    cv2.rectangle(image, (x1, bottom), (x2, y2), color, cv2.FILLED)
    cv2.rectangle(image, (x1, y1), (left, y2), color, cv2.FILLED)
    cv2.rectangle(image, (right, y1), (x2, y2), color, cv2.FILLED)
