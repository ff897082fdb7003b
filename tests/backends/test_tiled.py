"""`TiledBackend`: small objects of large frames, batches, errors and timings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from realtime_ssd import Detector
from realtime_ssd.backends import BackendOptions, PendingBatch, open_backend
from realtime_ssd.backends.tiled import TiledBackend
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.tiles import TileOptions
from tests.tiny import tiny_spec


def spots(*corners: tuple[int, int]) -> Image:
    """Return a dark frame of 640 × 480 pixels with bright spots of 16 × 16 pixels."""
    image = np.zeros((480, 640, 3), np.uint8)
    for x, y in corners:
        image[y : y + 16, x : x + 16] = 255
    return image


OPTIONS = TileOptions((64, 64), 0.5)


class CountingBackend:
    """Answers with the mean brightness of each frame; records what was submitted."""

    name = "counting"
    converts_frames = True

    def __init__(self, max_submit: int = 4, max_in_flight: int = 2) -> None:
        self.spec = tiny_spec()
        self.max_batch, self.max_submit, self.max_in_flight = 1, max_submit, max_in_flight
        self.running: list[PendingBatch] = []
        self.calls: list[int] = []
        self.frames: list[Frame] = []
        self.fail_at: int | None = None
        self.closed = False

    def submit(self, frames: Sequence[Frame]) -> PendingBatch:
        assert len(self.running) < self.max_in_flight
        assert 1 <= len(frames) <= self.max_submit
        self.calls.append(len(frames))
        self.frames += frames
        batch = PendingBatch(tuple(frames))
        self.running.append(batch)
        return batch

    def collect(self, batch: PendingBatch) -> list[Detections]:
        assert self.running.pop(0) is batch
        if self.fail_at is not None and len(self.calls) > self.fail_at:
            raise ModelError("the model failed")
        batch.timings["network"], batch.passes = 0.25, len(batch.frames)
        return [Detections.empty(self.spec.labels) for _ in batch.frames]

    def __enter__(self) -> CountingBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True


def test_small_objects_are_found_in_tiles_only(tiny: Path) -> None:
    corners = [(100, 60), (411, 333), (624, 0)]
    with open_backend(tiny, "onnxruntime") as backend:
        assert len(backend.collect(backend.submit([Frame(spots(*corners))]))[0]) == 0
    with Detector(tiny, backend="onnxruntime", tile="64x64", overlap=0.5) as detector:
        detections = detector(spots(*corners))
    assert len(detections) >= 3
    centers = (detections.boxes[:, :2] + detections.boxes[:, 2:]) / 2
    for x, y in corners:
        assert np.abs(centers - [x + 8, y + 8]).max(axis=1).min() <= 12
    for x, y in centers:  # nothing else is found
        assert min(abs(x - a - 8) + abs(y - b - 8) for a, b in corners) <= 24


def test_frames_that_fit_a_tile_take_one_pass(tiny: Path) -> None:
    frame = Frame(spots((100, 60))[:70, :70])
    with open_backend(tiny, "onnxruntime") as backend:
        expected = backend.collect(backend.submit([frame]))[0].to_dicts()
    inner = CountingBackend()
    tiled = TiledBackend(inner, OPTIONS)
    tiled.collect(tiled.submit([frame]))
    assert inner.calls == [1]
    assert inner.frames[0] is frame
    with open_backend(tiny, "onnxruntime", BackendOptions(tile=OPTIONS)) as backend:
        assert backend.collect(backend.submit([frame]))[0].to_dicts() == expected


@pytest.mark.parametrize(("max_submit", "max_in_flight"), [(1, 1), (4, 1), (4, 2), (8, 3)])
def test_tiles_run_in_batches_within_the_limits(max_submit: int, max_in_flight: int) -> None:
    inner = CountingBackend(max_submit, max_in_flight)
    tiled = TiledBackend(inner, TileOptions((320, 320), 0.2))
    batch = tiled.submit([Frame(spots(), 7, "camera", 3)])
    assert tiled.collect(batch)[0].to_dicts() == []
    assert sum(inner.calls) == 7  # 3 × 2 tiles and the whole frame
    assert len(inner.calls) == max(-(-7 // max_submit), min(7, max_in_flight))
    assert batch.timings == {"network": pytest.approx(7 * 0.25)}
    assert batch.passes == 1
    assert not inner.running
    assert {(frame.index, frame.source, frame.pts) for frame in inner.frames} == {(7, "camera", 3)}
    assert (tiled.max_batch, tiled.max_submit, tiled.max_in_flight) == (1, 1, 1)
    tiled.close()
    assert inner.closed


def test_tiles_are_the_pixels_of_their_regions() -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    inner = CountingBackend(99, 1)
    tiled = TiledBackend(inner, TileOptions((320, 320), 0.2))
    tiled.collect(tiled.submit([Frame(image)]))
    whole, first, *_, last = (frame.image for frame in inner.frames)
    assert np.array_equal(whole, image)
    assert np.array_equal(first, image[:320, :320])
    assert np.array_equal(last, image[160:, 320:])


def test_an_error_in_a_tile_is_raised_after_the_others_ended() -> None:
    inner = CountingBackend(1, 2)
    inner.fail_at = 3
    tiled = TiledBackend(inner, TileOptions((320, 320), 0.2))
    batch = tiled.submit([Frame(spots())])
    with pytest.raises(ModelError, match="the model failed"):
        tiled.collect(batch)
    assert not inner.running
    assert len(inner.calls) < 7
    inner.fail_at = None
    assert tiled.collect(tiled.submit([Frame(spots())]))


def test_arguments_are_validated(tiny: Path) -> None:
    with pytest.raises(UsageError, match="`tile` must be WIDTHxHEIGHT"):
        Detector(tiny, tile="large")
    with pytest.raises(UsageError, match="`overlap` must be between"):
        Detector(tiny, tile="auto", overlap=1.5)
