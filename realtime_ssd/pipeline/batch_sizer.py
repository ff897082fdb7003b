"""`BatchSizer`: the number of frames a backend receives in one call."""

from __future__ import annotations

from collections.abc import Sequence

from realtime_ssd.backends.base import Backend
from realtime_ssd.core.frames import Frame

__all__ = ["BatchSizer"]

MAX_SECONDS_IN_FLIGHT = 0.3
"""Seconds that the frames in flight may take: stopping the program waits for them."""

MAX_PIXELS_IN_FLIGHT = 48e6
"""Pixels that the frames in flight may hold, which bounds the memory."""


class BatchSizer:
    """Grows the number of frames in one call while calls return soon, and shrinks it when not.

    It starts with one batch and doubles after each full round of calls that were fast enough, up
    to the backend's `max_submit`. A slow network or a slow consumer of results keeps it small.

    Args:
        backend: The backend that receives the frames.
    """

    def __init__(self, backend: Backend) -> None:
        self._batch, self._max_submit = backend.max_batch, backend.max_submit
        self._max_in_flight = backend.max_in_flight
        self._frames = float(self._batch)
        self._pixels = 1
        self._fast_calls = 0

    def next_size(self) -> int:
        """Return the number of frames of the next call, a multiple of the batch size."""
        by_memory = MAX_PIXELS_IN_FLIGHT / (self._pixels * self._max_in_flight)
        return max(1, int(min(self._frames, by_memory) / self._batch)) * self._batch

    def observe_frames(self, frames: Sequence[Frame]) -> None:
        """Record the size of the frames of a call."""
        self._pixels = max(self._pixels, *(frame.width * frame.height for frame in frames))

    def observe_latency(self, frames: int, seconds: float) -> None:
        """Record that the results of a call with `frames` frames were consumed after `seconds`."""
        headroom = MAX_SECONDS_IN_FLIGHT / max(seconds, 1e-6)
        if headroom < 1:
            self._frames, self._fast_calls = max(self._batch, frames * headroom), 0
            return
        self._fast_calls += 1
        if self._fast_calls >= self._max_in_flight and frames >= self.next_size():
            grown = frames * min(2.0, headroom)
            self._frames, self._fast_calls = min(self._max_submit, grown), 0
