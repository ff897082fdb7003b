"""Sources, backends and observers whose behavior a test controls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from realtime_ssd.backends import PendingBatch
from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.metrics import Outcome, SourceState
from realtime_ssd.core.results import FrameResult
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd.sinks.base import BaseSink, Policy
from realtime_ssd.sources import SourceInfo
from realtime_ssd.sources.base import BaseSource
from tests.tiny import tiny_spec


class ScriptedSource(BaseSource):
    """Delivers a number of frames, then waits, fails or ends.

    Args:
        name: Name of the source.
        live: Whether it is live.
        frames: Number of frames after each opening.
        error: Raised after them; None ends the source.
        hold: Event to wait for before that.
    """

    def __init__(
        self,
        name: str = "x",
        *,
        live: bool = False,
        frames: int = 3,
        error: BaseException | None = None,
        hold: threading.Event | None = None,
    ) -> None:
        self.info = SourceInfo(name, live=live)
        self._frames, self._error, self._hold = frames, error, hold
        self._next = self._end = 0
        self.openings = 0
        self.exhausted = threading.Event()
        if not live:
            self._end = frames

    @property
    def read_frames(self) -> int:
        """Frames read so far."""
        return self._next

    def open(self) -> None:
        self.openings += 1
        self._end = self._next + self._frames

    def read(self) -> Frame | None:
        if self._next >= self._end:
            self.exhausted.set()
            if self._hold is not None:
                self._hold.wait(30)
            if self._error is not None:
                raise self._error
            return None
        self._next += 1
        return self.make_frame(self._next - 1)

    def make_frame(self, index: int) -> Frame:
        """Return the frame with this index."""
        return Frame(np.zeros((20, 20, 3), np.uint8), index, self.info.name)

    def interrupt(self) -> None:
        if self._hold is not None:
            self._hold.set()


class FakeBackend(Closeable):
    """Answers every frame with no detections, and records the size and the thread of each call.

    Args:
        on_submit: Called with the frames of each call, for example to fail.
    """

    name = "fake"

    def __init__(
        self,
        *,
        max_batch: int = 1,
        max_submit: int = 1,
        max_in_flight: int = 1,
        converts_frames: bool = True,
        on_submit: Callable[[Sequence[Frame]], None] = lambda frames: None,
        timings: dict[str, float] | None = None,
    ) -> None:
        self.spec: ModelSpec = tiny_spec()
        self.max_batch, self.max_submit = max_batch, max_submit
        self.max_in_flight, self.converts_frames = max_in_flight, converts_frames
        self.calls: list[list[str]] = []
        self._on_submit, self._timings = on_submit, timings or {}

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        self.calls.append([frame.source for frame in frames])
        for frame in frames:
            _ = frame.image
        self._on_submit(frames)
        return PendingBatch(tuple(frames), timings=dict(self._timings), passes=len(frames))

    def collect(self, batch: PendingBatch) -> list[Detections]:
        return [Detections.empty()] * len(batch.frames)

    def close(self) -> None:
        """Nothing to release."""


class RecordingObserver:
    """Records every call."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, Outcome]] = []
        self.stages: list[tuple[str, str]] = []
        self.states: list[tuple[str, SourceState]] = []

    def on_frame(self, source: str, outcome: Outcome) -> None:
        self.frames.append((source, outcome))

    def on_stage(self, source: str, stage: str, seconds: float) -> None:
        assert seconds >= 0
        self.stages.append((source, stage))

    def on_state(self, source: str, state: SourceState) -> None:
        self.states.append((source, state))


class RecordingSink(BaseSink):
    """Records the frame index of every result.

    Args:
        policy: See `Sink.policy`.
        on_write: Called with each result before it is recorded, for example to block or fail.
    """

    def __init__(
        self, policy: Policy = "block", on_write: Callable[[FrameResult], Any] | None = None
    ) -> None:
        self.policy = policy
        self._on_write = on_write
        self.indices: list[int] = []
        self.threads: set[str] = set()
        self.closed = 0

    def write(self, result: FrameResult) -> None:
        self.threads.add(threading.current_thread().name)
        if self._on_write is not None:
            self._on_write(result)
        self.indices.append(result.frame.index)

    def close(self) -> None:
        self.closed += 1
