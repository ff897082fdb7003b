"""Detectors in long-running programs: nothing is lost, no thread waits forever."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from realtime_ssd import Detector, open_source
from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from tests.tiny import bright_cell
from tests.videos import make_video

IMAGE = bright_cell((1, 1))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("v") / "a.mp4", [1001 * k for k in range(40)])


def resources() -> tuple[int, int, int]:
    """Return the number of threads and open files, and the memory in MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    tasks, files = (len(os.listdir(f"/proc/self/{name}")) for name in ("task", "fd"))
    return tasks, files, pages * os.sysconf("SC_PAGE_SIZE") >> 20


def call(model: Path, _: Path) -> None:
    with Detector(model, backend="onnxruntime") as detector:
        assert len(detector(IMAGE)) == 1


def call_without_closing(model: Path, _: Path) -> None:
    detector = Detector(model, backend="onnxruntime")
    assert len(detector(IMAGE)) == 1


def whole_stream(model: Path, video: Path) -> None:
    with Detector(model, backend="onnxruntime") as detector:
        assert sum(1 for _ in detector.stream(video, max_frames=4)) == 4


def dropped_stream(model: Path, video: Path) -> None:
    detector = Detector(model, backend="onnxruntime")
    stream = detector.stream(video)
    next(stream)
    del stream
    assert len(detector(IMAGE)) == 1
    detector.close()


def stream_that_is_never_started(model: Path, video: Path) -> None:
    with Detector(model, backend="onnxruntime") as detector:
        detector.stream(video)
        assert len(detector(IMAGE)) == 1


def closed_during_a_stream(model: Path, video: Path) -> None:
    detector = Detector(model, backend="onnxruntime")
    stream = detector.stream(video)
    next(stream)
    detector.close()
    with pytest.raises(RealtimeSSDError):
        for _ in stream:
            pass


def failed_model(model: Path, _: Path) -> None:
    with pytest.raises(UsageError):
        Detector(model, backend="onnxruntime", classes="none")


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "cycle",
    [
        call,
        call_without_closing,
        whole_stream,
        dropped_stream,
        stream_that_is_never_started,
        closed_during_a_stream,
        failed_model,
    ],
)
def test_200_cycles_lose_nothing(
    cycle: Callable[[Path, Path], None], tiny: Path, video: Path
) -> None:
    for _ in range(60):  # fills the pools of the allocator
        cycle(tiny, video)
    before = resources()
    for _ in range(200):
        cycle(tiny, video)
    after = _settled(before)
    assert after[:2] == before[:2]
    if cycle in (call, call_without_closing):
        assert after[2] <= before[2] + 1
    else:  # FFmpeg's threads leave arenas of the allocator behind, which are used again
        assert after[2] <= before[2] + 20


def _settled(expected: tuple[int, int, int]) -> tuple[int, int, int]:
    """Wait up to a second for threads that are about to end."""
    end = time.monotonic() + 1
    while (found := resources())[:2] != expected[:2] and time.monotonic() < end:
        threading.Event().wait(0.05)
    return found


def test_streams_and_calls_in_several_threads(tiny: Path, video: Path) -> None:
    """Each call answers or says that the detector is busy; none waits forever."""
    outcomes: list[str] = []
    with Detector(tiny, backend="onnxruntime") as detector:

        def use(number: int) -> None:
            try:
                if number % 2:
                    frames = sum(1 for _ in detector.stream(video))
                    outcomes.append(f"{frames} frames")
                else:
                    outcomes.append(f"{len(detector(IMAGE))} box")
            except UsageError as error:
                outcomes.append("busy" if "busy with a stream" in str(error) else str(error))

        threads = [threading.Thread(target=use, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    assert len(outcomes) == 12
    assert set(outcomes) <= {"40 frames", "1 box", "busy"}
    assert "40 frames" in outcomes


def test_a_stream_dropped_in_another_thread(tiny: Path, video: Path) -> None:
    with Detector(tiny, backend="onnxruntime") as detector:
        streams = [detector.stream(video)]
        next(streams[0])
        thread = threading.Thread(target=streams.clear)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        assert len(detector(IMAGE)) == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_refused(tiny: Path, video: Path) -> None:
    with Detector(tiny, backend="onnxruntime") as detector:
        detector(IMAGE)
        stream = detector.stream(video)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:  # pragma: no cover
            messages = []
            for use in (lambda: detector(IMAGE), lambda: next(stream)):
                try:
                    use()
                    messages.append("no error")
                except UsageError as error:
                    messages.append(str(error))
            detector.close()
            with Detector(tiny, backend="onnxruntime") as own:
                messages.append(f"{len(own(IMAGE))} box")
            os.write(writer, "\n".join(messages).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            first, second, boxes = pipe.read().splitlines()
        assert os.waitpid(child, 0)[1] == 0
        assert first.startswith("this detector was created before the process was forked; create")
        assert (second, boxes) == (first, "1 box")
        assert len(detector(IMAGE)) == 1


def test_open_sources_are_closed_when_they_are_dropped(video: Path) -> None:
    before = resources()[1]
    for _ in range(20):
        open_source(video)
    assert resources()[1] == before
