"""The loop with real sources and backends: nothing lost of files, the newest of live sources."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from realtime_ssd.backends import Backend, BackendOptions, PendingBatch, open_backend
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import RealtimeSSDError, SourceError, UsageError
from realtime_ssd.core.frames import Frame, LazyImage, Surface
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd.pipeline import Pipeline, PipelineOptions
from realtime_ssd.pipeline import batch_sizer as module
from realtime_ssd.pipeline import loop as stopping
from realtime_ssd.sources import SourceInfo, open_source
from realtime_ssd.sources.base import BaseSource
from tests.videos import make_video


@pytest.fixture
def backend(tiny: Path) -> Backend:
    return open_backend(tiny, "onnxruntime", BackendOptions(batch=3))


class Scripted(BaseSource):
    """A source that does what a test tells it.

    Args:
        name: Its name.
        live: Whether it is live.
        frames: Frames to give.
        then: Raised after them; None ends the source.
        hold: Waited for after them.
    """

    def __init__(
        self,
        name: str,
        *,
        live: bool = False,
        frames: int = 3,
        then: BaseException | None = None,
        hold: threading.Event | None = None,
    ) -> None:
        self.info = SourceInfo(name, live=live)
        self._left, self._then, self._hold = frames, then, hold
        self._next = 0
        self.opened = 0
        self.given = threading.Event()

    def open(self) -> None:
        self.opened += 1

    def read(self) -> Frame | None:
        if self._next >= self._left:
            self.given.set()
            if self._hold is not None:
                self._hold.wait(30)
            if self._then is not None:
                raise self._then
            return None
        self._next += 1
        return Frame(np.zeros((20, 20, 3), np.uint8), self._next - 1, self.info.name)

    def interrupt(self) -> None:
        if self._hold is not None:
            self._hold.set()


def test_files_lose_nothing_and_keep_their_order(backend: Backend, tmp_path: Path) -> None:
    videos = [make_video(tmp_path / f"{n}.mp4", [1001 * k for k in range(25)]) for n in "ab"]
    loop = Pipeline([open_source(path) for path in videos], backend)
    order: dict[str, list[int]] = {str(path): [] for path in videos}
    for result in loop:
        order[result.frame.source].append(result.frame.index)
    assert all(indices == list(range(25)) for indices in order.values())
    total = loop.statistics.total
    assert (total.captured, total.processed, sum(total.dropped.values())) == (50, 50, 0)


def test_a_slow_consumer_of_a_live_source_gets_the_newest(backend: Backend) -> None:
    source = Scripted("cam", live=True, frames=200)
    loop = Pipeline([source], backend)
    seen = []
    for result in loop:
        assert source.given.wait(30)  # the source runs on while the first result is looked at
        seen.append(result.frame.index)
    assert seen == sorted(set(seen))
    assert seen[-1] == 199
    assert len(seen) < 20
    total = loop.statistics.total
    assert total.captured == 200
    assert total.dropped["replaced"] == 200 - len(seen)


def test_limit(backend: Backend) -> None:
    loop = Pipeline([Scripted("x", frames=50)], backend, PipelineOptions(max_frames=7))
    assert len(list(loop)) == 7


def test_damage_is_told_after_the_frames_before_it(backend: Backend) -> None:
    loop = Pipeline([Scripted("x", frames=5, then=SourceError("'x' is damaged"))], backend)
    seen = []
    with pytest.raises(SourceError, match="'x' is damaged"):
        seen.extend(result.frame.index for result in loop)
    assert loop.statistics.total.processed == 5


def test_a_crash_in_a_source_names_the_stage(backend: Backend) -> None:
    loop = Pipeline([Scripted("x", then=ZeroDivisionError("oh"))], backend)
    with pytest.raises(RealtimeSSDError, match="reading 'x' failed: ZeroDivisionError: oh"):
        list(loop)


class Crashing:
    """A backend whose second batch fails when it is submitted or collected."""

    name, max_batch, max_submit, max_in_flight, converts_frames = "crashing", 1, 1, 2, True

    def __init__(self, real: Backend, where: str) -> None:
        self.spec, self._real, self._where, self._count = real.spec, real, where, 0

    def _crash(self, where: str) -> None:
        self._count += where == self._where
        if self._count == 2:
            raise MemoryError("no memory")

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        self._crash("submit")
        return self._real.submit(frames)

    def collect(self, ticket: PendingBatch) -> list[Detections]:
        self._crash("collect")
        return self._real.collect(ticket)


@pytest.mark.parametrize("where", ["submit", "collect"])
def test_a_crash_in_inference_ends_the_program(backend: Backend, where: str) -> None:
    loop = Pipeline([Scripted("x", frames=50)], Crashing(backend, where))  # type: ignore[arg-type]
    with pytest.raises(RealtimeSSDError, match=r"inference failed: .* memory \(no memory\)"):
        list(loop)


class Grouping:
    """A backend that takes several batches at once, and records how many and which thread converts them.

    Args:
        converts_frames: See `Backend`.
        spec: See `Backend`.
    """

    name, max_in_flight, max_batch, max_submit = "grouping", 1, 2, 8

    def __init__(self, spec: ModelSpec, *, converts_frames: bool = True) -> None:
        self.spec, self.converts_frames = spec, converts_frames
        self.sizes: list[int] = []

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        self.sizes.append(len(frames))
        images = [frame.image for frame in frames]
        return PendingBatch(tuple(frames), images, {"network": 0.002}, len(frames))

    def collect(self, ticket: PendingBatch) -> list[Detections]:
        return [Detections.empty()] * len(ticket.frames)


def test_a_backend_gets_as_many_frames_as_it_likes(backend: Backend) -> None:
    grouping = Grouping(backend.spec)
    loop = Pipeline([Scripted("x", frames=80)], grouping)  # type: ignore[arg-type]
    assert [result.frame.index for result in loop] == list(range(80))
    assert grouping.sizes[0] == 2  # until it is known how fast they go
    assert all(later <= 2 * before for before, later in pairwise(grouping.sizes))
    assert grouping.sizes.count(8) >= 6
    assert loop.statistics.spent("network") == pytest.approx(80 * 0.002)
    assert loop.statistics.latency("network") == pytest.approx(0.002, rel=0.02)


@pytest.mark.parametrize(
    ("limit", "value", "most"),
    [("AHEAD_SECONDS", 0.0, 2), ("AHEAD_PIXELS", 1000.0, 2), ("AHEAD_PIXELS", 2000.0, 4)],
)
def test_frames_that_are_slow_or_large_go_in_fewer(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, most: int
) -> None:
    monkeypatch.setattr(module, limit, value)
    grouping = Grouping(backend.spec)
    list(Pipeline([Scripted("x", frames=40)], grouping))  # type: ignore[arg-type]
    assert max(grouping.sizes) == most
    assert sum(grouping.sizes) == 40


def test_a_stopped_program_does_not_wait_for_a_slow_consumer(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "STOP_SECONDS", 0.0)
    loop = Pipeline([Scripted("x", frames=50)], backend)
    results = loop.results()
    next(results)
    loop.stop()
    assert list(results) == []
    total = loop.statistics.total
    assert total.processed == 1
    assert total.captured == 1 + total.dropped["stopped"]


class Late(Scripted):
    """Gives frames that are painted late and tell in which thread."""

    def __init__(
        self, frames: int = 4, bad: int | None = None, surface: Surface | None = None
    ) -> None:
        super().__init__("late", frames=frames)
        self.painters: list[str] = []
        self._bad, self._surface = bad, surface

    def read(self) -> Frame | None:
        frame = super().read()
        if frame is None:
            return None
        pixels = LazyImage(partial(self._paint, frame.index), 20, 20)
        return Frame(pixels, frame.index, "late", surface=self._surface)

    def _paint(self, index: int) -> np.ndarray:  # type: ignore[type-arg]
        if index == self._bad:
            raise SourceError("'late' cannot be painted")
        self.painters.append(threading.current_thread().name)
        return np.zeros((20, 20, 3), np.uint8)


@pytest.mark.parametrize(("converts_frames", "painter"), [(True, "infer"), (False, "capture-late")])
def test_pictures_are_made_where_the_backend_wants_them(
    backend: Backend, converts_frames: bool, painter: str
) -> None:
    source = Late()
    list(Pipeline([source], Grouping(backend.spec, converts_frames=converts_frames)))  # type: ignore[arg-type]
    assert source.painters == [painter] * 4


@pytest.mark.parametrize(("converts_frames", "painter"), [(True, "capture-late"), (False, "infer")])
def test_only_a_backend_on_the_gpu_holds_surfaces(
    backend: Backend, converts_frames: bool, painter: str
) -> None:
    surface = Surface(20, 20, (1, 2), (20, 20), "bt601", False, owner=None)
    source = Late(surface=surface)
    grouping = Grouping(backend.spec, converts_frames=converts_frames)
    results = list(Pipeline([source], grouping))  # type: ignore[arg-type]
    assert source.painters == [painter] * 4
    kept = None if converts_frames else surface
    assert [result.frame.surface for result in results] == [kept] * 4


@pytest.mark.parametrize("bad", [1, 20, 39])
def test_all_frames_before_a_bad_one_come_and_every_fate_is_known(tiny: Path, bad: int) -> None:
    with open_backend(tiny, "onnxruntime", BackendOptions()) as real:
        loop = Pipeline([Late(40, bad)], real)
        results = loop.results()
        assert [next(results).frame.index for _ in range(bad)] == list(range(bad))
        with pytest.raises(SourceError, match="cannot be painted"):
            next(results)
    total = loop.statistics.total
    assert total.processed == bad
    assert total.captured == total.processed + total.dropped.total()


def test_the_fate_of_every_frame_is_known_when_the_consumer_stops(backend: Backend) -> None:
    loop = Pipeline([Scripted("x", frames=50)], backend)
    results = loop.results()
    for _ in range(5):
        next(results)
    results.close()  # type: ignore[attr-defined]
    total = loop.statistics.total
    assert total.processed == 4
    assert total.captured == total.processed + total.dropped["stopped"]


def test_a_stalled_source_is_noticed_and_opened_again(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    source = Scripted("cam", live=True, frames=3, hold=threading.Event())
    loop = Pipeline([source], backend, PipelineOptions(stall_seconds=0.2))

    def seen_again() -> None:
        if source.opened > 1:
            loop.stop()

    for _ in loop.results(seen_again):
        pass
    assert source.opened > 1
    assert loop.statistics.total.losses >= 1
    assert "no frame for" in caplog.text


class Gone(Scripted):
    """Gives one frame and then cannot be opened any more."""

    def __init__(self) -> None:
        super().__init__("cam", live=True, frames=1, then=SourceError("unplugged"))
        self.tries: list[float] = []

    def open(self) -> None:
        self.opened += 1
        if self.opened > 1:
            self.tries.append(time.monotonic())
            raise SourceError("not there")


def test_tries_to_open_again_come_ever_more_seldom(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime_ssd.pipeline.capture.FIRST_PAUSE", 0.02)
    source = Gone()
    loop = Pipeline([source], backend)

    def enough() -> None:
        if len(source.tries) >= 5:
            loop.stop()

    for _ in loop.results(enough, 0.005):
        pass
    gaps = [after - before for before, after in pairwise(source.tries[:5])]
    assert all(gap >= least for gap, least in zip(gaps, (0.04, 0.08, 0.16, 0.32), strict=True))
    assert loop.statistics.total.losses == 1


def test_wrong_sources(backend: Backend) -> None:
    with pytest.raises(UsageError, match="there is no source"):
        Pipeline([], backend)
    with pytest.raises(UsageError, match="is given twice"):
        Pipeline([Scripted("x"), Scripted("x")], backend)
    with pytest.raises(RealtimeSSDError, match="nobody answers"):
        list(Pipeline([_Refusing("cam", live=True)], backend))


class _Refusing(Scripted):
    def open(self) -> None:
        raise SourceError("nobody answers")


def test_a_source_that_never_answers_is_told_once(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    source = Gone()
    source.opened = 1
    with pytest.raises(SourceError, match="not there"):
        list(Pipeline([source], backend))
    assert not caplog.text


def test_nothing_dropped_is_not_counted(backend: Backend) -> None:
    loop = Pipeline([Scripted("x", frames=3)], backend)
    for _ in loop:
        loop.stop()
    assert 0 not in loop.statistics.to_dict()["dropped"].values()
