"""The GPU backend with faults injected into the driver stand-in; run by `test_host_gpu.py`."""

from __future__ import annotations

import ctypes
import os
import re
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from realtime_ssd_engines.backend import GpuBackend
from realtime_ssd_engines.cuda import frame_input
from realtime_ssd_engines.cuda.driver import Device
from realtime_ssd_engines.cuda.slots import MAPPED_IMAGES

from benchmarks.gpu.networks import RecordedHeads
from realtime_ssd.backends import BackendOptions
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd.core.preprocess import preprocess
from tests.engines.cuda.host_driver import BINDINGS
from tests.engines.cuda.test_detect import make_spec, random_heads
from tests.engines.cuda.test_gpu_loop import (
    BATCH,
    device,
    host_kernels,
    needs_stand_in,
    network_input,
    open_backend,
    random_frames,
    stand_in,
)

__all__ = ["device", "host_kernels", "stand_in"]

pytestmark = pytest.mark.gpu


@needs_stand_in
def test_stage_timing_destroys_its_graphs(device: Device, stand_in: ctypes.CDLL) -> None:
    backend, *_ = open_backend(device)
    with backend:
        before = stand_in.host_graphs()
        backend.stage_seconds(random_frames(2))
        assert stand_in.host_graphs() == before > 0


@needs_stand_in
def test_a_lost_gpu_raises_model_errors_and_can_be_closed(
    device: Device, stand_in: ctypes.CDLL
) -> None:
    backend, *_ = open_backend(device)
    batch = backend.submit(random_frames(2))
    stand_in.host_fail(719)
    with pytest.raises(ModelError, match=r"^GPU 'Host GPU' could not finish a batch \(.*launch"):
        backend.collect(batch)
    for _ in range(backend.max_in_flight + 2):
        with pytest.raises(ModelError, match="could not start a batch"):
            backend.submit(random_frames(1))
    backend.close()
    backend.close()


@needs_stand_in
@pytest.mark.parametrize("available", [10, 800, 5_000, 100_000, 300_000])
def test_all_memory_is_freed_when_allocation_fails(
    device: Device, stand_in: ctypes.CDLL, available: int
) -> None:
    spec = make_spec()
    scores, offsets = random_heads(spec, BATCH, seed=3)
    before = stand_in.host_device_bytes(), stand_in.host_pinned_bytes()
    with device:
        network = RecordedHeads(device, scores, offsets)
    stand_in.host_set_memory_limit(ctypes.c_size_t(stand_in.host_device_bytes() + available))
    message = r"out of memory: 1 MiB are required to (process a batch of 4|allocate memory), 0 of"
    with device, pytest.raises(ModelError, match=message):
        GpuBackend(device, network, spec, BackendOptions(batch=BATCH))
    assert (stand_in.host_device_bytes(), stand_in.host_pinned_bytes()) == before


@needs_stand_in
def test_a_frame_that_exceeds_memory_does_not_affect_later_frames(
    device: Device, stand_in: ctypes.CDLL
) -> None:
    backend, *_ = open_backend(device)
    with backend:
        expected = backend.collect(backend.submit(random_frames(1)))
        before = stand_in.host_device_bytes()
        stand_in.host_set_memory_limit(ctypes.c_size_t(before + 10_000))
        for _ in range(backend.max_in_flight):
            with pytest.raises(ModelError, match=r"memory: 1 MiB are required .* of \d+ MiB"):
                backend.submit(random_frames(1, height=400))
        stand_in.host_set_memory_limit(ctypes.c_size_t(1 << 40))
        for _ in range(backend.max_in_flight):
            (detections,) = backend.collect(backend.submit(random_frames(1)))
            np.testing.assert_array_equal(detections.scores, expected[0].scores)


@needs_stand_in
def test_out_of_memory_states_what_the_whole_slot_requires(
    device: Device, stand_in: ctypes.CDLL
) -> None:
    """Not what the buffer requires whose allocation failed."""
    spec = make_spec(cells=90)
    scores, offsets = random_heads(spec, BATCH, seed=3)
    with device:
        network = RecordedHeads(device, scores, offsets)
    limit = stand_in.host_device_bytes() + (3 << 20)
    stand_in.host_set_memory_limit(ctypes.c_size_t(limit))
    heads = (scores.nbytes + offsets.nbytes) >> 20
    with device, pytest.raises(ModelError, match=r"out of memory: (\d+) MiB are req") as error:
        GpuBackend(device, network, spec, BackendOptions(batch=BATCH))
    (required,) = re.findall(
        r": (\d+) MiB are required to process a batch of 4, [0-3] of \d+ MiB are f",
        str(error.value),
    )
    assert int(required) > heads + BATCH * spec.num_boxes * spec.num_classes * 8 >> 20


@needs_stand_in
def test_running_out_of_memory_without_a_known_size(device: Device) -> None:
    error = device._cuda.MemoryError("cuGraphInstantiate failed: out of memory")
    message = "out of memory: it could not start a batch, "
    with device, pytest.raises(ModelError, match=message), device.translate_errors("start a batch"):
        raise error


@needs_stand_in
def test_frames_beyond_the_memory_limit_are_processed_in_parts(
    device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    frames = random_frames(BATCH, height=60)
    backend, *_ = open_backend(device)
    with backend:
        expected = backend.collect(backend.submit(frames))
    size = max(frame.image.nbytes for frame in frames)
    monkeypatch.setattr(frame_input, "MAX_PIXEL_BYTES", 2 * size + 1000)
    backend, *_ = open_backend(device)
    with backend:
        for _ in range(2):
            batch = backend.submit(frames)
            results = backend.collect(batch)
            assert batch.timings["gpu"] > 0
            for one, other in zip(expected, results, strict=True):
                assert len(one) == len(other)
        assert backend.slots[0].images_at_once == 2
        assert backend.collect(backend.submit(frames[:2]))
    assert [message for message in caplog.messages if "at a time" in message] == [
        "frames of 50 x 60 pixels are processed 2 at a time instead of 4, because the pixels of a "
        "batch are limited to 256 MiB"
    ]


@needs_stand_in
def test_memory_stays_within_the_limit_after_larger_frames(
    device: Device, stand_in: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few large frames, then many small ones: not as many of the large size."""
    large, small = random_frames(1, height=400), random_frames(BATCH, height=90)
    monkeypatch.setattr(frame_input, "MAX_PIXEL_BYTES", 2 * large[0].image.nbytes)
    backend, *_ = open_backend(device, slots=1)
    with backend:
        before = stand_in.host_device_bytes()
        for frames in (small, large, large * BATCH, small, large, small):
            expected = [len(d) for d in backend.collect(backend.submit(frames))]
            assert len(expected) == len(frames)
        assert stand_in.host_device_bytes() - before <= frame_input.MAX_PIXEL_BYTES
        tensor = network_input(backend, device, BATCH)
    for values, frame in zip(tensor, small, strict=True):
        np.testing.assert_allclose(values, preprocess(frame.image, backend.spec.input), atol=1e-6)


@needs_stand_in
def test_only_pixels_are_copied_once_sizes_are_known(device: Device, stand_in: ctypes.CDLL) -> None:
    """Parameters are read from host memory; integrated GPUs read the pixels there too."""
    backend, *_ = open_backend(device, slots=1)
    frames = random_frames(3)
    with backend:
        backend.collect(backend.submit(frames))
        before = stand_in.host_copies_in()
        for _ in range(5):
            backend.collect(backend.submit(frames))
        copies = stand_in.host_copies_in() - before
    assert copies == (0 if device.integrated else 5 * len(frames))
    assert device.integrated is bool(os.environ.get("HOST_INTEGRATED"))


@needs_stand_in
def test_the_second_kernel_of_detection_is_launched_early(
    device: Device, stand_in: ctypes.CDLL
) -> None:
    backend, *_ = open_backend(device, graphs=False, slots=1)
    with backend:
        before = stand_in.host_dependent_launches()
        backend.collect(backend.submit(random_frames(2)))
        launches = stand_in.host_dependent_launches() - before
    assert launches == (
        0 if find_spec("pycuda") and os.environ.get(BINDINGS) != "cuda-bindings" else 1
    )


@needs_stand_in
def test_graphs_are_captured_without_early_launches_if_necessary(
    device: Device, stand_in: ctypes.CDLL, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.host_refuse_dependent_capture(1)
    try:
        backend, *_ = open_backend(device, slots=1)
    finally:
        stand_in.host_refuse_dependent_capture(0)
    with backend:
        assert backend.slots[0].uses_graphs
        before = stand_in.host_dependent_launches()
        assert len(backend.collect(backend.submit(random_frames(2)))) == 2
        assert stand_in.host_dependent_launches() == before
    assert "cannot be captured" not in caplog.text


@needs_stand_in
def test_gpu_time_excludes_the_copies_of_pixels(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, *_ = open_backend(device, slots=1)
    (slot,) = backend.slots
    calls = []
    stage, record = slot._input.stage, slot._begin.record

    def note_stage(*arguments: Any) -> None:
        stage(*arguments)
        calls.append("copied")

    def note_record(stream: Any) -> None:
        record(stream)
        calls.append("begin")

    monkeypatch.setattr(slot._input, "stage", note_stage)
    slot._begin = SimpleNamespace(record=note_record, time_till=slot._begin.time_till)
    with backend:
        backend.collect(backend.submit(random_frames(2)))
    assert calls == ["copied", "begin"]


@needs_stand_in
def test_large_batches_copy_their_detections(device: Device) -> None:
    """Small ones are written to host memory by the kernels."""
    spec, count = make_spec(), MAPPED_IMAGES + 3
    scores, offsets = random_heads(spec, count, seed=5)
    with device:
        network = RecordedHeads(device, scores, offsets)
        backend = GpuBackend(device, network, spec, BackendOptions(batch=count), slots=1)
    frames = random_frames(count)
    with backend:
        for number in (count, 2, count):
            results = backend.collect(backend.submit(frames[:number]))
            for index, (frame, got) in enumerate(zip(frames, results, strict=False)):
                raw = PostProcessor(spec)(scores[index], offsets[index])
                expected = to_frame_detections(raw, spec, frame.width, frame.height)
                np.testing.assert_allclose(got.boxes, expected.boxes, atol=1e-3)
