"""Sources for benchmarks: images in memory, or one file under several names."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.sources.base import BaseSource, Source, SourceInfo

__all__ = ["MemorySource", "RenamedSource"]


class MemorySource(BaseSource):
    """Delivers the same images in turn until it is interrupted.

    Args:
        images: H × W × 3, uint8, BGR.
        name: Name of the source.
        rate: Frames per second of a live source; None for a source that waits, like a file.
        frames: Number of frames; None for no limit.
    """

    def __init__(
        self,
        images: Sequence[Image],
        name: str = "memory",
        *,
        rate: float | None = None,
        frames: int | None = None,
    ) -> None:
        height, width = images[0].shape[:2]
        self.info = SourceInfo(name, width, height, live=rate is not None, frame_count=frames)
        self._images, self._rate, self._frames = images, rate, frames
        self._next, self._started_at = 0, 0.0
        self._interrupted = threading.Event()

    def read(self) -> Frame | None:
        """See `Source.read`; a live source waits until its next frame is due."""
        number = self._next
        if self._interrupted.is_set() or (self._frames is not None and number >= self._frames):
            return None
        if self._rate is not None:
            now = time.monotonic()
            self._started_at = self._started_at or now
            if self._interrupted.wait(max(0.0, self._started_at + number / self._rate - now)):
                return None
        self._next += 1
        return Frame(self._images[number % len(self._images)], number, self.info.name)

    def interrupt(self) -> None:
        """See `Source.interrupt`."""
        self._interrupted.set()


class RenamedSource(BaseSource):
    """A source under another name, so that several streams can read one file.

    Args:
        source: The source; closed with this one.
        name: Name to use instead of its own.
    """

    def __init__(self, source: Source, name: str) -> None:
        self._source = source
        self.info = replace(source.info, name=name)

    def open(self) -> None:
        """See `Source.open`."""
        self._source.open()

    def read(self) -> Frame | None:
        """See `Source.read`."""
        frame = self._source.read()
        return None if frame is None else replace(frame, source=self.info.name)

    def interrupt(self) -> None:
        """See `Source.interrupt`."""
        self._source.interrupt()

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()
