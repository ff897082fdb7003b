"""`Zone` and `Line`: events of tracked objects, and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.results import Event, FrameResult
from realtime_ssd.processors.base import BaseProcessor
from realtime_ssd.processors.overlays import ShapeOverlay
from realtime_ssd.processors.zone_shapes import (
    ANCHORS,
    Anchor,
    Point,
    Shape,
    anchor_points,
    segments_cross,
    side_of,
)

__all__ = ["Line", "Zone"]

_ABSENCE = 2.0
"""Seconds after which an object that is no longer seen has left its zone."""

_ROUNDING = 1e-6
"""Seconds by which differences of frame times are inexact."""

OnEvent = Callable[[str, Event], None]
"""Called with the source and each event."""


class _ShapeProcessor(BaseProcessor):
    """What zones and lines share: the shape in pixels, events and the overlay."""

    def __init__(
        self,
        shape: Shape,
        anchor: Anchor,
        min_seconds: float,
        color: int,
        on_event: OnEvent | None,
    ) -> None:
        if anchor not in ANCHORS:
            raise UsageError(f"`anchor` must be {', '.join(ANCHORS)}, not '{anchor}'")
        if not 0 <= min_seconds <= 3600:
            raise UsageError(f"`min_zone_seconds` must be between 0 and 3600, not {min_seconds:g}")
        self.name, self.shape = shape.name, shape
        self._anchor: Anchor = anchor
        self._min_seconds, self._color, self._on_event = min_seconds, color, on_event
        self._size = (0, 0)
        self._points: NDArray[np.float64] = np.zeros((0, 2))

    def _fit(self, result: FrameResult) -> None:
        """Convert the shape to pixels of the frame."""
        size = result.frame.width, result.frame.height
        if size != self._size:
            self._points, self._size = self.shape.to_pixels(*size), size

    def _report(self, result: FrameResult, kind: str, time: float, **data: Any) -> None:
        event = Event(kind, round(time, 6), data)
        result.events.append(event)
        if self._on_event is not None:
            self._on_event(result.frame.source, event)

    def _draw(self, result: FrameResult, text: str) -> None:
        overlay = ShapeOverlay(self._points.astype(np.float32), text, self._color)
        result.annotators = (overlay, *result.annotators)


@dataclass(slots=True)
class _Visit:
    """A stay of one object in a zone.

    Attributes:
        label: Class of the object.
        entered: Time of its first frame inside, in seconds of the stream.
        seen: Time of its latest frame inside.
        outside_since: Time of its first frame outside after that; None while inside.
        reported: Whether its "enter" was reported.
        dwelled: Whether its "dwell" was reported.
    """

    label: str
    entered: float
    seen: float
    outside_since: float | None = None
    reported: bool = False
    dwelled: bool = False


class Zone(_ShapeProcessor):
    """Reports which objects enter and leave a polygon, how long they stay, and how many are in it.

    Events: "enter" and "leave" (with `seconds`) of each object, "dwell" once it stayed long
    enough, and "count" with the objects of each class whenever that changes. Their data hold the
    zone, and the class and track id of the object. Detections get the column `zones`, a list of
    names. Objects without a track id count, but neither enter nor leave.

    Args:
        shape: Polygon.
        anchor: Point of the box that must be inside.
        dwell: Seconds after which "dwell" is reported; 0 never does.
        min_seconds: Seconds that an object must be inside, or outside, to have entered or left.
        color: Index of the color.
        on_event: Called with the source and each event.

    Raises:
        UsageError: If a value is out of range.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        anchor: Anchor = "bottom_center",
        dwell: float = 0.0,
        min_seconds: float = 0.0,
        color: int = 0,
        on_event: OnEvent | None = None,
    ) -> None:
        if len(shape.points) < 3:
            raise UsageError(f"zone '{shape.name}' needs at least 3 corners")
        if not 0 <= dwell <= 1e6:
            raise UsageError(f"`dwell` must be between 0 and 1000000 seconds, not {dwell:g}")
        super().__init__(shape, anchor, min_seconds, color, on_event)
        self._dwell = dwell
        self._visits: dict[int, _Visit] = {}
        self._lost: list[tuple[int, _Visit]] = []
        self._counts: Counter[str] = Counter()

    def process(self, result: FrameResult) -> FrameResult:
        """Return the result with events and the column `zones`."""
        self._fit(result)
        detections, time = result.detections, result.frame.time
        self._report_lost(result)
        inside = self._contains(detections)
        tracks = detections.track_ids
        if tracks is not None:
            for row, number in enumerate(tracks.tolist()):
                if number >= 0:
                    self._observe(number, detections[row].label, inside[row], time)
            self._update(result, time)
        self._count(result, inside, time)
        result.detections = _with_zone(detections, inside, self.name)
        self._draw(result, f"{self.name}: {inside.sum()}")
        return result

    def _contains(self, detections: Detections) -> NDArray[np.bool_]:
        corners = self._points.astype(np.float32).reshape(-1, 1, 2)
        points = anchor_points(detections.boxes, self._anchor).tolist()
        return np.array([cv2.pointPolygonTest(corners, p, False) >= 0 for p in points], bool)

    def _observe(self, number: int, label: str, inside: bool, time: float) -> None:
        visit = self._visits.get(number)
        if inside:
            if visit is None:
                visit = self._visits[number] = _Visit(label, time, time)
            visit.seen, visit.label, visit.outside_since = time, label, None
        elif visit is not None and not visit.reported:
            del self._visits[number]
        elif visit is not None and visit.outside_since is None:
            visit.outside_since = time

    def _update(self, result: FrameResult, time: float) -> None:
        """Report what the visits have become."""
        for number, visit in list(self._visits.items()):
            stayed = visit.seen - visit.entered + _ROUNDING
            data = {"zone": self.name, "label": visit.label, "track_id": number}
            if not visit.reported and stayed >= self._min_seconds:
                visit.reported = True
                self._report(result, "enter", visit.entered, **data)
            if visit.reported and self._dwell and not visit.dwelled and stayed >= self._dwell:
                visit.dwelled = True
                self._report(result, "dwell", time, **data, seconds=round(stayed, 3))
            if self._has_left(visit, time):
                del self._visits[number]
                if visit.reported:
                    left = visit.seen if visit.outside_since is None else visit.outside_since
                    self._report(result, "leave", left, **data, seconds=round(stayed, 3))

    def _has_left(self, visit: _Visit, time: float) -> bool:
        if visit.outside_since is not None:
            return time - visit.outside_since + _ROUNDING >= self._min_seconds
        return time - visit.seen > _ABSENCE

    def _count(self, result: FrameResult, inside: NDArray[np.bool_], time: float) -> None:
        ids = result.detections.class_ids[inside].tolist()
        counts = Counter(result.detections.label_of(number) for number in ids)
        if counts != self._counts:
            self._counts = counts
            self._report(result, "count", time, zone=self.name, counts=dict(sorted(counts.items())))

    def reset(self) -> None:
        """See `Processor.reset`; objects inside have left, which the next frame reports."""
        self._lost += [item for item in self._visits.items() if item[1].reported]
        self._visits.clear()

    def _report_lost(self, result: FrameResult) -> None:
        for number, visit in self._lost:
            data = {"zone": self.name, "label": visit.label, "track_id": number}
            stayed = round(visit.seen - visit.entered, 3)
            self._report(result, "leave", visit.seen, **data, seconds=stayed)
        self._lost.clear()


@dataclass(slots=True)
class _Side:
    """Where one object is relative to a line.

    Attributes:
        side: 1 or -1, confirmed.
        point: Its latest position on that side.
        seen: Time of its latest frame.
        changed: Time of its first frame on the other side after that; None while on `side`.
        crosses: Whether the way from `point` to the other side went through the line.
    """

    side: int
    point: Point
    seen: float
    changed: float | None = None
    crosses: bool = False


class Line(_ShapeProcessor):
    """Counts objects that cross a line, by class and direction.

    An object that is hidden while it crosses counts when it is seen again. The event "cross" has
    the line, the class and track id of the object, and the direction: "in" from the right of the
    line to its left as seen from its first end to its second on the picture, else "out".

    Args:
        shape: The line.
        anchor: Point of the box that must cross.
        min_seconds: Seconds that an object must be on the other side to have crossed.
        color: Index of the color.
        on_event: Called with the source and each event.

    Raises:
        UsageError: If a value is out of range.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        anchor: Anchor = "bottom_center",
        min_seconds: float = 0.0,
        color: int = 0,
        on_event: OnEvent | None = None,
    ) -> None:
        if len(shape.points) != 2:
            raise UsageError(f"line '{shape.name}' needs exactly 2 ends")
        super().__init__(shape, anchor, min_seconds, color, on_event)
        self._sides: dict[int, _Side] = {}
        self.counts: dict[str, Counter[str]] = {"in": Counter(), "out": Counter()}

    def process(self, result: FrameResult) -> FrameResult:
        """Return the result with the crossings of this frame as events."""
        self._fit(result)
        detections, time = result.detections, result.frame.time
        if detections.track_ids is not None:
            points = anchor_points(detections.boxes, self._anchor).tolist()
            for row, number in enumerate(detections.track_ids.tolist()):
                if number >= 0:
                    self._observe(result, number, detections[row].label, tuple(points[row]), time)
            self._forget(time)
        total_in, total_out = (self.counts[way].total() for way in ("in", "out"))
        self._draw(result, f"{self.name}: in {total_in}, out {total_out}")
        return result

    def _observe(
        self, result: FrameResult, number: int, label: str, point: Point, time: float
    ) -> None:
        start, end = (tuple(corner) for corner in self._points.tolist())
        value = side_of(start, end, point)
        if value == 0:
            return
        side = 1 if value > 0 else -1
        state = self._sides.setdefault(number, _Side(side, point, time))
        state.seen = time
        if side == state.side:
            state.point, state.changed = point, None
            return
        if state.changed is None:
            state.changed = time
            state.crosses = segments_cross(state.point, point, start, end)
        if time - state.changed + _ROUNDING >= self._min_seconds:
            if state.crosses:
                self._cross(result, number, label, side, state.changed)
            self._sides[number] = _Side(side, point, time)

    def _cross(self, result: FrameResult, number: int, label: str, side: int, time: float) -> None:
        direction = "in" if side < 0 else "out"
        self.counts[direction][label] += 1
        data = {"line": self.name, "label": label, "track_id": number, "direction": direction}
        self._report(result, "cross", time, **data)

    def _forget(self, time: float) -> None:
        for number in [n for n, s in self._sides.items() if time - s.seen > 5 * _ABSENCE]:
            del self._sides[number]

    def reset(self) -> None:
        """See `Processor.reset`; counts are kept."""
        self._sides.clear()


def _with_zone(detections: Detections, inside: NDArray[np.bool_], name: str) -> Detections:
    """Return the detections with a zone added to the column `zones`."""
    values = np.empty(len(detections), object)
    earlier = detections.columns.get("zones")
    for row in range(len(detections)):
        zones = [] if earlier is None else earlier[row]
        values[row] = [*zones, name] if inside[row] else list(zones)
    return replace(detections, columns={**detections.columns, "zones": values})
