"""Frame counts by outcome and stage latencies, and the interface of observers of a run."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from math import ceil, log
from typing import Any, Literal, Protocol

__all__ = ["Histogram", "Observer", "Outcome", "SourceCounts", "SourceState", "Statistics"]

Outcome = Literal["captured", "processed", "replaced", "stopped"]
"""What happened to a frame. Every captured frame ends as one of the others: "processed" when its
result reached the sinks, "replaced" when a newer frame of a live source took its place in the
queue, "stopped" when the run ended first."""

SourceState = Literal["waiting", "online", "offline", "ended"]
"""State of a source: "waiting" before its first frame."""

_SMALLEST_SECONDS = 1e-6
_BUCKET_RATIO = 1.02
_LOG_RATIO = log(_BUCKET_RATIO)
_RECENT_FRAMES = 64


class Observer(Protocol):
    """Receives counts and durations while a pipeline runs, from all of its threads.

    Calls must return quickly. An observer that raises is logged and not called again.
    """

    def on_frame(self, source: str, outcome: Outcome) -> None:
        """Count one frame of a source."""
        ...

    def on_stage(self, source: str, stage: str, seconds: float) -> None:
        """Record how long a stage took.

        Args:
            source: Name of the source; empty where a batch held frames of several sources.
            stage: "capture", "wait", a stage of the backend such as "network", the name of a
                processor, "sinks", or "end_to_end" (from capture to the end of the sinks).
            seconds: Duration.
        """
        ...

    def on_state(self, source: str, state: SourceState) -> None:
        """Record the new state of a source."""
        ...


class Histogram:
    """Durations counted in buckets 2 % apart, so that percentiles need bounded memory.

    Attributes:
        count: Number of durations.
        sum: Their sum in seconds.
        maximum: The longest one in seconds.

    Example:
        >>> durations = Histogram()
        >>> for milliseconds in range(1, 101):
        ...     durations.add(milliseconds / 1000)
        >>> round(durations.percentile(0.5), 2)
        0.05
    """

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self.maximum = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Add a duration."""
        self.count += 1
        self.sum += seconds
        self.maximum = max(self.maximum, seconds)
        ratio = max(seconds, _SMALLEST_SECONDS) / _SMALLEST_SECONDS
        self._buckets[int(log(ratio) / _LOG_RATIO)] += 1

    def percentile(self, fraction: float) -> float:
        """Return a percentile.

        Args:
            fraction: From 0 to 1; 0.5 is the median.

        Returns:
            Seconds, at most 2 % too high; 0.0 if there are no durations.
        """
        remaining = max(1, ceil(fraction * self.count))
        for bucket in sorted(self._buckets):
            remaining -= self._buckets[bucket]
            if remaining <= 0:
                upper = _SMALLEST_SECONDS * _BUCKET_RATIO ** (bucket + 1)
                return float(min(self.maximum, upper))
        return 0.0

    def to_dict(self) -> dict[str, float]:
        """Return p50, p90, p99 and max in milliseconds."""
        values = {
            "p50": self.percentile(0.5),
            "p90": self.percentile(0.9),
            "p99": self.percentile(0.99),
            "max": self.maximum,
        }
        return {name: round(seconds * 1000, 3) for name, seconds in values.items()}


@dataclass(slots=True)
class SourceCounts:
    """Frames of one source by outcome.

    Once a run is over, `captured` is the sum of `processed` and `dropped`.

    Attributes:
        captured: Frames read from the source.
        processed: Frames whose result reached the sinks.
        dropped: Frames without a result, by outcome: "replaced" or "stopped".
        losses: Number of times a live source was lost.
    """

    captured: int = 0
    processed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    losses: int = 0

    @property
    def unfinished(self) -> int:
        """Captured frames without an outcome so far."""
        return self.captured - self.processed - self.dropped.total()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "captured": self.captured,
            "processed": self.processed,
            "dropped": dict(sorted(self.dropped.items())),
            "losses": self.losses,
        }


class Statistics:
    """The `Observer` of every pipeline: counts and latencies of a whole run.

    Args:
        sources: Names of the sources.

    Attributes:
        sources: Counts by name of the source.
    """

    def __init__(self, sources: tuple[str, ...]) -> None:
        self.sources = {name: SourceCounts() for name in sources}
        self._states: dict[str, tuple[SourceState, float]] = {}
        self._stages: dict[str, Histogram] = {}
        self._lock = threading.Lock()
        self._recent: deque[float] = deque(maxlen=_RECENT_FRAMES)
        self._first_captured = 0.0
        self._last_processed = 0.0

    def on_frame(self, source: str, outcome: Outcome) -> None:
        """See `Observer.on_frame`."""
        with self._lock:
            counts = self.sources[source]
            if outcome == "captured":
                counts.captured += 1
                self._first_captured = self._first_captured or time.monotonic()
            elif outcome == "processed":
                counts.processed += 1
                self._last_processed = time.monotonic()
                self._recent.append(self._last_processed)
            else:
                counts.dropped[outcome] += 1

    def on_stage(self, source: str, stage: str, seconds: float) -> None:
        """See `Observer.on_stage`."""
        with self._lock:
            self._stages.setdefault(stage, Histogram()).add(seconds)

    def on_state(self, source: str, state: SourceState) -> None:
        """See `Observer.on_state`."""
        with self._lock:
            self._states[source] = state, time.time()
            if state == "offline":
                self.sources[source].losses += 1

    def state_of(self, source: str) -> tuple[SourceState, float]:
        """Return the state of a source, and since when in seconds of `time.time()`."""
        with self._lock:
            return self._states.get(source, ("waiting", 0.0))

    def unfinished(self) -> dict[str, int]:
        """Return the number of captured frames without an outcome, by source."""
        with self._lock:
            return {name: counts.unfinished for name, counts in self.sources.items()}

    @property
    def total(self) -> SourceCounts:
        """The sum over all sources."""
        with self._lock:
            counts = list(self.sources.values())
            return SourceCounts(
                sum(one.captured for one in counts),
                sum(one.processed for one in counts),
                sum((one.dropped for one in counts), Counter()),
                sum(one.losses for one in counts),
            )

    @property
    def fps(self) -> float:
        """Frames per second from the first captured frame to the last processed one."""
        seconds = self.seconds
        return self.total.processed / seconds if seconds > 0 else 0.0

    @property
    def seconds(self) -> float:
        """Seconds from the first captured frame to the last processed one; 0.0 before that."""
        return max(0.0, self._last_processed - self._first_captured)

    @property
    def recent_fps(self) -> float:
        """Frames per second over the last frames, for a display."""
        with self._lock:
            times = self._recent
            seconds = times[-1] - times[0] if len(times) > 1 else 0.0
            return (len(times) - 1) / seconds if seconds > 0 else 0.0

    def latency(self, stage: str = "end_to_end", fraction: float = 0.5) -> float:
        """Return a percentile of a stage in seconds; 0.0 if the stage has not run."""
        with self._lock:
            histogram = self._stages.get(stage)
            return histogram.percentile(fraction) if histogram else 0.0

    def total_seconds(self, stage: str) -> float:
        """Return the seconds a stage took in all; 0.0 if it has not run."""
        with self._lock:
            histogram = self._stages.get(stage)
            return histogram.sum if histogram else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; durations in milliseconds."""
        total, fps = self.total, self.fps
        with self._lock:
            return {
                **total.to_dict(),
                "fps": round(fps, 3),
                "seconds": round(self.seconds, 3),
                "latency_ms": {name: stage.to_dict() for name, stage in self._stages.items()},
                "sources": {name: counts.to_dict() for name, counts in self.sources.items()},
            }
