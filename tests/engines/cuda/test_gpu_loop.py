"""The loop on a GPU: a real one where there is one, else the stand-in of `test_host_gpu.py`.

The network is a stand-in too: it "computes" recorded heads by copying them, so that everything
around it can be checked to the bit.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from realtime_ssd_engines.backend import GpuBackend
from realtime_ssd_engines.cuda import driver, kernel_set
from realtime_ssd_engines.cuda.driver import Device
from realtime_ssd_engines.requirements import has_bindings

from realtime_ssd import backends
from realtime_ssd.backends import BackendOptions
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.frames import Frame, Surface
from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.core.postprocess import PostProcessor, to_frame_detections
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import ModelSpec
from tests.engines.cuda.host_kernels import build
from tests.engines.cuda.test_detect import heads, make_spec
from tests.tiny import tiny_model

HOST_GPU = "REALTIME_SSD_HOST_GPU"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (find_gpus() and has_bindings()), reason="there is no NVIDIA GPU that Python can reach"
    ),
]


class RecordedHeads:
    """Gives the same heads whatever the picture."""

    def __init__(self, device: Device, scores: np.ndarray, offsets: np.ndarray) -> None:
        self.boxes = scores.shape[1]
        self.types = {"input": "fp32", "scores": "fp32", "offsets": "fp32"}
        self._device, self._parts = device, {}
        stream = device.stream()
        for name, values in (("scores", scores), ("offsets", offsets)):
            staging, buffer = device.pinned(values.nbytes), device.buffer(values.nbytes)
            staging.view(values.dtype, values.shape)[...] = values
            device.copy_in(buffer, staging.bytes, stream)
            stream.synchronize()
            staging.close()
            self._parts[name] = (buffer, values[0].nbytes)

    def bind(
        self, addresses: dict[str, int], images: int, stream: Any
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        def enqueue() -> None:
            for name, (buffer, size) in self._parts.items():
                self._device.copy_inside(addresses[name], buffer, size * images, stream)

        return enqueue, lambda: None

    def close(self) -> None:
        for buffer, _ in self._parts.values():
            buffer.close()


@pytest.fixture(autouse=True)
def _host_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the stand-in, "machine code" is the path of the library built for the host."""
    if os.environ.get(HOST_GPU):

        def compile_kernel(name: str, settings: dict[str, str], *_: object) -> bytes:
            return str(build(name, tuple(settings.items()))._name).encode() + b"\0"

        monkeypatch.setattr(kernel_set, "compile_kernel", compile_kernel)


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device()
    yield device
    device.close()


BATCH = 4


def open_backend(
    device: Device,
    graphs: bool = True,
    spec: ModelSpec | None = None,
    slots: int = 3,
    **options: Any,
) -> tuple[GpuBackend, np.ndarray, np.ndarray]:
    spec = spec or make_spec()
    scores, offsets = heads(spec, BATCH, seed=3)
    chosen = BackendOptions(batch=BATCH, **options)
    with device:
        network = RecordedHeads(device, scores, offsets)
        return GpuBackend(device, network, spec, chosen, slots, graphs), scores, offsets


def pictures(count: int, seed: int = 0, height: int = 40) -> list[Frame]:
    rng = np.random.default_rng(seed)
    images = (rng.integers(0, 256, (height + i, 50, 3), np.uint8) for i in range(count))
    return [Frame(image, index=i) for i, image in enumerate(images)]


def network_input(backend: GpuBackend, device: Device, images: int) -> np.ndarray:
    """What the pre-processing kernel wrote for the last batch of the first slot."""
    spec = backend.spec.input
    shape = (images, 3, spec.height, spec.width)
    with device:
        staging, stream = device.pinned(4 * int(np.prod(shape))), device.stream()
        buffer = type("Address", (), {"address": backend._slots[0].addresses["input"]})()
        device.copy_out(staging.bytes, buffer, stream)
        stream.synchronize()
        values = staging.view(np.dtype(np.float32), shape).copy()
        staging.close()
    return values


@pytest.mark.parametrize("graphs", [False, True])
def test_frames_of_changing_size_give_the_reference_answer(device: Device, graphs: bool) -> None:
    backend, scores, offsets = open_backend(device, graphs)
    with backend:
        assert backend._slots[0].uses_graphs is (graphs and driver.graphs_available())
        for turn in range(6):
            frames = pictures(3, seed=turn, height=40 + 9 * turn)
            answers = backend.collect(backend.submit(frames))
            for i, (frame, got) in enumerate(zip(frames, answers, strict=True)):
                found = PostProcessor(backend.spec)(scores[i], offsets[i])
                expected = to_frame_detections(found, backend.spec, frame.width, frame.height)
                np.testing.assert_allclose(got.boxes, expected.boxes, atol=1e-3)
                np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-5)
        tensor = network_input(backend, device, 3)
    last = pictures(3, seed=3, height=40 + 27)
    for values, frame in zip(tensor, last, strict=True):
        expected_input = np.empty_like(values)
        preprocess(frame.image, backend.spec.input, expected_input)
        np.testing.assert_allclose(values, expected_input, rtol=1e-6, atol=1e-6)


def test_graph_and_single_launches_give_the_same_bits() -> None:
    answers = []
    for graphs in (False, True):
        device = Device()
        backend, *_ = open_backend(device, graphs)
        with backend:
            answers.append(backend.collect(backend.submit(pictures(BATCH))))
    for one, two in zip(*answers, strict=True):
        np.testing.assert_array_equal(one.boxes, two.boxes)
        np.testing.assert_array_equal(one.scores, two.scores)
        np.testing.assert_array_equal(one.class_ids, two.class_ids)


def test_batches_under_way_keep_their_order_across_threads(device: Device) -> None:
    backend, *_ = open_backend(device)
    with backend, ThreadPoolExecutor(1) as collector:
        waiting = []
        for turn in range(20):
            frames = [dataclasses.replace(f, index=turn) for f in pictures(1 + turn % BATCH)]
            waiting.append((frames, collector.submit(backend.collect, backend.submit(frames))))
        for frames, answer in waiting:
            assert len(answer.result(timeout=60)) == len(frames)


def test_only_the_chosen_classes_are_found(device: Device) -> None:
    backend, *_ = open_backend(device, classes=("class 2", "class 4"))
    with backend:
        ticket = backend.submit(pictures(1))
        (answer,) = backend.collect(ticket)
    assert set(answer.class_ids.tolist()) == {2, 4}
    assert ticket.timings["gpu"] > 0


@pytest.mark.parametrize("graphs", [False, True])
def test_steps_are_timed_alone_and_change_no_answer(device: Device, graphs: bool) -> None:
    backend, *_ = open_backend(device, graphs)
    frames = pictures(3)
    with backend:
        before = backend.collect(backend.submit(frames))
        spent = backend.stage_seconds(frames)
        after = backend.collect(backend.submit(frames))
    assert all(spent[name] > 0 for name in ("preprocess", "network", "detect"))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_a_picture_in_gpu_memory_is_used_where_it_is(device: Device) -> None:
    """Grey NV12: the network sees the luma, no matter what the frame's own pixels say."""
    backend, *_ = open_backend(device)
    luma = np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))
    picture = np.concatenate([luma.ravel(), np.full(64 * 32, 128, np.uint8)])
    with backend:
        with device:
            staging, buffer = device.pinned(picture.nbytes), device.buffer(picture.nbytes)
            staging.bytes[...] = picture
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
    grey = np.empty_like(tensor)
    preprocess(np.repeat(luma[..., None], 3, axis=2), backend.spec.input, grey)
    np.testing.assert_allclose(tensor, grey, rtol=1e-6, atol=1e-6)


def test_places_of_a_batch_that_stay_empty_show_nothing(device: Device) -> None:
    """Three frames run in a batch of four; what the fourth place showed is no longer there."""
    backend, *_ = open_backend(device, slots=1)
    with backend:
        backend.collect(backend.submit(pictures(BATCH, height=400)))
        backend.collect(backend.submit(pictures(3, height=900)))
        unused = network_input(backend, device, BATCH)[3]
    spec = backend.spec.input
    empty = (spec.fill - np.array(spec.mean, np.float32)) * np.array(spec.scale, np.float32)
    np.testing.assert_array_equal(unused, np.broadcast_to(empty[:, None, None], unused.shape))


def test_memory_stays_flat_and_is_given_back() -> None:
    device, keeper = Device(), Device()
    before = keeper.free_memory()
    backend, *_ = open_backend(device)
    for _ in range(5):
        backend.collect(backend.submit(pictures(BATCH)))
    steady = keeper.free_memory()
    for _ in range(60):
        backend.collect(backend.submit(pictures(BATCH)))
    assert keeper.free_memory() == steady
    threads = [threading.Thread(target=backend.close) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    backend.close()
    assert keeper.free_memory() >= before
    keeper.close()
    keeper.close()


def test_closing_with_work_under_way(device: Device) -> None:
    backend, *_ = open_backend(device)
    backend.submit(pictures(BATCH))
    backend.submit(pictures(2))
    backend.close()


def test_too_much_memory_is_one_sentence_with_sizes(device: Device) -> None:
    with device, pytest.raises(ModelError, match=r"out of memory: 1073741824 MiB .* are free"):
        device.buffer(1 << 50)


needs_stand_in = pytest.mark.skipif(
    not os.environ.get(HOST_GPU), reason="a real GPU is not broken on purpose"
)


@pytest.fixture
def stand_in() -> Iterator[ctypes.CDLL]:
    """The driver's stand-in, made whole again after the test."""
    library = ctypes.CDLL("libcuda.so.1")
    library.host_device_bytes.restype = ctypes.c_size_t
    library.host_pinned_bytes.restype = ctypes.c_size_t
    yield library
    library.host_fail(0)
    library.host_set_memory_limit(ctypes.c_size_t(1 << 40))


@needs_stand_in
def test_a_lost_gpu_is_one_sentence_and_closes_in_order(
    device: Device, stand_in: ctypes.CDLL
) -> None:
    backend, *_ = open_backend(device)
    ticket = backend.submit(pictures(2))
    stand_in.host_fail(719)
    with pytest.raises(ModelError, match=r"^GPU 'Host GPU' could not finish a batch \(.*launch"):
        backend.collect(ticket)
    for _ in range(backend.max_in_flight + 2):
        with pytest.raises(ModelError, match="could not start a batch"):
            backend.submit(pictures(1))
    backend.close()
    backend.close()


@needs_stand_in
@pytest.mark.parametrize("room", [10, 800, 5_000, 100_000, 300_000])
def test_when_memory_runs_out_all_of_it_is_given_back(
    device: Device, stand_in: ctypes.CDLL, room: int
) -> None:
    spec = make_spec()
    scores, offsets = heads(spec, BATCH, seed=3)
    before = stand_in.host_device_bytes(), stand_in.host_pinned_bytes()
    with device:
        network = RecordedHeads(device, scores, offsets)
    stand_in.host_set_memory_limit(ctypes.c_size_t(stand_in.host_device_bytes() + room))
    with device, pytest.raises(ModelError, match=r"out of memory: 1 MiB were wanted to take"):
        GpuBackend(device, network, spec, BackendOptions(batch=BATCH))
    assert (stand_in.host_device_bytes(), stand_in.host_pinned_bytes()) == before


@needs_stand_in
def test_a_frame_for_which_memory_is_short_harms_no_later_one(
    device: Device, stand_in: ctypes.CDLL
) -> None:
    backend, *_ = open_backend(device)
    with backend:
        expected = backend.collect(backend.submit(pictures(1)))
        before = stand_in.host_device_bytes()
        stand_in.host_set_memory_limit(ctypes.c_size_t(before + 10_000))
        for _ in range(backend.max_in_flight):
            with pytest.raises(ModelError, match="out of memory"):
                backend.submit(pictures(1, height=400))
        stand_in.host_set_memory_limit(ctypes.c_size_t(1 << 40))
        for _ in range(backend.max_in_flight):
            (answer,) = backend.collect(backend.submit(pictures(1)))
            np.testing.assert_array_equal(answer.scores, expected[0].scores)


@needs_stand_in
@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_auto_runs_on_the_cpu_and_says_what_the_gpu_lacks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiny_model(tmp_path / "tiny.onnx")
    with backends.open_backend(path, "auto") as backend:
        assert backend.name == "onnxruntime"
    assert "'tensorrt' needs the Python package tensorrt" in caplog.text
    with pytest.raises(ModelError, match="it lacks the Python package tensorrt;"):
        backends.open_backend(path, "tensorrt")


def test_nan_from_the_network_is_an_error_that_names_the_frame(device: Device) -> None:
    spec = make_spec()
    scores, offsets = heads(spec, BATCH, seed=1)
    scores[0, 2, 1] = np.nan
    with device:
        network = RecordedHeads(device, scores, offsets)
        backend = GpuBackend(device, network, spec, BackendOptions(batch=BATCH))
    with backend, pytest.raises(ModelError, match="NaN for 1 default boxes of frame 7"):
        backend.collect(backend.submit([dataclasses.replace(pictures(1)[0], index=7)]))


def test_without_graphs_the_loop_runs_and_says_so(
    device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver, "_bindings", lambda name: None)
    backend, *_ = open_backend(device)
    with backend:
        assert len(backend.collect(backend.submit(pictures(2)))) == 2
    assert "cuda-bindings is not installed" in caplog.text


def test_a_gpu_that_does_not_exist() -> None:
    with pytest.raises(ModelError, match="GPU 99 does not exist"):
        Device(99)


def test_kernels_are_compiled_on_this_machine(tmp_path: Path, device: Device) -> None:
    if os.environ.get(HOST_GPU):
        pytest.skip("the stand-in runs libraries of the host's compiler")
    with device:
        types = {"input": "fp16", "scores": "fp16", "offsets": "fp16"}
        spec = make_spec()
        kernel_set.KernelSet(device, spec, spec.num_boxes, types, cache=tmp_path).close()  # type: ignore[arg-type]
    assert len(list(tmp_path.glob("*.cubin"))) == 2
