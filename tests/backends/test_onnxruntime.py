"""ONNX Runtime: several batches of a file at once, and the same answers however they are cut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from realtime_ssd.backends import BackendOptions
from realtime_ssd.backends import onnxruntime as module
from realtime_ssd.backends.onnxruntime import OnnxRuntimeBackend
from realtime_ssd.frames import Frame
from realtime_ssd.spec import read_spec
from tests.tiny import picture


def opened(path: Path, batch: int = 1, *, live: bool = False) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(path, read_spec(path), BackendOptions(batch=batch, live=live))


def run(backend: OnnxRuntimeBackend, frames: Sequence[Frame]) -> list[list[dict[str, object]]]:
    return [found.to_dicts() for found in backend.collect(backend.submit(frames))]


def frame(size: tuple[int, int] = (120, 160), number: int = 0) -> Frame:
    return Frame(picture((number % 4, number // 4 % 4), size), number)


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


@pytest.mark.parametrize(
    ("batch", "size", "expected"),
    [
        (1, (120, 160), 8),
        (3, (120, 160), 6),
        (16, (120, 160), 16),
        (1, (1080, 1920), 3),
        (1, (2160, 3840), 1),
        (2, (1080, 1920), 2),
        (4, (4320, 7680), 4),
    ],
)
def test_files_go_in_groups_that_fit_into_memory(
    tiny: Path, batch: int, size: tuple[int, int], expected: int
) -> None:
    with opened(tiny, batch) as backend:
        assert backend.max_batch == batch  # until it is known how long they take
        run(backend, [frame(size)])
        assert backend.max_batch == expected


def test_groups_of_a_slow_network_are_small(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_SECONDS", 0.0)
    with opened(tiny, 2) as backend:
        run(backend, [frame()])
        assert backend.max_batch == 2


def test_live_frames_go_at_once(tiny: Path) -> None:
    with opened(tiny, live=True) as backend:
        run(backend, [frame()])
        assert backend.max_batch == backend.capacity == 1
