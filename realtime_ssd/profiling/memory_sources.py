"""Sources for measuring: pictures from memory, or one file under several names."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.sources.base import BaseSource, Source, SourceInfo

__all__ = ["Memory", "Renamed"]


class Memory(BaseSource):
    """Gives the same pictures in turn until it is told to stop.

    Args:
        images: H × W × 3 BGR pictures.
        name: Its name.
        rate: Frames a second of a live source; None for a file, which waits.
        frames: Frames to give; None for no limit.
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
        self._next, self._begun = 0, 0.0
        self._stopped = threading.Event()

    def read(self) -> Frame | None:
        """See `Source.read`; a live source waits for the moment of its next frame."""
        number = self._next
        if self._stopped.is_set() or (self._frames is not None and number >= self._frames):
            return None
        if self._rate is not None:
            now = time.monotonic()
            self._begun = self._begun or now
            if self._stopped.wait(max(0.0, self._begun + number / self._rate - now)):
                return None
        self._next += 1
        return Frame(self._images[number % len(self._images)], number, self.info.name)

    def interrupt(self) -> None:
        """See `Source.interrupt`."""
        self._stopped.set()


class Renamed(BaseSource):
    """Another source under a name of its own, so that one file can be read several times at once.

    Args:
        source: The source; closed with this one.
        name: Its name here.
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
