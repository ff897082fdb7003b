"""`Share`: how many frames a backend gets at once."""

from __future__ import annotations

from collections.abc import Sequence

from realtime_ssd.backends.base import Backend
from realtime_ssd.core.frames import Frame

__all__ = ["BatchSizer"]

AHEAD_SECONDS = 0.3  # that the frames under way may take: a program that is stopped waits for them
AHEAD_PIXELS = 48e6  # that they may have


class BatchSizer:
    """Gives a backend as many frames at once as it likes, while those under way are soon done.

    It begins with one batch, and doubles it after each round of tickets that were done in time. A
    slow network, and a consumer who is slow with the results, thus get few.

    Args:
        backend: Who gets them.
    """

    def __init__(self, backend: Backend) -> None:
        self._batch, self._most = backend.max_batch, backend.max_submit
        self._places = backend.max_in_flight
        self._frames = float(self._batch)
        self._pixels = 1  # of the largest frame so far
        self._done = 0

    def now(self) -> int:
        """Say how many frames the backend gets next: one batch or several whole ones."""
        fitting = min(self._frames, AHEAD_PIXELS / (self._pixels * self._places))
        return max(1, int(fitting / self._batch)) * self._batch

    def see(self, frames: Sequence[Frame]) -> None:
        """Note how large the frames are."""
        self._pixels = max(self._pixels, *(frame.width * frame.height for frame in frames))

    def learn(self, frames: int, seconds: float) -> None:
        """Note that `frames` in one ticket were done, with their results, after `seconds`."""
        room = AHEAD_SECONDS / max(seconds, 1e-6)
        if room < 1:
            self._frames, self._done = max(self._batch, frames * room), 0
            return
        self._done += 1
        if self._done >= self._places and frames >= self.now():
            self._frames, self._done = min(self._most, frames * min(2.0, room)), 0
