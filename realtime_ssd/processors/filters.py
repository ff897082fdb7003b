"""`SizeFilter` and `Smoother`: which detections stay, and steadier boxes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.results import FrameResult
from realtime_ssd.processors.base import BaseProcessor

__all__ = ["SizeFilter", "Smoother"]

_MEMORY = 2.0
"""Seconds after which the old position of an object no longer counts."""


class SizeFilter(BaseProcessor):
    """Removes detections that are too small or too large.

    Args:
        minimum: Smallest height or width in pixels, whichever is larger; a value of at most 1 is a
            fraction of the larger side of the frame.
        maximum: Largest one; None for no limit.

    Raises:
        UsageError: If the sizes are not positive, or the smallest is above the largest.
    """

    name = "size_filter"

    def __init__(self, minimum: float = 0.0, maximum: float | None = None) -> None:
        for name, value in (("min_size", minimum), ("max_size", maximum)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UsageError(f"`{name}` must be at least 0, not {value:g}")
        if maximum is not None and maximum < minimum:
            raise UsageError(
                f"`max_size` must be at least `min_size`, {minimum:g}, not {maximum:g}"
            )
        self._minimum, self._maximum = minimum, maximum

    def process(self, result: FrameResult) -> FrameResult:
        """Return the result without them."""
        boxes = result.detections.boxes
        longest = max(result.frame.width, result.frame.height)
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        kept = sides >= _pixels(self._minimum, longest)
        if self._maximum is not None:
            kept &= sides <= _pixels(self._maximum, longest)
        if not kept.all():
            result.detections = result.detections.select(kept)
        return result


class Smoother(BaseProcessor):
    """Averages the boxes of each track over time, so that they tremble less.

    An exponential average over the times of the frames. Needs track ids; other detections are not
    changed.

    Args:
        seconds: Time constant; larger values are steadier and lag more.

    Raises:
        UsageError: If it is not between 0 and 10.
    """

    name = "smooth"

    def __init__(self, seconds: float = 0.1) -> None:
        if not 0 < seconds <= 10:
            raise UsageError(f"`smooth` must be above 0 and at most 10 seconds, not {seconds:g}")
        self._seconds = seconds
        self._boxes: dict[int, tuple[float, NDArray[np.float32]]] = {}

    def process(self, result: FrameResult) -> FrameResult:
        """Return the result with smoothed boxes."""
        detections, time = result.detections, result.frame.time
        if detections.track_ids is None:
            return result
        boxes = detections.boxes.copy()
        for row, number in enumerate(detections.track_ids.tolist()):
            if number < 0:
                continue
            before = self._boxes.get(number)
            if before is not None and time - before[0] < _MEMORY:
                weight = 1 - math.exp(-(time - before[0]) / self._seconds)
                boxes[row] = before[1] + weight * (boxes[row] - before[1])
            self._boxes[number] = time, boxes[row]
        self._boxes = {n: kept for n, kept in self._boxes.items() if time - kept[0] < _MEMORY}
        result.detections = replace(detections, boxes=boxes)
        return result

    def reset(self) -> None:
        """See `Processor.reset`."""
        self._boxes.clear()


def _pixels(size: float, longest: int) -> float:
    return size * longest if size <= 1 else size
