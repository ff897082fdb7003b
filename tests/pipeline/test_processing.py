"""Processors and observers in the pipeline."""

from __future__ import annotations

import threading

import pytest

from realtime_ssd.core.errors import RealtimeSSDError, SourceError
from realtime_ssd.core.metrics import Outcome
from realtime_ssd.core.results import Event, FrameResult
from realtime_ssd.pipeline import Pipeline, PipelineOptions
from realtime_ssd.processors import BaseProcessor, Processor
from realtime_ssd.sources import SourceInfo
from tests.pipeline.fakes import FakeBackend, RecordingObserver, ScriptedSource


class Counter(BaseProcessor):
    """Adds an event with the number of frames since the last reset."""

    name = "counter"

    def __init__(self, info: SourceInfo) -> None:
        self.source = info.name
        self.frames = self.resets = self.closed = 0
        self.threads: set[str] = set()

    def process(self, result: FrameResult) -> FrameResult:
        assert result.frame.source == self.source
        self.threads.add(threading.current_thread().name)
        self.frames += 1
        result.events.append(Event("count", result.frame.time, {"frames": self.frames}))
        return result

    def reset(self) -> None:
        self.frames, self.resets = 0, self.resets + 1

    def close(self) -> None:
        self.closed += 1


class Doubler(BaseProcessor):
    """Adds a second event; shows that processors run in order."""

    name = "doubler"

    def process(self, result: FrameResult) -> FrameResult:
        frames = result.events[-1].data["frames"]
        result.events.append(Event("double", result.frame.time, {"frames": 2 * frames}))
        return result


def test_each_source_has_processors_of_its_own_run_in_order() -> None:
    created: list[Counter] = []

    def create(info: SourceInfo) -> list[Processor]:
        created.append(Counter(info))
        return [created[-1], Doubler()]

    observer = RecordingObserver()
    sources = [ScriptedSource(name, frames=4) for name in "ab"]
    pipeline = Pipeline(sources, FakeBackend(), processors=create, observers=[observer])
    counts: dict[str, list[tuple[int, int]]] = {"a": [], "b": []}
    for result in pipeline:
        first, second = (event.data["frames"] for event in result.events)
        counts[result.frame.source].append((first, second))
        assert result.timings["counter"] >= 0
    assert counts == {name: [(n, 2 * n) for n in range(1, 5)] for name in "ab"}
    assert [one.source for one in created] == ["a", "b"]
    assert all(one.closed >= 1 and one.resets == 0 for one in created)
    assert created[0].threads == {threading.current_thread().name}
    for source in "ab":
        assert observer.stages.count((source, "counter")) == 4
    assert pipeline.statistics.total_seconds("doubler") > 0


def test_processors_are_reset_after_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime_ssd.pipeline.capture.FIRST_RETRY_DELAY", 0.001)
    created: list[Counter] = []

    def create(info: SourceInfo) -> list[Processor]:
        created.append(Counter(info))
        return [created[-1]]

    source = ScriptedSource("cam", live=True, frames=1, error=SourceError("unplugged"))
    pipeline = Pipeline([source], FakeBackend(), PipelineOptions(max_frames=3), processors=create)
    counts = [result.events[0].data["frames"] for result in pipeline]
    assert counts == [1, 1, 1]
    assert created[0].resets >= 2


def test_a_failing_processor_is_named() -> None:
    class Failing(BaseProcessor):
        name = "zones"

        def process(self, result: FrameResult) -> FrameResult:
            if result.frame.index == 1:
                raise KeyError("door")
            return result

    pipeline = Pipeline([ScriptedSource(frames=5)], FakeBackend(), processors=lambda _: [Failing()])
    indices: list[int] = []
    with pytest.raises(RealtimeSSDError, match="processor 'zones' failed on frame 1 of 'x': KeyE"):
        indices.extend(result.frame.index for result in pipeline)
    total = pipeline.statistics.total
    assert total.processed == 1
    assert total.captured == total.processed + total.dropped.total()


def test_processors_already_created_are_closed_when_another_cannot_be() -> None:
    created: list[Counter] = []

    def create(info: SourceInfo) -> list[Processor]:
        if info.name == "b":
            raise ValueError("no zone for 'b'")
        created.append(Counter(info))
        return [created[-1]]

    with pytest.raises(ValueError, match="no zone for 'b'"):
        Pipeline([ScriptedSource("a"), ScriptedSource("b")], FakeBackend(), processors=create)
    assert created[0].closed == 1


def test_observers_see_every_outcome_stage_and_state() -> None:
    observer = RecordingObserver()
    backend = FakeBackend(timings={"network": 0.001})
    list(Pipeline([ScriptedSource(frames=3)], backend, observers=[observer]))
    assert observer.frames.count(("x", "captured")) == 3
    assert observer.frames.count(("x", "processed")) == 3
    stages = {stage for _, stage in observer.stages}
    assert stages == {"capture", "wait", "network", "sinks", "end_to_end"}
    assert observer.states == [("x", "online"), ("x", "ended")]


def test_stages_of_a_batch_of_several_sources_have_no_source() -> None:
    observer = RecordingObserver()
    backend = FakeBackend(max_batch=2, max_submit=2, timings={"network": 0.001})
    sources = [ScriptedSource(name, frames=4) for name in "ab"]
    options = PipelineOptions(batch_timeout=5)
    list(Pipeline(sources, backend, options, observers=[observer]))
    mixed = [len(set(call)) > 1 for call in backend.calls]
    assert any(mixed)
    assert (("", "network") in observer.stages) == any(mixed)


def test_a_failing_observer_is_logged_once_and_dropped(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(RecordingObserver):
        def on_frame(self, source: str, outcome: Outcome) -> None:
            super().on_frame(source, outcome)
            raise ConnectionError("no metrics server")

    failing, steady = Failing(), RecordingObserver()
    pipeline = Pipeline([ScriptedSource(frames=3)], FakeBackend(), observers=[failing, steady])
    assert len(list(pipeline)) == 3
    assert len(failing.frames) == 1
    assert steady.frames.count(("x", "processed")) == 3
    assert caplog.text.count("no metrics server") == 1
