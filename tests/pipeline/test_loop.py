"""Files lose no frame, live sources deliver the newest, every frame has an outcome."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from realtime_ssd.backends import Backend, BackendOptions, PendingBatch, open_backend
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import RealtimeSSDError, SourceError
from realtime_ssd.core.frames import Frame, Image, LazyImage, Surface
from realtime_ssd.pipeline import Pipeline, PipelineOptions
from realtime_ssd.pipeline.frame_queue import FILE_QUEUE_SIZE
from realtime_ssd.sources import Source, open_source
from tests.pipeline.fakes import FakeBackend, RecordingObserver, ScriptedSource
from tests.videos import make_video


@pytest.fixture
def backend(tiny: Path) -> Backend:
    return open_backend(tiny, "onnxruntime", BackendOptions(batch=3))


def test_files_lose_no_frame_and_keep_their_order(backend: Backend, tmp_path: Path) -> None:
    videos = [make_video(tmp_path / f"{n}.mp4", [1001 * k for k in range(25)]) for n in "ab"]
    pipeline = Pipeline([open_source(path) for path in videos], backend)
    order: dict[str, list[int]] = {str(path): [] for path in videos}
    for result in pipeline:
        order[result.frame.source].append(result.frame.index)
    assert all(indices == list(range(25)) for indices in order.values())
    total = pipeline.statistics.total
    assert (total.captured, total.processed, total.dropped.total()) == (50, 50, 0)


def test_slow_consumer_of_a_live_source_receives_the_newest_frame(backend: Backend) -> None:
    source = ScriptedSource("cam", live=True, frames=200)
    pipeline = Pipeline([source], backend)
    indices: list[int] = []
    for result in pipeline:
        assert source.exhausted.wait(30)  # the source continues while the first result is consumed
        indices.append(result.frame.index)
    assert indices == sorted(set(indices))
    assert indices[-1] == 199
    assert len(indices) < 20
    total = pipeline.statistics.total
    assert total.captured == 200
    assert total.dropped["replaced"] == 200 - len(indices)


def test_max_frames_limits_each_source(backend: Backend) -> None:
    pipeline = Pipeline([ScriptedSource(frames=50)], backend, PipelineOptions(max_frames=7))
    assert len(list(pipeline)) == 7


def test_damage_is_reported_after_the_frames_before_it(backend: Backend) -> None:
    source = ScriptedSource(frames=5, error=SourceError("'x' is damaged"))
    pipeline = Pipeline([source], backend)
    with pytest.raises(SourceError, match="'x' is damaged"):
        list(pipeline)
    assert pipeline.statistics.total.processed == 5


def test_crash_in_a_source_names_the_stage(backend: Backend) -> None:
    pipeline = Pipeline([ScriptedSource(error=ZeroDivisionError("oh"))], backend)
    with pytest.raises(RealtimeSSDError, match="reading 'x' failed: ZeroDivisionError: oh"):
        list(pipeline)


@pytest.mark.parametrize("method", ["submit", "collect"])
def test_crash_in_inference_ends_the_run(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend(max_in_flight=2)
    calls = 0
    original = getattr(backend, method)

    def crash_on_second_call(argument: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise MemoryError("no memory")
        return original(argument)

    monkeypatch.setattr(backend, method, crash_on_second_call)
    pipeline = Pipeline([ScriptedSource(frames=50)], backend)
    with pytest.raises(RealtimeSSDError, match=r"memory \(no memory\)"):
        list(pipeline)


def test_calls_grow_to_what_the_backend_accepts() -> None:
    backend = FakeBackend(max_batch=2, max_submit=8, timings={"network": 0.002})
    pipeline = Pipeline([ScriptedSource(frames=80)], backend)
    assert [result.frame.index for result in pipeline] == list(range(80))
    sizes = [len(call) for call in backend.calls]
    assert sizes[0] == 2
    assert all(later <= 2 * before for before, later in pairwise(sizes))
    assert sizes.count(8) >= 6
    assert pipeline.statistics.total_seconds("network") == pytest.approx(80 * 0.002)
    assert pipeline.statistics.latency("network") == pytest.approx(0.002, rel=0.02)


@pytest.mark.parametrize(
    ("limit", "value", "largest"),
    [
        ("MAX_SECONDS_IN_FLIGHT", 0.0, 2),
        ("MAX_PIXELS_IN_FLIGHT", 1000.0, 2),
        ("MAX_PIXELS_IN_FLIGHT", 2000.0, 4),
    ],
)
def test_slow_or_large_frames_are_submitted_in_smaller_calls(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: float, largest: int
) -> None:
    monkeypatch.setattr(f"realtime_ssd.pipeline.batch_sizer.{limit}", value)
    backend = FakeBackend(max_batch=2, max_submit=8)
    list(Pipeline([ScriptedSource(frames=40)], backend))
    sizes = [len(call) for call in backend.calls]
    assert max(sizes) == largest
    assert sum(sizes) == 40


def test_sources_are_served_in_turn() -> None:
    """One source that always has frames must not delay another."""
    sources = [ScriptedSource(name, frames=20) for name in "abc"]
    taken = Counter[str]()

    class WaitsForFullQueues(FakeBackend):
        def submit(self, frames: Sequence[Frame]) -> PendingBatch:
            taken.update(frame.source for frame in frames)
            deadline = time.monotonic() + 30
            # A capture thread reads one frame more than its queue holds.
            while any(
                source.read_frames < min(20, taken[source.info.name] + FILE_QUEUE_SIZE + 1)
                for source in sources
            ):
                assert time.monotonic() < deadline
                threading.Event().wait(0.001)
            return super().submit(frames)

    backend = WaitsForFullQueues(max_in_flight=1)
    order = [result.frame.source for result in Pipeline(sources, backend)]
    assert sorted(order) == sorted("abc" * 20)
    # The first frames depend on which capture thread starts first; then all queues are full.
    for start in range(9, 48, 3):
        assert set(order[start : start + 3]) == set("abc"), order


def test_stop_does_not_wait_for_a_slow_consumer(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime_ssd.pipeline.loop.STOP_TIMEOUT", 0.0)
    pipeline = Pipeline([ScriptedSource(frames=50)], backend)
    results = pipeline.results()
    next(results)
    pipeline.stop()
    assert list(results) == []
    total = pipeline.statistics.total
    assert total.processed == 1
    assert total.captured == 1 + total.dropped["stopped"]


class LazySource(ScriptedSource):
    """Delivers frames that are converted on first access, and records which thread converts.

    Args:
        bad: Index of a frame whose conversion fails.
        surface: Surface of every frame.
    """

    def __init__(
        self, frames: int = 4, bad: int | None = None, surface: Surface | None = None
    ) -> None:
        super().__init__("lazy", frames=frames)
        self.converters: list[str] = []
        self._bad, self._surface = bad, surface

    def make_frame(self, index: int) -> Frame:
        def convert() -> Image:
            if index == self._bad:
                raise SourceError("'lazy' cannot be converted")
            self.converters.append(threading.current_thread().name)
            return np.zeros((20, 20, 3), np.uint8)

        return Frame(LazyImage(convert, 20, 20), index, "lazy", surface=self._surface)


@pytest.mark.parametrize(("converts_frames", "thread"), [(True, "infer"), (False, "capture-lazy")])
def test_frames_are_converted_where_the_backend_wants_it(
    converts_frames: bool, thread: str
) -> None:
    source = LazySource()
    list(Pipeline([source], FakeBackend(converts_frames=converts_frames)))
    assert source.converters == [thread] * 4


@pytest.mark.parametrize(("converts_frames", "thread"), [(True, "capture-lazy"), (False, "infer")])
def test_only_a_gpu_backend_keeps_surfaces(converts_frames: bool, thread: str) -> None:
    surface = Surface(20, 20, (1, 2), (20, 20), "bt601", False, owner=None)
    source = LazySource(surface=surface)
    results = list(Pipeline([source], FakeBackend(converts_frames=converts_frames)))
    assert set(source.converters) <= {thread, "infer"}
    kept = None if converts_frames else surface
    assert [result.frame.surface for result in results] == [kept] * 4


@pytest.mark.parametrize("bad", [1, 20, 39])
def test_frames_before_a_bad_one_are_processed_and_all_are_counted(tiny: Path, bad: int) -> None:
    with open_backend(tiny, "onnxruntime", BackendOptions()) as real:
        pipeline = Pipeline([LazySource(40, bad)], real)
        results = pipeline.results()
        assert [next(results).frame.index for _ in range(bad)] == list(range(bad))
        with pytest.raises(SourceError, match="cannot be converted"):
            next(results)
    total = pipeline.statistics.total
    assert total.processed == bad
    assert total.captured == total.processed + total.dropped.total()


def test_every_frame_has_an_outcome_when_the_consumer_stops(backend: Backend) -> None:
    pipeline = Pipeline([ScriptedSource(frames=50)], backend)
    results = pipeline.results()
    for _ in range(5):
        next(results)
    results.close()  # type: ignore[attr-defined]
    total = pipeline.statistics.total
    assert total.processed == 4
    assert total.captured == total.processed + total.dropped["stopped"]


def test_no_outcome_is_listed_with_zero_frames(backend: Backend) -> None:
    pipeline = Pipeline([ScriptedSource(frames=3)], backend)
    for _ in pipeline:
        pipeline.stop()
    assert 0 not in pipeline.statistics.to_dict()["dropped"].values()


def test_latency_of_files_is_not_counted_alongside_live_sources() -> None:
    observer = RecordingObserver()
    sources: list[Source] = [ScriptedSource("cam", live=True), ScriptedSource("file", frames=8)]
    pipeline = Pipeline(sources, FakeBackend(), observers=[observer])
    for _ in pipeline:
        if pipeline.statistics.sources["file"].processed >= 7:
            pipeline.stop()
    measured = {source for source, stage in observer.stages if stage == "end_to_end"}
    assert measured == {"cam"}
    alone = RecordingObserver()
    list(Pipeline([ScriptedSource("file")], FakeBackend(), observers=[alone]))
    assert ("file", "end_to_end") in alone.stages


def test_batches_wait_for_other_sources_up_to_the_batch_timeout() -> None:
    """A frame of the second camera arrives while the batch of the first one waits."""
    release = threading.Event()

    class Second(ScriptedSource):
        def make_frame(self, index: int) -> Frame:
            assert release.wait(30)
            return super().make_frame(index)

    class First(ScriptedSource):
        def read(self) -> Frame | None:
            frame = super().read()
            if frame is None:
                release.set()
            return frame

    hold = threading.Event()
    sources: list[Source] = [
        First("a", live=True, frames=1),
        Second("b", live=True, frames=1, hold=hold),
    ]
    backend = FakeBackend(max_batch=2, max_submit=2)
    pipeline = Pipeline(sources, backend, PipelineOptions(batch_timeout=30))
    started = time.monotonic()
    for _ in pipeline:
        hold.set()
    assert [sorted(call) for call in backend.calls] == [["a", "b"]]
    assert time.monotonic() - started < 20


def test_live_frames_do_not_wait_by_default() -> None:
    hold = threading.Event()
    sources: list[Source] = [
        ScriptedSource("a", live=True, frames=1, hold=hold),
        ScriptedSource("b", live=True, frames=0, hold=hold),
    ]
    backend = FakeBackend(max_batch=2, max_submit=2)
    pipeline = Pipeline(sources, backend)
    for _ in pipeline:  # arrives although no frame of "b" ever does
        hold.set()
    assert backend.calls == [["a"]]


def test_batch_results_keep_the_error_of_a_later_frame() -> None:
    class PartialBackend(FakeBackend):
        def collect(self, batch: PendingBatch) -> list[Detections]:
            batch.error = ValueError("third frame")
            return [Detections.empty()] * 2

    backend = PartialBackend(max_batch=3, max_submit=3)
    pipeline = Pipeline([ScriptedSource(frames=3)], backend)
    indices: list[int] = []
    with pytest.raises(RealtimeSSDError, match="inference failed: ValueError: third frame"):
        indices.extend(result.frame.index for result in pipeline)
    assert pipeline.statistics.total.processed == 2


def test_a_pipeline_runs_only_once() -> None:
    pipeline = Pipeline([ScriptedSource()], FakeBackend())
    list(pipeline)
    with pytest.raises(RuntimeError, match="only once"):
        list(pipeline)
