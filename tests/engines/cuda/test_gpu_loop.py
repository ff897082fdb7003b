"""The GPU backend on a real GPU or, started by `test_host_gpu.py`, on the driver stand-in.

The network is a stand-in that copies recorded heads, so that all other stages can be compared with
the reference.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from realtime_ssd_engines.backend import GpuBackend
from realtime_ssd_engines.cuda import compile as compile_module
from realtime_ssd_engines.cuda import driver, kernel_set
from realtime_ssd_engines.cuda.driver import Device
from realtime_ssd_engines.cuda.kernel_params import Precision
from realtime_ssd_engines.requirements import has_bindings, installed_flavors

from benchmarks.gpu.context import fetch
from benchmarks.gpu.networks import RecordedHeads
from realtime_ssd import backends
from realtime_ssd.backends import BackendOptions
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.frames import Frame, Surface
from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import ModelSpec, Thresholds
from tests.engines.cuda.host_driver import HOST_GPU
from tests.engines.cuda.host_kernels import build
from tests.engines.cuda.test_detect import make_spec, random_heads
from tests.tiny import tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (find_gpus() and has_bindings()), reason="there is no NVIDIA GPU with Python bindings"
    ),
]


@pytest.fixture(autouse=True)
def host_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the stand-in, "machine code" is the path of a library compiled for the host."""
    if os.environ.get(HOST_GPU):

        def compile_kernel(name: str, settings: dict[str, str], *_: object) -> bytes:
            return str(build(name, tuple(settings.items()))._name).encode() + b"\0"

        monkeypatch.setattr(kernel_set, "compile_kernel", compile_kernel)
        monkeypatch.setattr(compile_module, "compiler_name", lambda: "g++")


@pytest.fixture
def device() -> Device:
    return Device()


needs_stand_in = pytest.mark.skipif(
    not os.environ.get(HOST_GPU), reason="faults are injected into the stand-in only"
)


@pytest.fixture
def stand_in() -> Iterator[ctypes.CDLL]:
    """Return the driver stand-in; injected faults are reset after the test."""
    library = ctypes.CDLL("libcuda.so.1")
    library.host_device_bytes.restype = ctypes.c_size_t
    library.host_pinned_bytes.restype = ctypes.c_size_t
    yield library
    library.host_fail(0)
    library.host_set_memory_limit(ctypes.c_size_t(1 << 40))


BATCH = 4


def open_backend(
    device: Device,
    graphs: bool = True,
    spec: ModelSpec | None = None,
    slots: int = 3,
    **options: Any,
) -> tuple[GpuBackend, NDArray[np.float32], NDArray[np.float32]]:
    spec = spec or make_spec()
    scores, offsets = random_heads(spec, BATCH, seed=3)
    backend_options = BackendOptions(batch=BATCH, **options)
    with device:
        network = RecordedHeads(device, scores, offsets)
        backend = GpuBackend(device, network, spec, backend_options, slots, graphs)
    return backend, scores, offsets


def random_frames(count: int, seed: int = 0, height: int = 40) -> list[Frame]:
    rng = np.random.default_rng(seed)
    images = (rng.integers(0, 256, (height + i, 50, 3), np.uint8) for i in range(count))
    return [Frame(image, index=i) for i, image in enumerate(images)]


def network_input(backend: GpuBackend, device: Device, images: int) -> NDArray[np.float32]:
    """Return the pre-processed images of the last batch in the first slot."""
    size = backend.spec.input
    shape = (images, 3, size.height, size.width)
    return fetch(device, backend.slots[0].addresses["input"], np.float32, shape)


@pytest.mark.parametrize("graphs", [False, True])
def test_frames_of_changing_sizes_match_the_reference(device: Device, graphs: bool) -> None:
    backend, scores, offsets = open_backend(device, graphs)
    with backend:
        assert backend.slots[0].uses_graphs is (graphs and driver.graphs_available())
        for turn in range(6):
            frames = random_frames(3, seed=turn, height=40 + 9 * turn)
            results = backend.collect(backend.submit(frames))
            for i, (frame, got) in enumerate(zip(frames, results, strict=True)):
                raw = PostProcessor(backend.spec)(scores[i], offsets[i])
                expected = to_frame_detections(raw, backend.spec, frame.width, frame.height)
                np.testing.assert_allclose(got.boxes, expected.boxes, atol=1e-3)
                np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-5)
        tensor = network_input(backend, device, 3)
    last = random_frames(3, seed=3, height=40 + 27)
    for values, frame in zip(tensor, last, strict=True):
        expected_input = np.empty_like(values)
        preprocess(frame.image, backend.spec.input, expected_input)
        np.testing.assert_allclose(values, expected_input, rtol=1e-6, atol=1e-6)


def test_graphs_and_separate_launches_are_bit_identical() -> None:
    results = []
    for graphs in (False, True):
        device = Device()
        backend, *_ = open_backend(device, graphs)
        with backend:
            results.append(backend.collect(backend.submit(random_frames(BATCH))))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one.boxes, two.boxes)
        np.testing.assert_array_equal(one.scores, two.scores)
        np.testing.assert_array_equal(one.class_ids, two.class_ids)


def test_batches_in_flight_keep_their_order_across_threads(device: Device) -> None:
    backend, *_ = open_backend(device)
    with backend, ThreadPoolExecutor(1) as collector:
        pending = []
        for turn in range(20):
            frames = [dataclasses.replace(f, index=turn) for f in random_frames(1 + turn % BATCH)]
            pending.append((frames, collector.submit(backend.collect, backend.submit(frames))))
        for frames, future in pending:
            assert len(future.result(timeout=60)) == len(frames)


@pytest.mark.parametrize(
    "limits",
    [{"class_scores": (0.0, 0.3, 0.9, 0.05, 0.6), "max_detections": 1000}, {"agnostic_nms": True}],
    ids=["scores by class", "all classes as one"],
)
def test_thresholds_by_class_and_nms_over_all_classes(
    device: Device, limits: dict[str, Any]
) -> None:
    base = make_spec()
    spec = dataclasses.replace(base, thresholds=dataclasses.replace(base.thresholds, **limits))
    backend, scores, offsets = open_backend(device, spec=spec)
    frames = random_frames(BATCH)
    with backend:
        found = backend.collect(backend.submit(frames))
    for frame, detections, *heads in zip(frames, found, scores, offsets, strict=True):
        raw = PostProcessor(spec)(*heads)
        expected = to_frame_detections(raw, spec, frame.width, frame.height)
        np.testing.assert_allclose(detections.scores, expected.scores, rtol=1e-5)
        assert sorted(detections.class_ids.tolist()) == sorted(expected.class_ids.tolist())


def test_only_the_selected_classes_are_detected(device: Device) -> None:
    backend, *_ = open_backend(device, classes=("class 2", "class 4"))
    with backend:
        batch = backend.submit(random_frames(1))
        (detections,) = backend.collect(batch)
    assert set(detections.class_ids.tolist()) == {2, 4}
    assert batch.timings["gpu"] > 0


@pytest.mark.parametrize("graphs", [False, True])
def test_stage_timing_does_not_change_results(device: Device, graphs: bool) -> None:
    backend, *_ = open_backend(device, graphs)
    frames = random_frames(3)
    with backend:
        before = backend.collect(backend.submit(frames))
        seconds = backend.stage_seconds(frames)
        after = backend.collect(backend.submit(frames))
    assert all(seconds[name] > 0 for name in ("preprocess", "network", "detect"))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_surfaces_in_gpu_memory_are_read_in_place(device: Device) -> None:
    """Gray NV12: the network input is the luma, not the frame's host pixels."""
    backend, *_ = open_backend(device)
    luma = np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))
    pixels = np.concatenate([luma.ravel(), np.full(64 * 32, 128, np.uint8)])
    with backend:
        with device:
            staging, buffer = device.pinned(pixels.nbytes), device.buffer(pixels.nbytes)
            staging.bytes[...] = pixels
            stream = device.stream()
            device.copy_in(buffer, staging.bytes, stream)
            stream.synchronize()
        planes = (buffer.address, buffer.address + 64 * 64)
        surface = Surface(64, 64, planes, (64, 64), "bt709", full_range=True, owner=buffer)
        frame = Frame(np.zeros((64, 64, 3), np.uint8), surface=surface)
        backend.collect(backend.submit([frame]))
        tensor = network_input(backend, device, 1)[0]
        with device:
            buffer.close()
            staging.close()
    gray = np.empty_like(tensor)
    preprocess(np.repeat(luma[..., None], 3, axis=2), backend.spec.input, gray)
    np.testing.assert_allclose(tensor, gray, rtol=1e-6, atol=1e-6)


@needs_stand_in
def test_surfaces_are_read_after_the_decoder_wrote_them(
    device: Device, stand_in: ctypes.CDLL
) -> None:
    """FFmpeg's decoder works on the default stream, which the slots do not wait for implicitly."""
    backend, *_ = open_backend(device)
    pixels = np.full(64 * 96, 128, np.uint8)
    pixels[: 64 * 64] = np.random.default_rng(0).integers(0, 256, 64 * 64)
    with backend, device:
        buffer = device.buffer(pixels.nbytes)
        address = ctypes.c_size_t(buffer.address)
        size = ctypes.c_size_t(pixels.nbytes)
        stand_in.cuMemcpyHtoDAsync_v2(address, ctypes.c_void_p(pixels.ctypes.data), size, None)
        planes = (buffer.address, buffer.address + 64 * 64)
        surface = Surface(64, 64, planes, (64, 64), "bt709", full_range=True, owner=buffer)
        frame = Frame(np.zeros((64, 64, 3), np.uint8), surface=surface)
        backend.collect(backend.submit([frame]))
        tensor = network_input(backend, device, 1)[0]
        buffer.close()
    gray = np.repeat(pixels[: 64 * 64].reshape(64, 64, 1), 3, axis=2)
    np.testing.assert_allclose(tensor, preprocess(gray, backend.spec.input), rtol=1e-6, atol=1e-6)


@needs_stand_in
def test_batches_do_not_wait_for_work_on_the_default_stream(
    device: Device, stand_in: ctypes.CDLL
) -> None:
    backend, *_ = open_backend(device)
    with backend, device:
        buffer = device.buffer(16)
        stand_in.cuMemsetD8Async(ctypes.c_size_t(buffer.address), 0, ctypes.c_size_t(16), None)
        backend.collect(backend.submit(random_frames(2)))
        assert stand_in.host_default_stream_work() == 1
        buffer.close()


@pytest.mark.parametrize("height", [900, 300])
def test_unused_images_of_a_batch_are_blank(device: Device, height: int) -> None:
    """Three frames run as a batch of four, after the fourth frame's memory may have been freed."""
    backend, *_ = open_backend(device, slots=1)
    with backend:
        backend.collect(backend.submit(random_frames(BATCH, height=400)))
        backend.collect(backend.submit(random_frames(3, height=height)))
        unused = network_input(backend, device, BATCH)[3]
    spec = backend.spec.input
    blank = (spec.fill - np.array(spec.mean, np.float32)) * np.array(spec.scale, np.float32)
    np.testing.assert_array_equal(unused, np.broadcast_to(blank[:, None, None], unused.shape))


def test_memory_use_is_constant_and_memory_is_freed() -> None:
    device = Device()
    before = device.free_memory()
    backend, *_ = open_backend(device)
    for _ in range(5):
        backend.collect(backend.submit(random_frames(BATCH)))
    steady = device.free_memory()
    for _ in range(60):
        backend.collect(backend.submit(random_frames(BATCH)))
    assert device.free_memory() == steady
    threads = [threading.Thread(target=backend.close) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    backend.close()
    assert device.free_memory() >= before


def test_closing_with_batches_in_flight(device: Device) -> None:
    backend, *_ = open_backend(device)
    backend.submit(random_frames(BATCH))
    backend.submit(random_frames(2))
    backend.close()


def test_out_of_memory_error_states_the_sizes(device: Device) -> None:
    with device, pytest.raises(ModelError, match=r"out of memory: 1073741824 MiB .* are free"):
        device.buffer(1 << 50)


@needs_stand_in
@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_auto_falls_back_to_the_cpu_and_reports_missing_packages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiny_model(tmp_path / "tiny.onnx")
    with backends.open_backend(path, "auto") as backend:
        assert backend.name == "onnxruntime"
    with pytest.raises(ModelError, match=r"pip install 'realtime-ssd\[gpu") as e:
        backends.open_backend(path, "tensorrt")
    if "rtx" in installed_flavors():
        reason = "TensorRT-RTX does not support GPU 'Host GPU' with compute capability 9.0"
        assert "'tensorrt' needs a TensorRT that runs here" in caplog.text
    else:
        reason = "the Python package tensorrt"
        assert f"'tensorrt' needs {reason}" in caplog.text
    assert reason in str(e.value)


def test_nan_in_network_outputs_raises_an_error_with_the_frame(device: Device) -> None:
    spec = make_spec()
    scores, offsets = random_heads(spec, BATCH, seed=1)
    scores[0, 2, 1] = np.nan
    with device:
        network = RecordedHeads(device, scores, offsets)
        backend = GpuBackend(device, network, spec, BackendOptions(batch=BATCH))
    with backend, pytest.raises(ModelError, match="NaN for 1 default boxes of frame 7"):
        backend.collect(backend.submit([dataclasses.replace(random_frames(1)[0], index=7)]))


def test_without_cuda_graphs_batches_run_with_a_warning(
    device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver, "import_bindings", lambda name: None)
    backend, *_ = open_backend(device)
    with backend:
        assert len(backend.collect(backend.submit(random_frames(2)))) == 2
    assert "cuda-bindings is not installed" in caplog.text


class UncapturableHeads(RecordedHeads):
    """A network that synchronizes its stream, which is not allowed during a capture."""

    def bind(
        self, addresses: dict[str, int], images: int, stream: Any
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        enqueue, release = super().bind(addresses, images, stream)

        def enqueue_and_wait() -> None:
            enqueue()
            stream.synchronize()

        return enqueue_and_wait, release


def test_networks_that_cannot_be_captured_run_with_a_warning(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    spec = make_spec()
    scores, offsets = random_heads(spec, BATCH, seed=3)
    with device:
        network = UncapturableHeads(device, scores, offsets)
        backend = GpuBackend(device, network, spec, BackendOptions(batch=BATCH))
    with backend:
        assert not any(slot.uses_graphs for slot in backend.slots)
        results = backend.collect(backend.submit(random_frames(3)))
    assert [message for message in caplog.messages if "cannot be captured" in message] == [
        caplog.messages[0]
    ]
    expected = PostProcessor(spec)(scores[0], offsets[0])
    np.testing.assert_allclose(results[0].scores, expected.scores, rtol=1e-5)


def test_garbage_collection_is_disabled_during_capture(device: Device) -> None:
    states = []
    with device:
        stream = device.stream()
        graph = device.capture(stream, lambda: states.append(gc.isenabled()))
        assert graph is not None
        graph.close()
    assert states == [False]
    assert gc.isenabled()


@needs_stand_in
def test_the_primary_context_blocks_instead_of_spinning(
    device: Device, stand_in: ctypes.CDLL
) -> None:
    """FFmpeg's hardware decoder rejects a primary context with other flags."""
    assert stand_in.host_flags_at_retain() == 4  # CU_CTX_SCHED_BLOCKING_SYNC


def test_unused_output_rows_are_zero(device: Device) -> None:
    limits = Thresholds(score_threshold=0.99, pre_nms_top_k=40, max_detections=20)
    backend, *_ = open_backend(device, spec=make_spec(thresholds=limits), slots=1)
    with backend:
        (detections,) = backend.collect(backend.submit(random_frames(1)))
        (slot,) = backend.slots
        assert len(detections) < backend.spec.thresholds.max_detections
        assert not slot._output[0, len(detections) + 1 :].any()


def test_an_unknown_gpu_raises_model_error() -> None:
    with pytest.raises(ModelError, match="GPU 99 does not exist"):
        Device(99)


def test_kernels_are_compiled_on_this_machine(tmp_path: Path, device: Device) -> None:
    if os.environ.get(HOST_GPU):
        pytest.skip("the stand-in executes libraries compiled for the host")
    with device:
        types: dict[str, Precision] = dict.fromkeys(("input", "scores", "offsets"), "fp16")
        spec = make_spec()
        kernel_set.KernelSet(device, spec, spec.num_boxes, types, cache=tmp_path).close()
    assert len(list(tmp_path.glob("*.cubin"))) == 2
