"""`Pipeline`: from sources to results, with every thread between them."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import inf

from realtime_ssd.backends.base import Backend, PendingBatch
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import RealtimeSSDError, UsageError, describe
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.metrics import Observer, Statistics
from realtime_ssd.core.results import FrameResult
from realtime_ssd.pipeline.batch_sizer import BatchSizer
from realtime_ssd.pipeline.capture import CaptureThread
from realtime_ssd.pipeline.frame_queue import FILE_QUEUE_SIZE, FrameQueue, SourceQueue
from realtime_ssd.pipeline.observers import ObserverGroup
from realtime_ssd.pipeline.options import PipelineOptions
from realtime_ssd.pipeline.processing import ProcessorChain, ProcessorFactory
from realtime_ssd.sources.base import Source

__all__ = ["Pipeline"]

STOP_TIMEOUT = 0.5
"""Seconds after `Pipeline.stop` in which results that are nearly ready are still returned."""

_log = logging.getLogger(__name__)


class Pipeline:
    """Runs a backend over sources; iterate over it for the results.

    One thread captures each source, one submits frames to the backend, one watches for stalls.
    The thread that iterates collects the answers and runs the processors; what it does with a
    result (drawing, encoding) overlaps with the inference of the next frames. The results of a
    source arrive in its order.

    Args:
        sources: What to read; closed at the end.
        backend: What to run; stays open.
        options: Settings.
        processors: Creates the processors of each source; None for none.
        observers: Receive counts and durations, in addition to `statistics`.

    Attributes:
        statistics: Counts and latencies so far.
        captures: The capture thread of every source.

    Raises:
        UsageError: If a source is given twice, or there is none.

    Example:
        >>> from realtime_ssd.backends import open_backend
        >>> from realtime_ssd.sources import open_source
        >>> from realtime_ssd.zoo import BUNDLED
        >>> with open_backend(BUNDLED, "onnxruntime") as backend:
        ...     results = list(Pipeline([open_source("demo:frames=3")], backend))
        >>> [result.frame.index for result in results]
        [0, 1, 2]
    """

    def __init__(
        self,
        sources: Sequence[Source],
        backend: Backend,
        options: PipelineOptions | None = None,
        *,
        processors: ProcessorFactory | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._backend = backend
        self._options = options or PipelineOptions()
        infos = [source.info for source in sources]
        names = tuple(info.name for info in infos)
        _check_names(names)
        self._live = {info.name for info in infos if info.live}
        self.statistics = Statistics(names)
        self._observer = ObserverGroup((self.statistics, *observers))
        self._processors = ProcessorChain(infos, processors or (lambda _: ()), self._observer)
        queues = [self._source_queue(source) for source in sources]
        self._frames = FrameQueue(queues, self._observer, self._options.batch_timeout)
        self.captures = [
            CaptureThread(
                source,
                source_queue,
                self._frames,
                self._observer,
                self._on_state_change,
                self._fail,
                converts_frames=not backend.converts_frames,
                wait=self._options.wait,
            )
            for source, source_queue in zip(sources, queues, strict=True)
        ]
        self._unstarted = deque(capture for capture in self.captures if not capture.queue.live)
        self._start_lock = threading.Lock()
        self._unfinished = set(names)
        self._pending: queue.SimpleQueue[PendingBatch | None] = queue.SimpleQueue()
        self._watchdog_events: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._free_slots = threading.Semaphore(backend.max_in_flight)
        self._sizer = BatchSizer(backend)
        self._deadline = inf
        self._failure: RealtimeSSDError | None = None
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def _source_queue(self, source: Source) -> SourceQueue:
        live = source.info.live
        maxsize = 1 if live else FILE_QUEUE_SIZE
        return SourceQueue(source.info.name, live, maxsize, self._options.max_frames)

    def __iter__(self) -> Iterator[FrameResult]:
        return self.results()

    def results(
        self, on_idle: Callable[[], None] | None = None, idle_interval: float = 0.03
    ) -> Iterator[FrameResult]:
        """Start, and yield results until the sources end or `stop` is called.

        Args:
            on_idle: Called whenever no result arrived for `idle_interval`, for a window that must
                process its events.
            idle_interval: Seconds to wait for a result before `on_idle` is called.

        Yields:
            One result for each processed frame.

        Raises:
            RealtimeSSDError: If a stage failed, after all results before the failure.
        """
        self._start()
        try:
            while (batch := self._next_batch(on_idle, idle_interval)) is not None:
                if time.monotonic() > self._deadline:
                    break
                yield from self._batch_results(batch)
                self._sizer.observe_latency(
                    len(batch.frames), time.monotonic() - batch.submitted_at
                )
            self._raise_failure()
        finally:
            self.close()
            for source, frames in self.statistics.unfinished().items():
                for _ in range(frames):
                    self._observer.on_frame(source, "stopped")

    def stop(self) -> None:
        """Ask for an early, orderly end; may be called from any thread and any signal handler.

        Results that are nearly ready are still returned; other frames count as "stopped".
        """
        self._deadline = min(self._deadline, time.monotonic() + STOP_TIMEOUT)
        self._watchdog_events.put(True)

    def close(self) -> None:
        """Stop all threads and close sources and processors; may be called any number of times."""
        self._shutdown()
        self._watchdog_events.put(True)
        deadline = time.monotonic() + self._options.join_timeout
        for capture in self.captures:
            if not capture.join(max(0.0, deadline - time.monotonic())):
                _log.info("the capture thread of %s did not stop in time", capture.name)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._processors.close()

    def _start(self) -> None:
        if self._threads:
            raise RuntimeError("a pipeline runs only once")
        for name, target in (("infer", self._infer), ("watchdog", self._watch)):
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        for capture in self.captures:
            if capture.queue.live:
                capture.start()
        for _ in range(self._options.max_open_files):
            self._start_next_file()

    def _start_next_file(self) -> None:
        with self._start_lock:
            if self._unstarted and not self._stopping.is_set():
                self._unstarted.popleft().start()

    def finished_sources(self) -> list[str]:
        """Return the sources whose last result was returned, each of them only once."""
        ended = [
            capture.name
            for capture in self.captures
            if capture.state == "ended" and capture.name in self._unfinished
        ]
        finished = [name for name in ended if not self.statistics.sources[name].unfinished]
        self._unfinished.difference_update(finished)
        return finished

    def _infer(self) -> None:
        """Submit frames whenever the backend has a free slot; frames are taken only then."""
        try:
            while True:
                self._free_slots.acquire()
                frames = self._frames.take(self._sizer.next_size())
                if not frames:
                    return
                self._sizer.observe_frames(frames)
                now = time.monotonic()
                for frame in frames:
                    self._observer.on_stage(frame.source, "wait", now - frame.captured_at)
                self._pending.put(self._backend.submit(frames))
        except BaseException as error:
            self._fail("inference", error)
        finally:
            self._pending.put(None)

    def _next_batch(
        self, on_idle: Callable[[], None] | None, idle_interval: float
    ) -> PendingBatch | None:
        if on_idle is None:
            return self._pending.get()
        while True:
            try:
                return self._pending.get(timeout=idle_interval)
            except queue.Empty:
                on_idle()

    def _batch_results(self, batch: PendingBatch) -> Iterator[FrameResult]:
        """Collect one batch and yield its results."""
        answers = self._collect(batch)
        self._free_slots.release()
        self._observe_batch(batch)
        for frame, detections in zip(batch.frames, answers, strict=batch.error is None):
            if time.monotonic() > self._deadline:
                return
            yield from self._frame_result(frame, detections, batch)
        if batch.error is not None:
            raise _stage_error("inference", batch.error) from batch.error

    def _observe_batch(self, batch: PendingBatch) -> None:
        sources = {frame.source for frame in batch.frames}
        name = sources.pop() if len(sources) == 1 else ""
        for stage, seconds in batch.timings.items():
            for _ in range(batch.passes):
                self._observer.on_stage(name, stage, seconds)

    def _frame_result(
        self, frame: Frame, detections: Detections, batch: PendingBatch
    ) -> Iterator[FrameResult]:
        """Process and yield one result; the time until the caller asks for more is the sinks'."""
        source = frame.source
        result = FrameResult(
            frame,
            detections,
            dict(batch.timings),
            annotators=self._options.annotators,
            live=source in self._live,
        )
        result = self._processors.process(result)
        started = time.monotonic()
        yield result
        finished = time.monotonic()
        self._observer.on_stage(source, "sinks", finished - started)
        # While live sources run, frames of files wait in their queues on purpose, so their latency
        # is not meaningful.
        if not self._live or source in self._live:
            self._observer.on_stage(source, "end_to_end", finished - frame.captured_at)
        self._observer.on_frame(source, "processed")

    def _collect(self, batch: PendingBatch) -> list[Detections]:
        try:
            return self._backend.collect(batch)
        except Exception as error:
            raise _stage_error("inference", error) from error

    def _fail(self, stage: str, error: BaseException) -> None:
        """Keep the first failure and end the run; called by the thread that failed."""
        if self._failure is None:
            self._failure = _stage_error(stage, error)
        self._shutdown()

    def _raise_failure(self) -> None:
        """Raise what ended the run early, if anything did."""
        file_errors = [capture.error for capture in self.captures if not capture.queue.live]
        errors = [error for error in (self._failure, *file_errors) if error is not None]
        for error in errors[1:]:
            _log.warning("%s", error)
        for error in errors[:1]:
            raise error

    def _shutdown(self) -> None:
        """Unblock all threads so that they end."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._frames.close()
        self._free_slots.release()
        for capture in self.captures:
            capture.stop()

    def _on_state_change(self, capture: CaptureThread) -> None:
        """Wake the watchdog; end the run if no source ever answered."""
        self._watchdog_events.put(False)
        if capture.state == "ended" and not capture.queue.live:
            self._start_next_file()
        if self._options.wait:
            return
        unreachable = [
            one for one in self.captures if one.state == "offline" and not one.has_delivered
        ]
        if len(unreachable) == len(self.captures) and capture.error is not None:
            self._fail(f"opening '{capture.name}'", capture.error)

    def _watch(self) -> None:
        """Wait for `stop` and for sources that stall."""
        while not self._stopping.is_set():
            try:
                if self._watchdog_events.get(timeout=self._seconds_to_next_stall()):
                    self._shutdown()
            except queue.Empty:
                self._handle_stalls()

    def _seconds_to_next_stall(self) -> float | None:
        """Return the seconds until the next source may count as stalled; None if none can."""
        deadlines = [
            capture.last_frame_at + self._stall_timeout(capture)
            for capture in self.captures
            if capture.can_stall
        ]
        return max(0.0, min(deadlines) - time.monotonic()) + 0.001 if deadlines else None

    def _stall_timeout(self, capture: CaptureThread) -> float:
        """Return the seconds after which a source has stalled: at least two of its frames."""
        rate = capture.source.info.rate
        return max(self._options.stall_timeout, float(2 / rate) if rate else 0.0)

    def _handle_stalls(self) -> None:
        now = time.monotonic()
        for capture in self.captures:
            timeout = self._stall_timeout(capture)
            if capture.can_stall and now - capture.last_frame_at >= timeout:
                capture.handle_stall(timeout)


def _check_names(names: tuple[str, ...]) -> None:
    if not names:
        raise UsageError("there is no source: pass at least one in `sources`")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"source '{name}' appears twice; use each source once")


def _stage_error(stage: str, error: BaseException) -> RealtimeSSDError:
    """Return an exception of a thread as one sentence that names the stage."""
    if isinstance(error, RealtimeSSDError):
        return error
    failure = RealtimeSSDError(f"{stage} failed: {describe(error)}")
    failure.__cause__ = error
    return failure
