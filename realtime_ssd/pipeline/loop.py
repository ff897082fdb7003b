"""`Pipeline`: sources in, results out, with every thread between them."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from realtime_ssd.annotators import BoxAnnotator
from realtime_ssd.backends.base import Backend, PendingBatch
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import RealtimeSSDError, UsageError, describe
from realtime_ssd.core.metrics import Statistics
from realtime_ssd.core.results import Annotator, FrameResult
from realtime_ssd.pipeline.batch_sizer import BatchSizer
from realtime_ssd.pipeline.capture import Capture
from realtime_ssd.pipeline.frame_queue import FILE_ROOM, FrameQueue, SourceQueue
from realtime_ssd.sources.base import Source

__all__ = ["Pipeline", "PipelineOptions"]

STOP_SECONDS = 0.5  # for which results still come once the program is to stop
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """How the loop runs.

    Attributes:
        max_frames: Frames to process of each source; None for all.
        stall_seconds: A live source that gives nothing for so long counts as lost. It must exceed
            the time-outs of the sources themselves.
        join_seconds: How long the end of the program waits for a thread that hangs in a driver.
    """

    max_frames: int | None = None
    stall_seconds: float = 10.0
    join_seconds: float = 1.0
    annotators: Sequence[Annotator] = (BoxAnnotator(),)


class Pipeline:
    """Runs a backend over sources; iterate over it for the results.

    One thread captures each source, one submits frames to the backend, one watches for stalls;
    the thread that iterates collects the answers, so what it does with a result (drawing,
    encoding) runs beside the inference of the next frames. Results of a source come in its order.

    Args:
        sources: What to read; closed at the end.
        backend: What to run; stays open.
        options: How to run.

    Attributes:
        statistics: What happened so far.
        captures: The state of every source.

    Raises:
        UsageError: If a source is given twice, or cannot exist.
        SourceError: If a file cannot be read.
    """

    def __init__(
        self, sources: Sequence[Source], backend: Backend, options: PipelineOptions | None = None
    ) -> None:
        self._backend = backend
        self._options = options or PipelineOptions()
        names = tuple(source.info.name for source in sources)
        self._live = {source.info.name for source in sources if source.info.live}
        _check_names(names)
        self.statistics = Statistics(names)
        lanes = [self._lane(source) for source in sources]
        self._inbox = FrameQueue(lanes, self.statistics)
        self.captures = [
            Capture(
                *(source, lane, self._inbox, self.statistics, self._noted, self._fail),
                paint=not backend.converts_frames,
            )
            for source, lane in zip(sources, lanes, strict=True)
        ]
        self._tickets: queue.SimpleQueue[PendingBatch | None] = queue.SimpleQueue()
        self._wakes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._places = threading.Semaphore(backend.max_in_flight)
        self._share = BatchSizer(backend)
        self._end = inf  # after which no more results come
        self._failure: RealtimeSSDError | None = None
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def _lane(self, source: Source) -> SourceQueue:
        live = source.info.live
        return SourceQueue(
            source.info.name, live, 1 if live else FILE_ROOM, self._options.max_frames
        )

    def __iter__(self) -> Iterator[FrameResult]:
        return self.results()

    def results(
        self, idle: Callable[[], None] | None = None, idle_seconds: float = 0.03
    ) -> Iterator[FrameResult]:
        """Start, and give every result until the sources end or `stop` is called.

        Args:
            idle: Called whenever no result came for `idle_seconds`, for a window that must react.
            idle_seconds: How long to wait before `idle` is called.

        Yields:
            One result for each processed frame.

        Raises:
            RealtimeSSDError: If a stage failed, after all results before the failure.
        """
        self._start()
        try:
            while (ticket := self._next(idle, idle_seconds)) is not None:
                if time.monotonic() > self._end:
                    break
                yield from self._results(ticket)
                self._share.learn(len(ticket.frames), time.monotonic() - ticket.begun)
            self._raise()
        finally:
            self.close()
            self.statistics.settle()

    def stop(self) -> None:
        """Ask for an early, orderly end; may be called from any thread and any signal handler.

        Results that are nearly there still come; frames that would take longer count as stopped.
        """
        self._end = min(self._end, time.monotonic() + STOP_SECONDS)
        self._wakes.put(True)

    def close(self) -> None:
        """Stop all threads and close the sources; may be called any number of times."""
        self._shut()
        self._wakes.put(True)
        deadline = time.monotonic() + self._options.join_seconds
        for capture in self.captures:
            if not capture.join(max(0.0, deadline - time.monotonic())):
                _log.info("%s does not answer and is left behind", capture.lane.name)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _start(self) -> None:
        if self._threads:
            raise RuntimeError("a pipeline runs only once")
        for target in (self._infer, self._watch):
            thread = threading.Thread(target=target, name=target.__name__.strip("_"), daemon=True)
            self._threads.append(thread)
            thread.start()
        for capture in self.captures:
            capture.start()

    def _infer(self) -> None:
        """Submit frames as soon as the backend has a place, the newest ones first taken then."""
        try:
            while True:
                self._places.acquire()
                frames = self._inbox.take(self._share.now())
                if not frames:
                    return
                self._share.see(frames)
                now = time.monotonic()
                for frame in frames:
                    self.statistics.stage("wait", now - frame.captured_at)
                self._tickets.put(self._backend.submit(frames))
        except BaseException as error:
            self._fail("inference", error)
        finally:
            self._tickets.put(None)

    def _next(self, idle: Callable[[], None] | None, seconds: float) -> PendingBatch | None:
        if idle is None:
            return self._tickets.get()
        while True:
            try:
                return self._tickets.get(timeout=seconds)
            except queue.Empty:
                idle()

    def _results(self, ticket: PendingBatch) -> Iterator[FrameResult]:
        """Collect one ticket; the time until the consumer asks for more is the sinks' time."""
        answers = self._collect(ticket)
        self._places.release()
        for stage, seconds in ticket.timings.items():
            self.statistics.stage(stage, seconds, ticket.passes)
        for frame, detections in zip(ticket.frames, answers, strict=ticket.error is None):
            begun = time.monotonic()
            if begun > self._end:
                return
            yield FrameResult(
                frame, detections, dict(ticket.timings), annotators=self._options.annotators
            )
            done = time.monotonic()
            self.statistics.stage("sinks", done - begun)
            # Beside live sources the frames of files wait, and their latency means nothing.
            counts = not self._live or frame.source in self._live
            self.statistics.process(frame.source, done - frame.captured_at if counts else None)
        if ticket.error is not None:
            raise _explained("inference", ticket.error) from ticket.error

    def _collect(self, ticket: PendingBatch) -> list[Detections]:
        try:
            return self._backend.collect(ticket)
        except Exception as error:
            raise _explained("inference", error) from error

    def _fail(self, stage: str, error: BaseException) -> None:
        """Keep the first failure and end the program; called by whichever thread failed."""
        if self._failure is None:
            self._failure = _explained(stage, error)
        self._shut()

    def _raise(self) -> None:
        """Raise what ended the run early, if anything did."""
        errors = [capture.error for capture in self.captures if not capture.lane.live]
        for error in (self._failure, *errors):
            if error is not None:
                raise error

    def _shut(self) -> None:
        """Wake everybody who waits and let nobody wait again."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._inbox.close()
        self._places.release()
        for capture in self.captures:
            capture.stop()

    def _noted(self, capture: Capture) -> None:
        """React to a source's new state: wake the watchdog, or give up when none ever answered."""
        self._wakes.put(False)
        refused = [one for one in self.captures if one.state == "offline" and not one.seen]
        if len(refused) == len(self.captures) and capture.error is not None:
            self._fail(f"opening '{capture.lane.name}'", capture.error)

    def _watch(self) -> None:
        """Wait for `stop` and for sources that stall."""
        while not self._stopping.is_set():
            try:
                if self._wakes.get(timeout=self._patience()):
                    self._shut()
            except queue.Empty:
                self._find_stalls()

    def _patience(self) -> float | None:
        """Give the seconds until the next source may count as stalled; None if none can."""
        ends = [
            one.last_frame + self._options.stall_seconds - time.monotonic()
            for one in self.captures
            if one.lane.live and one.state in ("waiting", "online")
        ]
        return max(0.0, min(ends)) + 0.001 if ends else None

    def _find_stalls(self) -> None:
        now, limit = time.monotonic(), self._options.stall_seconds
        for one in self.captures:
            watched = one.lane.live and one.state in ("waiting", "online")
            if watched and now - one.last_frame >= limit:
                one.stall(limit)


def _check_names(names: tuple[str, ...]) -> None:
    if not names:
        raise UsageError("there is no source; give --source, --video or --camera")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"source '{name}' is given twice; give each source once")


def _explained(stage: str, error: BaseException) -> RealtimeSSDError:
    """Turn any exception of a thread into one sentence that names the stage."""
    if isinstance(error, RealtimeSSDError):
        return error
    failure = RealtimeSSDError(f"{stage} failed: {describe(error)}")
    failure.__cause__ = error
    return failure
