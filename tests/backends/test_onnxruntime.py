"""ONNX Runtime: several batches of a file at once, and the same answers however they are cut."""

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


def opened(path: Path, batch: int = 1, *, live: bool = False) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(path, read_spec(path), BackendOptions(batch=batch, live=live))


def run(backend: OnnxRuntimeBackend, frames: Sequence[Frame]) -> list[list[dict[str, object]]]:
    return [found.to_dicts() for found in backend.collect(backend.submit(frames))]


def frame(size: tuple[int, int] = (120, 160), number: int = 0) -> Frame:
    return Frame(bright_cell((number % 4, number // 4 % 4), size), number)


@pytest.mark.parametrize("batch", [1, 3])
def test_answers_do_not_depend_on_how_many_go_at_once(tiny: Path, batch: int) -> None:
    frames = [frame(number=number) for number in range(8)]
    with opened(tiny, batch) as backend:
        one_by_one = [run(backend, [one])[0] for one in frames]
        ticket = backend.submit(frames)
        together = [found.to_dicts() for found in backend.collect(ticket)]
    assert together == one_by_one
    assert len({str(found) for found in together}) == 8
    assert ticket.passes == -(-8 // batch)
    assert set(ticket.timings) == {"preprocess", "network", "postprocess"}


@pytest.mark.parametrize(("batch", "group"), [(1, 8), (3, 6), (16, 16)])
def test_files_go_in_groups_of_whole_batches(tiny: Path, batch: int, group: int) -> None:
    with opened(tiny, batch) as backend:
        assert (backend.max_batch, backend.max_submit, backend.converts_frames) == (
            batch,
            group,
            True,
        )
    with opened(tiny, batch, live=True) as backend:
        assert (backend.max_batch, backend.max_submit, backend.converts_frames) == (
            batch,
            batch,
            False,
        )
        assert backend.max_in_flight == 1


@pytest.mark.parametrize("bad", [0, 1, 5])
def test_frames_before_a_bad_one_are_answered(tiny: Path, bad: int) -> None:
    frames = [frame(number=number) for number in range(8)]

    def paint() -> Image:
        raise SourceError("cannot be painted")

    expected: list[list[dict[str, object]]] = []
    with opened(tiny, 2) as backend:
        expected = run(backend, frames[: bad // 2 * 2]) if bad > 1 else []
        frames[bad] = Frame(LazyImage(paint, 160, 120), bad)
        ticket = backend.submit(frames)
        if not expected:
            with pytest.raises(SourceError, match="cannot be painted"):
                backend.collect(ticket)
        else:
            assert [found.to_dicts() for found in backend.collect(ticket)] == expected
            assert isinstance(ticket.error, SourceError)
