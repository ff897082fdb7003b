"""Sinks by policy: "block" sinks receive every result, "latest" sinks never hold up anything."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.results import FrameResult
from realtime_ssd.pipeline import SinkGroup
from tests.pipeline.fakes import RecordingSink


def result(index: int, source: str = "a") -> FrameResult:
    return FrameResult(Frame(np.zeros((2, 2, 3), np.uint8), index, source), Detections.empty())


def test_a_blocking_sink_receives_every_result_in_the_calling_thread() -> None:
    sink = RecordingSink()
    with SinkGroup() as group:
        group.add(sink)
        for index in range(5):
            group.write(result(index))
    assert sink.indices == list(range(5))
    assert sink.threads == {threading.current_thread().name}
    assert sink.closed == 1


def test_a_sink_of_one_source_receives_no_other() -> None:
    for policy in ("block", "latest"):
        sink = RecordingSink(policy)
        with SinkGroup() as group:
            group.add(sink, "a")
            group.write(result(0, "a"))
            group.write(result(1, "b"))
        assert sink.indices == [0]


def test_a_slow_latest_sink_holds_up_nobody_and_skips_to_the_newest() -> None:
    entered, release = threading.Event(), threading.Event()

    def block(_: FrameResult) -> None:
        entered.set()
        assert release.wait(30)

    slow, fast = RecordingSink("latest", block), RecordingSink()
    with SinkGroup() as group:
        group.add(slow)
        group.add(fast)
        group.write(result(0))
        assert entered.wait(30)
        for index in range(1, 50):
            group.write(result(index))
        assert fast.indices == list(range(50))
        release.set()
    assert slow.indices == [0, 49]
    assert slow.threads == {"sink-RecordingSink"}
    assert slow.closed == 1


def test_a_latest_sink_keeps_the_newest_result_of_each_source() -> None:
    entered, release = threading.Event(), threading.Event()

    def block(_: FrameResult) -> None:
        entered.set()
        assert release.wait(30)

    sink = RecordingSink("latest", block)
    with SinkGroup() as group:
        group.add(sink)
        group.write(result(0))
        assert entered.wait(30)
        for index in range(1, 4):
            group.write(result(index, "a"))
            group.write(result(10 + index, "b"))
        release.set()
    assert sorted(sink.indices) == [0, 3, 13]


def test_a_failing_latest_sink_is_closed_and_named_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed = threading.Event()

    class Broken(RecordingSink):
        def close(self) -> None:
            super().close()
            failed.set()

    def fail(_: FrameResult) -> None:
        raise ValueError("no connection")

    broken, steady = Broken("latest", fail), RecordingSink()
    group = SinkGroup()
    group.add(broken)
    group.add(steady)
    group.write(result(0))
    assert failed.wait(30)
    group.write(result(1))
    with pytest.raises(RealtimeSSDError, match=r"Broken failed on frame 0 of 'a': .*no connection"):
        group.close()
    assert steady.indices == [0, 1]
    assert (broken.closed, steady.closed) == (1, 1)
    assert "no connection" in caplog.text


def test_a_latest_sink_that_never_returns_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime_ssd.pipeline.sink_group.LATEST_CLOSE_TIMEOUT", 0.05)
    release = threading.Event()
    group = SinkGroup()
    group.add(RecordingSink("latest", lambda _: release.wait(30)))
    group.write(result(0))
    with pytest.raises(RealtimeSSDError, match=r"RecordingSink did not finish within 0\.05 s"):
        group.close()
    release.set()


def test_a_failing_blocking_sink_is_named_and_the_others_are_closed() -> None:
    def fail(_: FrameResult) -> None:
        raise OSError("disk full")

    broken, other = RecordingSink("block", fail), RecordingSink()
    group = SinkGroup()
    group.add(broken)
    group.add(other)
    with pytest.raises(
        RealtimeSSDError, match=r"RecordingSink failed on frame 7 of 'a'.*disk full"
    ):
        group.write(result(7))
    group.close()
    assert (broken.closed, other.closed) == (1, 1)


def test_all_sinks_are_closed_when_one_fails_to_close() -> None:
    class Unclosable(RecordingSink):
        def close(self) -> None:
            raise RealtimeSSDError("cannot be finished")

    other = RecordingSink()
    group = SinkGroup()
    group.add(Unclosable())
    group.add(other)
    with pytest.raises(RealtimeSSDError, match="cannot be finished"):
        group.close()
    assert other.closed == 1
    group.close()
