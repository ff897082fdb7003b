"""ONNX Runtime: the same answers however frames are split into calls and batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from realtime_ssd.backends import BackendOptions
from realtime_ssd.backends.onnxruntime import OnnxRuntimeBackend
from realtime_ssd.core.errors import SourceError
from realtime_ssd.core.frames import Frame, Image, LazyImage
from realtime_ssd.core.spec import read_spec
from tests.tiny import bright_cell


def open_tiny(path: Path, batch: int = 1, *, live: bool = False) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(path, read_spec(path), BackendOptions(batch=batch, live=live))


def detect(backend: OnnxRuntimeBackend, frames: Sequence[Frame]) -> list[list[dict[str, object]]]:
    return [detections.to_dicts() for detections in backend.collect(backend.submit(frames))]


def frame(size: tuple[int, int] = (120, 160), number: int = 0) -> Frame:
    return Frame(bright_cell((number % 4, number // 4 % 4), size), number)


@pytest.mark.parametrize("batch", [1, 3])
def test_answers_do_not_depend_on_the_size_of_a_call(tiny: Path, batch: int) -> None:
    frames = [frame(number=number) for number in range(8)]
    with open_tiny(tiny, batch) as backend:
        one_by_one = [detect(backend, [each])[0] for each in frames]
        pending = backend.submit(frames)
        together = [detections.to_dicts() for detections in backend.collect(pending)]
    assert together == one_by_one
    assert len({str(each) for each in together}) == 8
    assert pending.passes == -(-8 // batch)
    assert set(pending.timings) == {"preprocess", "network", "postprocess"}


@pytest.mark.parametrize(("batch", "max_submit"), [(1, 8), (3, 6), (16, 16)])
def test_calls_for_files_hold_whole_batches(tiny: Path, batch: int, max_submit: int) -> None:
    with open_tiny(tiny, batch) as backend:
        assert (backend.max_batch, backend.max_submit, backend.converts_frames) == (
            batch,
            max_submit,
            True,
        )
    with open_tiny(tiny, batch, live=True) as backend:
        assert (backend.max_batch, backend.max_submit, backend.converts_frames) == (
            batch,
            batch,
            False,
        )
        assert backend.max_in_flight == 1


@pytest.mark.parametrize("bad", [0, 1, 5])
def test_frames_before_a_bad_one_are_detected(tiny: Path, bad: int) -> None:
    frames = [frame(number=number) for number in range(8)]

    def fail() -> Image:
        raise SourceError("cannot be converted")

    expected: list[list[dict[str, object]]] = []
    with open_tiny(tiny, 2) as backend:
        expected = detect(backend, frames[: bad // 2 * 2]) if bad > 1 else []
        frames[bad] = Frame(LazyImage(fail, 160, 120), bad)
        pending = backend.submit(frames)
        if not expected:
            with pytest.raises(SourceError, match="cannot be converted"):
                backend.collect(pending)
        else:
            assert [detections.to_dicts() for detections in backend.collect(pending)] == expected
            assert isinstance(pending.error, SourceError)
