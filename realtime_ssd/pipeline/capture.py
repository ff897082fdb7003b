"""`CaptureThread`: opens and reads one source, and reconnects after a loss."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from realtime_ssd.core.errors import RealtimeSSDError, SourceError
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.metrics import Observer, SourceState
from realtime_ssd.pipeline.frame_queue import FrameQueue, SourceQueue
from realtime_ssd.sources.base import Source

__all__ = ["CaptureThread"]

FIRST_RETRY_DELAY, MAX_RETRY_DELAY = 0.5, 30.0
_log = logging.getLogger(__name__)


class CaptureThread:
    """Reads one source in a thread of its own.

    A live source that is lost is reopened with growing delays until it answers. A damaged file
    ends, and its error is kept for the end of the run.

    Args:
        source: The source; a file is open already.
        source_queue: Where its frames go.
        frame_queue: The queue that `source_queue` belongs to.
        observer: Notified of captured frames and state changes.
        on_state_change: Called with this thread after each change of state.
        on_failure: Called with a stage and an error that must end the run.
        converts_frames: Whether to convert frames in host memory to BGR here. Otherwise they are
            converted by their first reader, and frames in GPU memory are downloaded here, so that
            those in the queue occupy none.
        wait: Whether a live source that cannot be opened at the start is tried again.

    Attributes:
        state: "waiting" before the first frame, then "online", "offline" or "ended".
        error: What ended a file early, or why a live source is offline.
        last_frame_at: `time.monotonic()` of the newest frame, or of the moment the source opened.
        has_delivered: Whether the source ever delivered a frame.
    """

    def __init__(
        self,
        source: Source,
        source_queue: SourceQueue,
        frame_queue: FrameQueue,
        observer: Observer,
        on_state_change: Callable[[CaptureThread], None],
        on_failure: Callable[[str, BaseException], None],
        *,
        converts_frames: bool = True,
        wait: bool = False,
    ) -> None:
        self.source, self.queue = source, source_queue
        self.state: SourceState = "waiting"
        self.error: RealtimeSSDError | None = None
        self.last_frame_at = time.monotonic()
        self.has_delivered = False
        self._frame_queue, self._observer = frame_queue, observer
        self._on_state_change, self._on_failure = on_state_change, on_failure
        self._converts_frames, self._wait = converts_frames, wait
        self._stopping = threading.Event()
        self._stalled = False
        self._retry_delay = FIRST_RETRY_DELAY
        name = f"capture-{source_queue.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def name(self) -> str:
        """Name of the source."""
        return self.queue.name

    @property
    def can_stall(self) -> bool:
        """Whether the source is live and expected to deliver frames now."""
        return self.queue.live and self.state in ("waiting", "online")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, interrupting a blocking `read` or a retry delay."""
        self._stopping.set()
        self.source.interrupt()

    def join(self, timeout: float) -> bool:
        """Wait for the thread; return whether it ended. One that never started has."""
        if self._thread.ident is None:
            self.source.close()
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def handle_stall(self, seconds: float) -> None:
        """Treat the source as lost because it delivered no frame for `seconds`."""
        self._stalled = True
        self._go_offline(SourceError(f"no frame for {seconds:.0f} s"))
        self.source.interrupt()

    def _run(self) -> None:
        try:
            while not self._read_until_lost():
                self._stopping.wait(self._retry_delay)
                self._retry_delay = min(self._retry_delay * 2, MAX_RETRY_DELAY)
        except RealtimeSSDError as error:
            self._handle_fatal_error(error)
        except BaseException as error:
            self._on_failure(f"reading '{self.name}'", error)
        finally:
            self.source.close()
            self._frame_queue.finish(self.queue)
            self._set_state("ended")

    def _handle_fatal_error(self, error: RealtimeSSDError) -> None:
        """Keep the error of a damaged file for the end; its captured frames are still processed."""
        if self._stopping.is_set():
            return
        if self.queue.live:
            self._on_failure(f"opening '{self.name}'", error)
        else:
            self.error = error

    def _read_until_lost(self) -> bool:
        """Open and read the source; return whether it has ended rather than been lost."""
        try:
            if self.queue.live:
                self._open()
            while (frame := self._read()) is not None:
                if not self._frame_queue.put(self.queue, frame):
                    return True
        except SourceError as error:
            return self._handle_loss(error)
        except RealtimeSSDError as error:
            if not self.has_delivered and not self._wait:
                raise
            return self._handle_loss(error)
        return not self._stalled or self._handle_loss(SourceError("it stalled"))

    def _open(self) -> None:
        self._stalled = False
        self.last_frame_at = time.monotonic()
        self.source.open()
        self.last_frame_at = time.monotonic()

    def _read(self) -> Frame | None:
        """Read one frame; None at the end of the source or of the run."""
        if self._stopping.is_set():
            return None
        started = time.perf_counter()
        frame = self.source.read()
        if frame is None:
            return None
        if self._converts_frames and frame.surface is None:
            _ = frame.image
        elif not self._converts_frames and frame.surface is not None:
            _ = frame.image  # downloaded now, to free GPU memory
            frame = replace(frame, surface=None)
        self.last_frame_at = time.monotonic()
        self._observer.on_frame(self.name, "captured")
        self._observer.on_stage(self.name, "capture", time.perf_counter() - started)
        if self.state != "online" and not self._stalled:
            if self.state == "offline":
                frame = replace(frame, discontinuity=True)
            self._go_online()
        return frame

    def _go_online(self) -> None:
        if self.state == "offline":
            _log.warning("%s is online again", self.name)
        self.error, self.has_delivered = None, True
        self._retry_delay = FIRST_RETRY_DELAY
        self._set_state("online")

    def _handle_loss(self, error: RealtimeSSDError) -> bool:
        """Record a loss; return whether the source is given up."""
        if self._stopping.is_set():
            return True
        if not self.queue.live:
            raise error
        self.source.close()
        if self.state != "offline":
            self._go_offline(error)
        return False

    def _go_offline(self, error: RealtimeSSDError) -> None:
        self.error = error
        self._set_state("offline")
        # If no source ever answered, `_set_state` has ended the run with this error.
        if not self._stopping.is_set():
            reason = str(error).replace(f"'{self.name}'", "it")
            _log.warning("%s is offline (%s); reconnecting", self.name, reason)

    def _set_state(self, state: SourceState) -> None:
        self.state = state
        self._observer.on_state(self.name, state)
        self._on_state_change(self)
