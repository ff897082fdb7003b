"""Live sources that stall, are lost, reconnect or never answer."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from realtime_ssd.backends import Backend, BackendOptions, open_backend
from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.pipeline import Pipeline, PipelineOptions
from tests.pipeline.fakes import FakeBackend, ScriptedSource


@pytest.fixture
def backend(tiny: Path) -> Backend:
    return open_backend(tiny, "onnxruntime", BackendOptions(batch=3))


def test_stalled_source_is_reopened(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    source = ScriptedSource("cam", live=True, frames=3, hold=threading.Event())
    pipeline = Pipeline([source], backend, PipelineOptions(stall_timeout=0.2))

    def stop_when_reopened() -> None:
        if source.openings > 1:
            pipeline.stop()

    for _ in pipeline.results(stop_when_reopened):
        pass
    assert source.openings > 1
    assert pipeline.statistics.total.losses >= 1
    assert "no frame for" in caplog.text


class UnreliableCamera(ScriptedSource):
    """Is lost after each frame and refuses some of the openings.

    Args:
        refusals: Number of failed openings before the second, third, … session.
    """

    def __init__(self, *refusals: int) -> None:
        super().__init__("cam", live=True, frames=1, error=SourceError("unplugged"))
        self._refusals = list(refusals)
        self.attempts: list[float] = []

    def open(self) -> None:
        if self.openings:
            self.attempts.append(time.monotonic())
            if not self._refusals or self._refusals[0]:
                if self._refusals:
                    self._refusals[0] -= 1
                raise SourceError("not there")
            self._refusals.pop(0)
        super().open()


def test_retry_delay_doubles(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime_ssd.pipeline.capture.FIRST_RETRY_DELAY", 0.02)
    source = UnreliableCamera()
    pipeline = Pipeline([source], backend)

    def stop_after_five_attempts() -> None:
        if len(source.attempts) >= 5:
            pipeline.stop()

    for _ in pipeline.results(stop_after_five_attempts, 0.005):
        pass
    gaps = [after - before for before, after in pairwise(source.attempts[:5])]
    assert all(gap >= least for gap, least in zip(gaps, (0.04, 0.08, 0.16, 0.32), strict=True))
    assert pipeline.statistics.total.losses == 1


def test_retry_delay_starts_again_after_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays of each loss; without a reset the second loss would start where the first ended."""
    monkeypatch.setattr("realtime_ssd.pipeline.capture.FIRST_RETRY_DELAY", 0.001)
    delays: list[float] = []
    source = UnreliableCamera(4, 2, 0)
    pipeline = Pipeline([source], FakeBackend())
    (capture,) = pipeline.captures
    wait = capture._stopping.wait

    def record_delay(timeout: float | None = None) -> bool:
        delays.append(timeout or 0.0)
        if len(delays) == 9:
            pipeline.stop()
        return wait(timeout)

    monkeypatch.setattr(capture._stopping, "wait", record_delay)
    list(pipeline)
    first = [0.001 * 2**k for k in range(5)]
    assert delays[:8] == pytest.approx([*first, *first[:3]])


def test_retry_delay_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime_ssd.pipeline.capture.FIRST_RETRY_DELAY", 0.001)
    monkeypatch.setattr("realtime_ssd.pipeline.capture.MAX_RETRY_DELAY", 0.004)
    delays: list[float] = []
    pipeline = Pipeline([UnreliableCamera(10)], FakeBackend())
    (capture,) = pipeline.captures
    wait = capture._stopping.wait

    def record_delay(timeout: float | None = None) -> bool:
        delays.append(timeout or 0.0)
        if len(delays) == 6:
            pipeline.stop()
        return wait(timeout)

    monkeypatch.setattr(capture._stopping, "wait", record_delay)
    list(pipeline)
    assert max(delays) == 0.004


def test_first_frame_after_a_loss_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime_ssd.pipeline.capture.FIRST_RETRY_DELAY", 0.001)
    source = ScriptedSource("cam", live=True, frames=1, error=SourceError("unplugged"))
    pipeline = Pipeline([source], FakeBackend(), PipelineOptions(max_frames=4))
    marks = [(result.frame.index, result.frame.discontinuity) for result in pipeline]
    assert len(marks) == 4
    assert all(mark == (index > 0) for index, mark in marks), marks


class UnreachableCamera(ScriptedSource):
    def open(self) -> None:
        raise SourceError("connection refused")


def test_wrong_sources_are_rejected(backend: Backend) -> None:
    with pytest.raises(UsageError, match="there is no source"):
        Pipeline([], backend)
    with pytest.raises(UsageError, match="appears twice"):
        Pipeline([ScriptedSource("x"), ScriptedSource("x")], backend)


def test_source_that_never_answers_ends_the_run_with_one_message(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SourceError, match="connection refused"):
        list(Pipeline([UnreachableCamera("cam", live=True)], backend))
    assert not caplog.text


def test_one_unreachable_source_does_not_end_the_others() -> None:
    unreachable = UnreachableCamera("gone", live=True)
    pipeline = Pipeline([unreachable, ScriptedSource("file", frames=5)], FakeBackend())
    indices = []
    for result in pipeline:
        indices.append(result.frame.index)
        if len(indices) == 5:
            pipeline.stop()
    assert indices == list(range(5))


def test_only_a_recovery_is_logged_as_online_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("realtime_ssd.pipeline.capture.FIRST_RETRY_DELAY", 0.001)
    list(Pipeline([ScriptedSource("steady", live=True, frames=3)], FakeBackend()))
    assert not caplog.text
    source = ScriptedSource("cam", live=True, frames=1, error=SourceError("unplugged"))
    results = list(Pipeline([source], FakeBackend(), PipelineOptions(max_frames=2)))
    assert len(results) == 2
    assert caplog.text.count("cam is online again") >= 1


def test_closing_abandons_threads_that_do_not_end(caplog: pytest.LogCaptureFixture) -> None:
    release, submitted = threading.Event(), threading.Event()

    class DeafSource(ScriptedSource):
        def interrupt(self) -> None:
            """Ignored, as by a driver that hangs."""

    def hang(_: object) -> None:
        submitted.set()
        release.wait(60)

    source = DeafSource("deaf", live=True, frames=1, hold=release)
    backend = FakeBackend(on_submit=hang)
    pipeline = Pipeline([source], backend, PipelineOptions(join_timeout=0.05))
    caplog.set_level("INFO")
    pipeline._start()
    assert submitted.wait(30)
    started = time.monotonic()
    pipeline.close()
    assert time.monotonic() - started < 10
    assert "the capture thread of deaf did not stop in time" in caplog.text
    release.set()


def test_the_watchdog_sleeps_until_a_source_may_stall() -> None:
    hold = threading.Event()
    source = ScriptedSource("cam", live=True, frames=1, hold=hold)
    pipeline = Pipeline([source], FakeBackend(), PipelineOptions(stall_timeout=100))
    waits: list[float | None] = []
    for _ in pipeline:
        waits.append(pipeline._seconds_to_next_stall())
        hold.set()
    (wait,) = waits
    assert wait is not None
    assert 60 < wait <= 100.1
