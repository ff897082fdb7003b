"""One thread for each source: open, read, hand over, and come back after a loss."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from realtime_ssd.core.errors import RealtimeSSDError, SourceError
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.metrics import Statistics
from realtime_ssd.pipeline.frame_queue import FrameQueue, SourceQueue
from realtime_ssd.sources.base import Source

__all__ = ["Capture", "State"]

State = Literal["waiting", "online", "offline", "ended"]
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
_log = logging.getLogger(__name__)


class Capture:
    """Reads one source in a thread of its own.

    A live source that is lost is opened again and again, with growing pauses; a file that breaks
    ends, and its error is kept for the end of the program.

    Args:
        source: The source; a file is open already.
        lane: Where its frames go.
        inbox: The hand-off the lane belongs to.
        statistics: Counts frames and losses.
        report: Called with this capture whenever its state changed.
        crash: Called with an error that must end the program at once.
        paint: Whether to make the images of frames here and leave those in GPU memory there;
            otherwise those in GPU memory are fetched, and whoever needs an image makes it.

    Attributes:
        state: "waiting" before the first frame, then "online", "offline" or "ended".
        error: What ended a file early, or why a live source is offline.
        last_frame: `time.monotonic()` of the newest frame, or of the moment the source opened.
        seen: Whether the source ever gave a frame.
    """

    def __init__(
        self,
        source: Source,
        lane: SourceQueue,
        inbox: FrameQueue,
        statistics: Statistics,
        report: Callable[[Capture], None],
        crash: Callable[[str, BaseException], None],
        *,
        paint: bool = True,
    ) -> None:
        self.source, self.lane = source, lane
        self.state: State = "waiting"
        self.error: RealtimeSSDError | None = None
        self.last_frame = time.monotonic()
        self.seen = False
        self._inbox, self._statistics = inbox, statistics
        self._report, self._crash, self._paint = report, crash, paint
        self._stopping = threading.Event()
        self._stalled = False
        self._pause = FIRST_PAUSE
        self._thread = threading.Thread(target=self._run, name=f"capture-{lane.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Make the thread end soon, even out of a `read` or a pause that waits."""
        self._stopping.set()
        self.source.interrupt()

    def join(self, seconds: float) -> bool:
        """Wait for the thread; tell whether it ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def stall(self, seconds: float) -> None:
        """Treat the source as lost because it gave nothing for so long; called by the watchdog."""
        self._stalled = True
        self._go_offline(SourceError(f"no frame for {seconds:.0f} s"))
        self.source.interrupt()

    def _run(self) -> None:
        try:
            while not self._session():
                self._stopping.wait(self._pause)
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
        except RealtimeSSDError as error:
            self._end_early(error)
        except BaseException as error:
            self._crash(f"reading '{self.lane.name}'", error)
        finally:
            self.source.close()
            self.state = "ended"
            self._inbox.finish(self.lane)
            self._report(self)

    def _end_early(self, error: RealtimeSSDError) -> None:
        """Keep the error of a broken file for the end; what was captured is still processed."""
        if self._stopping.is_set():
            return
        if self.lane.live:
            self._crash(f"opening '{self.lane.name}'", error)
        else:
            self.error = error

    def _session(self) -> bool:
        """Open the source and read it; tell whether it is over (rather than lost)."""
        try:
            if self.lane.live:
                self._open()
            while (frame := self._read()) is not None:
                if not self._inbox.put(self.lane, frame):
                    return True
        except SourceError as error:
            return self._lost(error)
        except RealtimeSSDError as error:
            if not self.seen:
                raise
            return self._lost(error)
        return not self._stalled or self._lost(SourceError("it stalled"))

    def _open(self) -> None:
        self._stalled = False
        self.last_frame = time.monotonic()
        self.source.open()
        self.last_frame = time.monotonic()

    def _read(self) -> Frame | None:
        """Read one frame; None at the end or when the program stops."""
        if self._stopping.is_set():
            return None
        begun = time.perf_counter()
        frame = self.source.read()
        if frame is None:
            return None
        if self._paint and frame.surface is None:
            _ = frame.image
        elif not self._paint and frame.surface is not None:
            _ = frame.image  # converted here to release the surface: the decoder has few
            frame = replace(frame, surface=None)
        self.last_frame = time.monotonic()
        self._statistics.capture(self.lane.name, time.perf_counter() - begun)
        if self.state != "online" and not self._stalled:
            self._go_online()
        return frame

    def _go_online(self) -> None:
        if self.state == "offline":
            _log.warning("%s is back", self.lane.name)
        self.state, self.error, self.seen = "online", None, True
        self._pause = FIRST_PAUSE
        self._report(self)

    def _lost(self, error: RealtimeSSDError) -> bool:
        """Note a loss; tell whether the source is given up."""
        if self._stopping.is_set():
            return True
        if not self.lane.live:
            raise error
        self.source.close()
        if self.state != "offline":
            self._go_offline(error)
        return False

    def _go_offline(self, error: RealtimeSSDError) -> None:
        self.state, self.error = "offline", error
        self._statistics.lose(self.lane.name)
        self._report(self)
        if not self._stopping.is_set():  # else nobody ever answered, and the program says so itself
            about = str(error).replace(f"'{self.lane.name}'", "it")
            _log.warning("%s is offline (%s); trying again until it is back", self.lane.name, about)
