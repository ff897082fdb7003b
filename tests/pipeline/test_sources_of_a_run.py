"""Many files one after the other, sources that are down at the start, slow sources."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from realtime_ssd.backends import open_backend
from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.pipeline import Pipeline, PipelineOptions
from realtime_ssd.sources import SourceInfo
from realtime_ssd.sources.base import BaseSource
from tests.pipeline.fakes import ScriptedSource


class CountedFile(ScriptedSource):
    """A file that records how many are read at the same time."""

    reading: set[str]
    most: list[int]

    def read(self) -> Frame | None:
        self.reading.add(self.info.name)
        self.most.append(len(self.reading))
        frame = super().read()
        if frame is None:
            self.reading.discard(self.info.name)
        return frame


def test_files_are_read_a_few_at_a_time_and_reported_as_they_finish(tiny: Path) -> None:
    CountedFile.reading, CountedFile.most = set(), []
    names = [f"{number}.mp4" for number in range(20)]
    sources = [CountedFile(name, frames=3) for name in names]
    finished: list[str] = []
    seen: dict[str, int] = dict.fromkeys(names, 0)
    with open_backend(tiny) as backend:
        pipeline = Pipeline(sources, backend, PipelineOptions(max_open_files=2))
        for result in pipeline:
            seen[result.frame.source] += 1
            finished += pipeline.finished_sources()
            assert all(seen[name] == 3 for name in finished)
    finished += pipeline.finished_sources()
    assert sorted(finished) == sorted(names)
    assert set(seen.values()) == {3}
    assert max(CountedFile.most) <= 3  # one may begin while another reports its end
    assert not any(capture.state != "ended" for capture in pipeline.captures)


def test_files_that_were_never_started_are_closed_when_a_run_is_stopped(tiny: Path) -> None:
    closed: list[str] = []

    class Recorded(ScriptedSource):
        def close(self) -> None:
            closed.append(self.info.name)

    sources = [Recorded(f"{number}.mp4", frames=3) for number in range(20)]
    with open_backend(tiny) as backend:
        pipeline = Pipeline(sources, backend, PipelineOptions(max_open_files=1))
        next(iter(pipeline))
        pipeline.close()
    assert set(closed) == {source.info.name for source in sources}


class DownAtFirst(BaseSource):
    """A live source that cannot be opened the first two times."""

    def __init__(self, error: Exception) -> None:
        self.info = SourceInfo("late", live=True)
        self._error, self._openings = error, 0

    def open(self) -> None:
        self._openings += 1
        if self._openings <= 2:
            raise self._error

    def read(self) -> Frame | None:
        return Frame(np.zeros((8, 8, 3), np.uint8), source="late", pts=self._openings)


@pytest.mark.parametrize("error", [SourceError("refused"), UsageError("camera 7 does not exist")])
def test_source_that_is_down_at_the_start_is_waited_for(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("realtime_ssd.pipeline.capture.FIRST_RETRY_DELAY", 0.01)
    with open_backend(tiny) as backend:
        options = PipelineOptions(wait=True, max_frames=3)
        results = list(Pipeline([DownAtFirst(error)], backend, options))
        assert len(results) == 3
        with pytest.raises(type(error), match=str(error)):
            list(Pipeline([DownAtFirst(error)], backend, PipelineOptions(max_frames=3)))


def test_source_slower_than_the_stall_timeout_does_not_stall(tiny: Path) -> None:
    class Slow(ScriptedSource):
        def read(self) -> Frame | None:
            waiting.wait(0.3)
            return super().read()

    waiting = threading.Event()
    source = Slow("snapshot", live=True, frames=3, hold=threading.Event())
    source.info = SourceInfo("snapshot", live=True, rate=None)
    from dataclasses import replace
    from fractions import Fraction

    source.info = replace(source.info, rate=Fraction(1, 5))
    with open_backend(tiny) as backend:
        pipeline = Pipeline([source], backend, PipelineOptions(stall_timeout=0.05, max_frames=2))
        assert len(list(pipeline)) == 2
    assert pipeline.statistics.total.losses == 0
