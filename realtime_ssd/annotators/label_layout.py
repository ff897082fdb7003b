"""Positions of labels, such that they cover neither each other nor boxes where there is room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from realtime_ssd.core.frames import Image

__all__ = ["place_labels"]

Box = tuple[int, int, int, int]
Size = tuple[int, int]

_LABEL_COST, _OWN_BOX_COST = 8.0, 3.0
"""Costs of covering other labels and the label's own box, relative to covering other boxes."""

_NO_ROOM = 0.9
"""Part of the image in boxes above which labels need not avoid the boxes of others."""

_ROOM_FOR_LABELS = 0.4
"""Part of the image in labels above which further ones simply go above their boxes."""

_CELLS_PER_LABEL = 6
"""Cells of the map of boxes, in the height of a label."""


def place_labels(
    sizes: Sequence[Size], boxes: Sequence[Box], width: int, height: int
) -> list[tuple[int, int]]:
    """Return where to draw labels, in the order of their importance.

    A label goes above or below its box, to its right or left, or into a corner: to the first of
    these places where it covers nothing, else to the one where it covers least. Labels keep to
    even coordinates if boxes and sizes do.

    Args:
        sizes: Width and height of each label.
        boxes: x1, y1, x2, y2 of the outline that each label belongs to.
        width: Width of the image.
        height: Height of the image.

    Returns:
        x and y of the upper left corners. A label that is larger than the image starts at its
        edge.
    """
    covered = _CoveredPlaces(boxes, width, height, min((h for _, h in sizes), default=1))
    positions, room = [], _ROOM_FOR_LABELS * width * height
    for (w, h), box in zip(sizes, boxes, strict=True):
        best, lowest = (0, 0), float("inf")
        for left, top in _places(w, h, box):
            x, y = max(0, min(left, width - w)), max(0, min(top, height - h))
            cost = covered.cost(x, y, x + w, y + h, box)
            if cost < lowest:
                best, lowest = (x, y), cost
            if not cost or room < 0:
                break
        covered.add_label(*best, w, h)
        positions.append(best)
        room -= w * h
    return positions


def _places(w: int, h: int, box: Box) -> Iterator[tuple[int, int]]:
    """Yield the upper left corners of a label around and in a box, in order of preference."""
    x1, y1, x2, y2 = box
    yield x1, y1 - h
    yield from ((x1, y2), (x2, y1), (x2 - w, y1 - h), (x2 - w, y2), (x1 - w, y1))
    yield from ((x2, y2 - h), (x1 - w, y2 - h), (x1, y1 - 2 * h), (x1, y2 + h))
    yield from ((x1, y1), (x1, y2 - h))


class _CoveredPlaces:
    """Maps of boxes, in cells that are smaller than a label, and of labels, in cells of 2 × 2.

    Args:
        boxes: x1, y1, x2, y2 of each box.
        width: Width of the image.
        height: Height of the image.
        label_height: Height of the lowest label.
    """

    def __init__(self, boxes: Sequence[Box], width: int, height: int, label_height: int) -> None:
        self._cell = cell = max(1, label_height // _CELLS_PER_LABEL)
        self._boxes = np.zeros((height // cell + 2, width // cell + 2), np.uint8)
        self._labels = np.zeros((height // 2 + 1, width // 2 + 1), np.uint8)
        # Intervals that touch have no cell in common if their limits are rounded.
        self._half = half = cell // 2
        for x1, y1, x2, y2 in boxes:
            rows = slice((y1 + half) // cell, (y2 + half) // cell)
            self._boxes[rows, (x1 + half) // cell : (x2 + half) // cell] = 1
        if _count(self._boxes) > _NO_ROOM * self._boxes.size:
            self._boxes[:] = 0

    def cost(self, x1: int, y1: int, x2: int, y2: int, box: Box) -> float:
        """Return how much a label of a box would cover: cells, weighted by importance."""
        cell, half = self._cell, self._half
        rows = slice((y1 + half) // cell, (y2 + half) // cell)
        cost: float = _count(self._boxes[rows, (x1 + half) // cell : (x2 + half) // cell])
        if x1 < box[2] and x2 > box[0] and y1 < box[3] and y2 > box[1]:
            w, h = min(x2, box[2]) - max(x1, box[0]), min(y2, box[3]) - max(y1, box[1])
            cost += _OWN_BOX_COST * w * h / cell**2
        labels = _count(self._labels[y1 // 2 : (y2 + 1) // 2, x1 // 2 : (x2 + 1) // 2])
        return cost + _LABEL_COST * 4 / cell**2 * labels if labels else cost

    def add_label(self, x: int, y: int, w: int, h: int) -> None:
        """Mark all cells that a label touches."""
        self._labels[y // 2 : (y + h + 1) // 2, x // 2 : (x + w + 1) // 2] = 1


def _count(cells: Image) -> int:
    return cv2.countNonZero(cells) if cells.size else 0
