"""The bounded hand-off between the capture threads and the inference thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from realtime_ssd.core.frames import Frame
from realtime_ssd.core.metrics import Statistics

__all__ = ["FrameQueue", "SourceQueue"]

FILE_ROOM = 2
FILL_SECONDS = 0.1


@dataclass(slots=True, eq=False)
class SourceQueue:
    """The frames of one source that wait for inference.

    Attributes:
        name: Name of the source.
        live: Whether a full lane drops its oldest frame rather than make the source wait.
        room: Frames that may wait; of a file it follows from how many are taken at once.
        limit: Frames to take in all; None for no limit.
        taken: Frames handed to inference so far.
        finished: Whether no more frames come.
    """

    name: str
    live: bool
    room: int = 1
    limit: int | None = None
    taken: int = 0
    finished: bool = False
    frames: deque[Frame] = field(default_factory=deque)

    def full(self) -> bool:
        """Tell whether every place is taken."""
        return len(self.frames) >= self.room

    def satisfied(self) -> bool:
        """Tell whether the frames taken (of a file: or waiting) reach the limit."""
        waiting = 0 if self.live else len(self.frames)
        return self.limit is not None and self.taken + waiting >= self.limit


class FrameQueue:
    """Frames of all sources on their way to inference.

    Files wait for room and lose nothing; a live source replaces its oldest waiting frame, so that
    inference always gets the newest. Lanes are served in turn, so none is held up by another.

    Args:
        lanes: One for each source.
        statistics: Counts the drops.
    """

    def __init__(self, lanes: list[SourceQueue], statistics: Statistics) -> None:
        self._lanes = lanes
        self._statistics = statistics
        self._changed = threading.Condition()
        self._closed = False
        self._turn = 0

    def put(self, lane: SourceQueue, frame: Frame) -> bool:
        """Hand a frame over, waiting for room if the source is a file.

        Returns:
            False if the source need not go on: the limit is reached, or the inbox was closed.
        """
        with self._changed:
            self._wait(lambda: self._closed or lane.live or not lane.full())
            if self._closed or lane.satisfied():
                self._statistics.drop(frame.source, "stopped")
                return False
            if lane.full():
                self._statistics.drop(frame.source, "replaced")
                lane.frames.popleft()
            lane.frames.append(frame)
            self._changed.notify_all()
            return lane.live or not lane.satisfied()

    def take(self, most: int) -> list[Frame]:
        """Wait for frames.

        A batch waits a moment to be filled while all its sources are files, which get room for it;
        frames of live sources go at once.

        Args:
            most: Largest number of frames to give.

        Returns:
            1 to `most` frames, or none once all lanes are finished or the inbox was closed.
        """
        with self._changed:
            self._make_room(most)
            self._wait(lambda: self._closed or self._waiting() > 0 or self._ended())
            if most > 1 and not any(lane.live for lane in self._lanes):
                self._wait(
                    lambda: self._closed or self._waiting() >= most or self._ended(), FILL_SECONDS
                )
            taken = [] if self._closed else self._collect(most)
            self._changed.notify_all()
            return taken

    def finish(self, lane: SourceQueue) -> None:
        """Say that no more frames come from a source."""
        with self._changed:
            lane.finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """Make everybody who waits return; frames that wait are dropped as "stopped"."""
        with self._changed:
            if not self._closed:
                for lane in self._lanes:
                    self._statistics.drop(lane.name, "stopped", len(lane.frames))
                    lane.frames.clear()
            self._closed = True
            self._changed.notify_all()

    def _make_room(self, most: int) -> None:
        """Let files read as many frames ahead as will be taken, and one more."""
        room = max(FILE_ROOM, most + 1)
        for lane in self._lanes:
            if not lane.live and lane.room != room:
                lane.room = room
                self._changed.notify_all()

    def _wait(self, until: Callable[[], bool], seconds: float | None = None) -> None:
        self._changed.wait_for(until, seconds)

    def _waiting(self) -> int:
        return sum(len(lane.frames) for lane in self._lanes)

    def _ended(self) -> bool:
        return all(lane.finished for lane in self._lanes)

    def _collect(self, most: int) -> list[Frame]:
        """Take frames, one of each lane in turn."""
        taken: list[Frame] = []
        empty = 0
        while len(taken) < most and empty < len(self._lanes):
            lane = self._lanes[self._turn]
            self._turn = (self._turn + 1) % len(self._lanes)
            if not lane.frames:
                empty += 1
                continue
            empty = 0
            taken.append(lane.frames.popleft())
            lane.taken += 1
            if lane.live and lane.satisfied():
                lane.finished = True
        return taken
