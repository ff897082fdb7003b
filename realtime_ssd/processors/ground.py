"""`GroundPlane`: positions and speeds in meters, from four or more known points of the ground."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.results import FrameResult
from realtime_ssd.processors.base import BaseProcessor
from realtime_ssd.processors.zone_shapes import anchor_points

__all__ = ["GroundPlane", "parse_calibration"]

Correspondence = tuple[tuple[float, float], tuple[float, float]]

_MIN_POINTS = 4
_TOLERANCE = 0.05
"""Largest error of a calibration point, as a fraction of the extent of all points."""


def parse_calibration(text: str) -> list[Correspondence]:
    """Return pairs of a pixel and its position in meters.

    Args:
        text: `x,y=X,Y` four times or more, separated by spaces or semicolons.

    Raises:
        UsageError: If the text is malformed or has fewer than four pairs.

    Example:
        >>> parse_calibration("0,0=0,0 100,0=5,0 100,50=5,9 0,50=0,9")[1]
        ((100.0, 0.0), (5.0, 0.0))
    """
    pairs = []
    for item in text.replace(";", " ").split():
        try:
            (x, y), (meters_x, meters_y) = (
                [float(value) for value in side.split(",")] for side in item.split("=")
            )
        except ValueError:
            raise UsageError(
                f"'{item}' in `calibrate` is not x,y=X,Y: a pixel and its place in meters"
            ) from None
        pairs.append(((x, y), (meters_x, meters_y)))
    if len(pairs) < _MIN_POINTS:
        raise UsageError(f"`calibrate` needs at least {_MIN_POINTS} points, not {len(pairs)}")
    return pairs


class GroundPlane(BaseProcessor):
    """Measures where tracked objects stand and how fast they move.

    Detections get the columns `position` ([X, Y] in meters, of the bottom center of the box) and
    `speed` (meters per second, or null while a track is too short).

    Args:
        points: Pixels and their positions in meters, at least four, no three of them on one line.
        window: Seconds over which a speed is measured.

    Raises:
        UsageError: If the points determine no plane.
    """

    name = "ground_plane"

    def __init__(self, points: Sequence[Correspondence], window: float = 0.5) -> None:
        if len(points) < _MIN_POINTS:
            raise UsageError(f"`points` needs at least {_MIN_POINTS} of them, not {len(points)}")
        pixels, meters = (np.array(side, np.float64) for side in zip(*points, strict=True))
        self._matrix = _homography(pixels, meters)
        self._window = window
        self._tracks: dict[int, deque[tuple[float, float, float]]] = {}

    def process(self, result: FrameResult) -> FrameResult:
        """Return the result with the columns `position` and `speed`."""
        detections, time = result.detections, result.frame.time
        meters = self._to_meters(anchor_points(detections.boxes, "bottom_center"))
        positions, speeds = np.empty(len(detections), object), np.empty(len(detections), object)
        ids = [-1] * len(detections) if detections.track_ids is None else detections.track_ids
        for row, number in enumerate(ids):
            x, y = meters[row].tolist()
            positions[row] = [round(x, 3), round(y, 3)] if np.isfinite(meters[row]).all() else None
            speeds[row] = self._speed(int(number), time, x, y) if number >= 0 else None
        columns = {**detections.columns, "position": positions, "speed": speeds}
        result.detections = replace(detections, columns=columns)
        self._tracks = {n: p for n, p in self._tracks.items() if time - p[-1][0] <= self._window}
        return result

    def _to_meters(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return N × 2 positions; not finite above the horizon."""
        points = np.column_stack([pixels, np.ones(len(pixels))]) @ self._matrix.T
        scale = np.where(points[:, 2:] > 0, points[:, 2:], np.nan)
        meters: NDArray[np.float64] = points[:, :2] / scale
        return meters

    def _speed(self, number: int, time: float, x: float, y: float) -> float | None:
        """Return the slope of a straight line through the positions of the window."""
        points = self._tracks.setdefault(number, deque())
        if np.isfinite(x) and np.isfinite(y):
            points.append((time, x, y))
        while points and time - points[0][0] > self._window:
            points.popleft()
        if len(points) < 3 or time - points[0][0] < self._window / 2:
            if not points:
                del self._tracks[number]
            return None
        times, xs, ys = np.array(points).T
        slope = np.polyfit(times - times.mean(), np.stack([xs, ys], axis=1), 1)[0]
        return round(float(np.hypot(*slope)), 3)

    def reset(self) -> None:
        """See `Processor.reset`."""
        self._tracks.clear()


def _homography(pixels: NDArray[np.float64], meters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 3 × 3 matrix from pixels to meters, positive in front of the camera."""
    matrix, _ = cv2.findHomography(pixels, meters)
    if matrix is None or not np.isfinite(matrix).all():
        raise UsageError("the points of `calibrate` determine no plane; are three on one line?")
    found = np.column_stack([pixels, np.ones(len(pixels))]) @ np.asarray(matrix, np.float64).T
    same_side = (found[:, 2] > 0).all() or (found[:, 2] < 0).all()
    error = np.abs(found[:, :2] / found[:, 2:] - meters).max() if same_side else np.inf
    if error > _TOLERANCE * float(np.ptp(meters, axis=0).max()):
        raise UsageError(
            "the points of `calibrate` do not fit one plane: check their order, and that no three "
            "of four are on one line"
        )
    oriented: NDArray[np.float64] = np.asarray(matrix, np.float64) * np.sign(found[0, 2])
    return oriented
