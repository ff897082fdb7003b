"""What happened: frames by fate, and how long every stage took."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from math import ceil, log
from typing import Any

__all__ = ["Counts", "Histogram", "Statistics"]

_SMALLEST = 1e-6
_RATIO = 1.02
_STEP = log(_RATIO)
_RECENT = 64


class Histogram:
    """Durations counted in buckets 2 % apart, so that percentiles need no list of them all.

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

    def add(self, seconds: float, times: int = 1) -> None:
        """Count a duration, once or several times."""
        self.count += times
        self.sum += seconds * times
        self.maximum = max(self.maximum, seconds)
        self._buckets[int(log(max(seconds, _SMALLEST) / _SMALLEST) / _STEP)] += times

    def percentile(self, share: float) -> float:
        """Give the duration in seconds that `share` (0 to 1) of all do not exceed, within 2 %."""
        left = max(1, ceil(share * self.count))
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return float(min(self.maximum, _SMALLEST * _RATIO ** (bucket + 1)))
        return 0.0

    def to_dict(self) -> dict[str, float]:
        """Give p50, p90, p99 and max in milliseconds."""
        values = {
            "p50": self.percentile(0.5),
            "p90": self.percentile(0.9),
            "p99": self.percentile(0.99),
            "max": self.maximum,
        }
        return {name: round(seconds * 1000, 3) for name, seconds in values.items()}


@dataclass(slots=True)
class Counts:
    """The frames of one source by their fate; `captured` is always the sum of the others.

    Attributes:
        captured: Frames the source gave.
        processed: Frames whose detections went to the sinks.
        dropped: Frames left out, by cause: "replaced" by a newer one of a live source, or
            "stopped" because the program ended first.
        losses: How often the source was lost.
    """

    captured: int = 0
    processed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    losses: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Give plain values ready for JSON."""
        return {
            "captured": self.captured,
            "processed": self.processed,
            "dropped": dict(sorted(self.dropped.items())),
            "losses": self.losses,
        }


class Statistics:
    """Counts and durations of a whole run, written by all threads.

    Args:
        sources: Names of the sources.
    """

    def __init__(self, sources: tuple[str, ...]) -> None:
        self.sources = {name: Counts() for name in sources}
        self._stages: dict[str, Histogram] = {}
        self._lock = threading.Lock()
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._first = 0.0
        self._last = 0.0

    def capture(self, source: str, seconds: float) -> None:
        """Count a captured frame and the time its `read` took."""
        with self._lock:
            self.sources[source].captured += 1
            self._stage("capture", seconds)
            if not self._first:
                self._first = time.monotonic()

    def drop(self, source: str, cause: str, frames: int = 1) -> None:
        """Count frames that were left out."""
        if frames:
            with self._lock:
                self.sources[source].dropped[cause] += frames

    def settle(self) -> None:
        """Count the captured frames whose fate is open as "stopped", once the run is over."""
        with self._lock:
            for counts in self.sources.values():
                left = counts.captured - counts.processed - counts.dropped.total()
                if left > 0:
                    counts.dropped["stopped"] += left

    def lose(self, source: str) -> None:
        """Count a loss of a live source."""
        with self._lock:
            self.sources[source].losses += 1

    def stage(self, name: str, seconds: float, times: int = 1) -> None:
        """Count the time a stage took, `times` in a row."""
        with self._lock:
            self._stage(name, seconds, times)

    def process(self, source: str, end_to_end: float | None) -> None:
        """Count a frame that reached the sinks, and the time since it was captured if it counts."""
        with self._lock:
            self.sources[source].processed += 1
            if end_to_end is not None:
                self._stage("end_to_end", end_to_end)
            self._last = time.monotonic()
            self._recent.append(self._last)

    def _stage(self, name: str, seconds: float, times: int = 1) -> None:
        self._stages.setdefault(name, Histogram()).add(seconds, times)

    @property
    def total(self) -> Counts:
        """The sum over all sources."""
        with self._lock:
            counts = list(self.sources.values())
            return Counts(
                sum(one.captured for one in counts),
                sum(one.processed for one in counts),
                sum((one.dropped for one in counts), Counter()),
                sum(one.losses for one in counts),
            )

    @property
    def fps(self) -> float:
        """Frames per second from the first captured frame to the last processed one."""
        seconds = self._last - self._first
        return self.total.processed / seconds if seconds > 0 else 0.0

    @property
    def recent_fps(self) -> float:
        """Frames per second over the last frames, for a display."""
        with self._lock:
            times = self._recent
            span = times[-1] - times[0] if len(times) > 1 else 0.0
            return (len(times) - 1) / span if span > 0 else 0.0

    def latency(self, stage: str = "end_to_end", share: float = 0.5) -> float:
        """Give a percentile of a stage in seconds; 0.0 if the stage has not run."""
        with self._lock:
            found = self._stages.get(stage)
            return found.percentile(share) if found else 0.0

    def spent(self, stage: str) -> float:
        """Give the seconds a stage took in all; 0.0 if it has not run."""
        with self._lock:
            found = self._stages.get(stage)
            return found.sum if found else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values ready for JSON; durations in milliseconds."""
        total, fps = self.total, self.fps
        with self._lock:
            return {
                **total.to_dict(),
                "fps": round(fps, 3),
                "seconds": round(max(0.0, self._last - self._first), 3),
                "latency_ms": {name: one.to_dict() for name, one in self._stages.items()},
                "sources": {name: one.to_dict() for name, one in self.sources.items()},
            }
