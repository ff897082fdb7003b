"""The GPU backend with faults injected into the driver stand-in; run by `test_host_gpu.py`."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from realtime_ssd_engines.backend import GpuBackend
from realtime_ssd_engines.cuda.driver import Device

from benchmarks.gpu.networks import RecordedHeads
from realtime_ssd.backends import BackendOptions
from realtime_ssd.core.errors import ModelError
from tests.engines.cuda.test_detect import make_spec, random_heads
from tests.engines.cuda.test_gpu_loop import (
    BATCH,
    device,
    host_kernels,
    needs_stand_in,
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
    with device, pytest.raises(ModelError, match=r"out of memory: 1 MiB are required to allocate"):
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
