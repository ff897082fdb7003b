"""The bounded queue between the capture threads and the inference thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from realtime_ssd.core.frames import Frame
from realtime_ssd.core.metrics import Observer

__all__ = ["FrameQueue", "SourceQueue"]

FILE_QUEUE_SIZE = 2
FILE_BATCH_TIMEOUT = 0.1
"""Seconds a batch of frames from files waits to be filled; only reached when a file stalls."""


@dataclass(slots=True, eq=False)
class SourceQueue:
    """Frames of one source that wait for inference.

    Attributes:
        name: Name of the source.
        live: Whether a full queue drops its oldest frame instead of blocking the source.
        maxsize: Frames that may wait; for a file it follows the size of the batches.
        limit: Frames to process in all; None for no limit.
        taken: Frames handed to inference so far.
        finished: Whether no more frames will arrive.
    """

    name: str
    live: bool
    maxsize: int = 1
    limit: int | None = None
    taken: int = 0
    finished: bool = False
    frames: deque[Frame] = field(default_factory=deque)

    def full(self) -> bool:
        """Return whether the queue holds `maxsize` frames."""
        return len(self.frames) >= self.maxsize

    def limit_reached(self) -> bool:
        """Return whether the frames taken (for a file: or waiting) reach the limit."""
        waiting = 0 if self.live else len(self.frames)
        return self.limit is not None and self.taken + waiting >= self.limit


class FrameQueue:
    """Frames of all sources on their way to inference.

    Files block while their queue is full and lose nothing. A live source replaces its oldest
    waiting frame, so that inference always receives the newest. Sources are served in turn.

    Args:
        sources: One queue for each source.
        observer: Notified of dropped frames.
        batch_timeout: Seconds a batch waits to be filled once it has a frame; None for the
            default: none if any source is live, 0.1 s otherwise.
    """

    def __init__(
        self,
        sources: list[SourceQueue],
        observer: Observer,
        batch_timeout: float | None = None,
    ) -> None:
        self._sources = sources
        self._observer = observer
        if batch_timeout is None:
            any_live = any(source.live for source in sources)
            batch_timeout = 0.0 if any_live else FILE_BATCH_TIMEOUT
        self._batch_timeout = batch_timeout
        self._changed = threading.Condition()
        self._closed = False
        self._next_source = 0

    def put(self, source: SourceQueue, frame: Frame) -> bool:
        """Add a frame, blocking while the queue of a file is full.

        Returns:
            False if the source may stop: its limit is reached, or the queue was closed.
        """
        with self._changed:
            self._wait(lambda: self._closed or source.live or not source.full())
            if self._closed or source.limit_reached():
                self._observer.on_frame(source.name, "stopped")
                return False
            if source.full():
                self._observer.on_frame(source.name, "replaced")
                if source.frames.popleft().discontinuity:
                    frame = replace(frame, discontinuity=True)
            source.frames.append(frame)
            self._changed.notify_all()
            return source.live or not source.limit_reached()

    def take(self, max_frames: int) -> list[Frame]:
        """Wait for the frames of the next batch.

        Args:
            max_frames: Largest number of frames to return.

        Returns:
            1 to `max_frames` frames, or none once all sources are finished or the queue is closed.
        """
        with self._changed:
            self._resize(max_frames)
            self._wait(lambda: self._closed or self._waiting() > 0 or self._all_finished())
            if self._batch_timeout and self._waiting() < max_frames:
                self._wait(
                    lambda: self._closed or self._waiting() >= max_frames or self._all_finished(),
                    self._batch_timeout,
                )
            taken = [] if self._closed else self._take_in_turn(max_frames)
            self._changed.notify_all()
            return taken

    def finish(self, source: SourceQueue) -> None:
        """Record that no more frames of a source will arrive."""
        with self._changed:
            source.finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """Unblock all threads; frames that wait are dropped as "stopped"."""
        with self._changed:
            if not self._closed:
                for source in self._sources:
                    for _ in source.frames:
                        self._observer.on_frame(source.name, "stopped")
                    source.frames.clear()
            self._closed = True
            self._changed.notify_all()

    def _resize(self, max_frames: int) -> None:
        """Allow files to read one frame more ahead than the next batch takes."""
        maxsize = max(FILE_QUEUE_SIZE, max_frames + 1)
        for source in self._sources:
            if not source.live and source.maxsize != maxsize:
                source.maxsize = maxsize
                self._changed.notify_all()

    def _wait(self, predicate: Callable[[], bool], timeout: float | None = None) -> None:
        self._changed.wait_for(predicate, timeout)

    def _waiting(self) -> int:
        return sum(len(source.frames) for source in self._sources)

    def _all_finished(self) -> bool:
        return all(source.finished for source in self._sources)

    def _take_in_turn(self, max_frames: int) -> list[Frame]:
        """Take frames, one of each source in turn, starting after the source served last."""
        taken: list[Frame] = []
        empty = 0
        while len(taken) < max_frames and empty < len(self._sources):
            source = self._sources[self._next_source]
            self._next_source = (self._next_source + 1) % len(self._sources)
            if not source.frames:
                empty += 1
                continue
            empty = 0
            taken.append(source.frames.popleft())
            source.taken += 1
            if source.live and source.limit_reached():
                source.finished = True
        return taken
