"""`Tracker`: the same number for the same object in every frame, by the package `trackers`."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.extras import require
from realtime_ssd.core.results import FrameResult
from realtime_ssd.processors.base import BaseProcessor
from realtime_ssd.processors.overlays import TraceOverlay
from realtime_ssd.sources.base import SourceInfo

if TYPE_CHECKING:
    from trackers.core.base import BaseTracker

__all__ = ["METHODS", "Tracker", "create_tracker"]

METHODS = {
    "bytetrack": "ByteTrackTracker",
    "ocsort": "OCSORTTracker",
    "botsort": "BoTSORTTracker",
    "sort": "SORTTracker",
}
"""Trackers by name, and their classes in the package `trackers`."""

_DEFAULTS = {"track_activation_threshold": 0.5, "high_conf_det_threshold": 0.5}
"""Scores of SSD are lower than those of the detectors that the package was tuned for."""

_MEMORY = 10.0
"""Seconds for which the classes and positions of an object that is no longer seen are kept."""


@dataclass(slots=True)
class _Track:
    """What is known about one object.

    Attributes:
        first_time: Time of its first frame in seconds of the stream.
        last_time: Time of its latest frame.
        votes: Sum of scores by class.
        points: Time and bottom center of its boxes, in pixels of the frame.
    """

    first_time: float
    last_time: float
    votes: dict[int, float] = field(default_factory=dict)
    points: deque[tuple[float, float, float]] = field(default_factory=deque)


class Tracker(BaseProcessor):
    """Numbers the objects of one source, each with one number in all frames.

    Detections get `track_ids`: the number of the object, from 1, or -1 while it is not confirmed.
    The class of an object is that with the largest sum of scores so far. Numbers are never used
    twice, also after the source was lost and all objects are new.

    Args:
        method: One of `METHODS`.
        frame_rate: Usual frames per second of the source, the time unit of the motion model. The
            real times of the frames are used also where frames are missing.
        traces: Seconds of the path of each object that are drawn; 0 draws none.
        min_seconds: Objects that are known for less time are removed from the result.
        parameters: Parameters of the tracker by name, as the package `trackers` defines them.

    Raises:
        UsageError: If the method or a parameter is unknown, or a value is out of range.
        RealtimeSSDError: If the package `trackers` is not installed.

    Example:
        >>> from realtime_ssd import Detector
        >>> with Detector("street") as detector:  # doctest: +SKIP
        ...     for frame, detections in detector.stream("demo", processors=[Tracker()]):
        ...         print(frame.index, detections.track_ids)
    """

    name = "track"

    def __init__(
        self,
        method: str = "bytetrack",
        *,
        frame_rate: float = 30.0,
        traces: float = 0.0,
        min_seconds: float = 0.0,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        if method not in METHODS:
            raise UsageError(f"`track` must be {', '.join(METHODS)} or off, not '{method}'")
        for name, value in (("traces", traces), ("min_track_seconds", min_seconds)):
            if not 0 <= value <= 3600:
                raise UsageError(f"`{name}` must be between 0 and 3600 seconds, not {value:g}")
        self._tracker = _create(method, frame_rate, parameters or {})
        self._uses_frames = method == "botsort"
        self._traces, self._min_seconds = traces, min_seconds
        self._tracks: dict[int, _Track] = {}
        self._first_id, self._last_id = 1, 0

    def process(self, result: FrameResult) -> FrameResult:
        """Return the result with track ids, and with classes by vote."""
        detections, time = result.detections, result.frame.time
        ids = self._match(result)
        classes = detections.class_ids.copy()
        for row, number in enumerate(ids.tolist()):
            if number >= 0:
                classes[row] = self._observe(number, row, detections, time)
        result.detections = replace(detections, track_ids=ids, class_ids=classes)
        self._forget(time)
        if self._min_seconds:
            result.detections = result.detections.select(self._is_established(ids, time))
        if self._traces:
            result.annotators = (self._overlay(time), *result.annotators)
        return result

    def _match(self, result: FrameResult) -> NDArray[np.int64]:
        """Return the track id of each detection, -1 for none."""
        import supervision

        detections = result.detections
        found = supervision.Detections(
            xyxy=detections.boxes,
            confidence=detections.scores,
            class_id=detections.class_ids.astype(int),
            data={"row": np.arange(len(detections))},
        )
        image = result.frame.image if self._uses_frames else None
        tracked = self._tracker.update(found, image, timestamp=result.frame.time)
        ids = np.full(len(detections), -1, np.int64)
        if len(tracked) and tracked.tracker_id is not None:
            numbers = np.asarray(tracked.tracker_id, np.int64)
            ids[tracked.data["row"]] = np.where(numbers >= 0, numbers + self._first_id, -1)
            self._last_id = max(self._last_id, int(ids.max()))
        return ids

    def _observe(self, number: int, row: int, detections: Detections, time: float) -> int:
        """Update a track with one detection; return its class by vote."""
        track = self._tracks.setdefault(number, _Track(time, time))
        track.last_time = time
        class_id = int(detections.class_ids[row])
        score = float(detections.scores[row])
        track.votes[class_id] = track.votes.get(class_id, 0.0) + score
        if self._traces:
            x1, _, x2, y2 = detections.boxes[row].tolist()
            track.points.append((time, (x1 + x2) / 2, y2))
        return max(track.votes, key=track.votes.__getitem__)

    def _is_established(self, ids: NDArray[np.int64], time: float) -> NDArray[np.bool_]:
        return np.array(
            [
                number >= 0 and time - self._tracks[number].first_time + 1e-6 >= self._min_seconds
                for number in ids.tolist()
            ],
            bool,
        )

    def _forget(self, time: float) -> None:
        memory = max(_MEMORY, self._traces)
        for number in [n for n, t in self._tracks.items() if time - t.last_time > memory]:
            del self._tracks[number]

    def _overlay(self, time: float) -> TraceOverlay:
        """Return the paths of the last seconds; earlier points are dropped."""
        paths = []
        for number, track in self._tracks.items():
            while track.points and time - track.points[0][0] > self._traces:
                track.points.popleft()
            if len(track.points) > 1 and time - track.last_time <= 1.0:
                paths.append((number, np.array(track.points, np.float32)[:, 1:]))
        return TraceOverlay(tuple(paths))

    def reset(self) -> None:
        """See `Processor.reset`."""
        self._tracker.reset()
        self._tracks.clear()
        self._first_id = self._last_id + 1


def create_tracker(info: SourceInfo, argument: str) -> Tracker:
    """Return a tracker for `--processor track[:METHOD]`."""
    return Tracker(argument or "bytetrack", frame_rate=float(info.rate or 30))


def _create(method: str, frame_rate: float, parameters: Mapping[str, Any]) -> BaseTracker:
    require("track", "trackers", "supervision", purpose="tracking")
    import trackers

    cls = getattr(trackers, METHODS[method])
    known = set(inspect.signature(cls.__init__).parameters) - {"self", "frame_rate"}
    for name in parameters:
        if name not in known:
            raise UsageError(
                f"tracker '{method}' has no parameter '{name}'; it has {', '.join(sorted(known))}"
            )
    values = {name: value for name, value in _DEFAULTS.items() if name in known}
    try:
        tracker: BaseTracker = cls(frame_rate=frame_rate, **{**values, **parameters})
    except (TypeError, ValueError) as error:
        raise UsageError(f"tracker '{method}' refuses its parameters: {error}") from None
    return tracker
