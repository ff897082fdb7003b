"""What every step of a frame costs on the GPU, beside the bare network and beside the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from realtime_ssd_engines.backend import GpuBackend
from realtime_ssd_engines.cuda.driver import Device
from realtime_ssd_engines.cuda.kernel_set import KernelSet
from realtime_ssd_engines.cuda.slots import FrameSlot

from benchmarks.gpu.baselines import efficient_nms, torch_model, torchvision_nms
from benchmarks.gpu.clock import median_us, milliseconds
from benchmarks.gpu.context import Room, import_torch
from benchmarks.gpu.frame import pictures, steady
from benchmarks.gpu.heads import Case, ssd300_case
from benchmarks.gpu.networks import RecordedHeads, TorchNetwork
from benchmarks.gpu.subjects import NAMES, Subject, find_subject, usual_threshold
from realtime_ssd.backends import BackendOptions
from realtime_ssd.core.spec import InputSpec

__all__ = ["time_kernels", "time_models"]

FULL_HD = (1920, 1080)
DETECT_ONE, DETECT_IMAGE, PREPROCESS, WHOLE = 30.0, 3.0, 10.0, 1.10
FASTER = 3.0


def time_kernels(room: Room, seed: int) -> None:
    """Time decode + NMS on 8732 boxes × 21 classes, and pre-processing from 1080p.

    Args:
        room: What the sections share.
        seed: Of the random heads.
    """
    for images in room.batches:
        name = f"8732 x 21 > 0.01, batch {images}"
        with room.report.guard("speed", f"{name}: decode + NMS"):
            room.need_gpu()
            case = ssd300_case(np.random.default_rng(seed), images)
            ours = _detect(room, case, name)
            for label, rival in (
                ("EfficientNMS_TRT", efficient_nms),
                ("torchvision batched_nms", torchvision_nms),
            ):
                with room.report.guard("speed", f"{name}: {label}"):
                    _against(room, f"{name}: {label}", ours, rival(room, case))
        with room.report.guard("speed", f"preprocess 1080p BGR, batch {images}"):
            room.need_gpu()
            _preprocess(room, images)


def _rounds(room: Room) -> int:
    return 5 if room.quick else 51


@contextmanager
def slot_of(room: Room, case: Case) -> Iterator[tuple[Device, FrameSlot]]:
    """Open one slot with recorded heads as the network, the device's context current."""
    device, images = room.device(), len(case.scores)
    try:
        with device:
            network = RecordedHeads(device, case.scores, case.offsets)
            cache = room.place / "kernels"
            kernels = KernelSet(device, case.spec, network.boxes, network.types, cache=cache)
            slot = FrameSlot(device, kernels, network, images, graphs=False)
            yield device, slot
            for memory in (slot, kernels, network):
                memory.close()
    finally:
        device.close()


def _detect(room: Room, case: Case, name: str) -> float:
    images = len(case.scores)
    with slot_of(room, case) as (device, slot):
        slot.submit(pictures(images, (64, 64)))
        found = sum(header.count for header, _ in slot.collect())
        work = slot.stages(images)["detect"]
        spent = median_us(milliseconds(device, slot.stream, work, rounds=_rounds(room)))
    each = spent / images
    most = DETECT_ONE if images == 1 else DETECT_IMAGE if images == 32 else None
    note = f"{found / images:.0f} detections an image, {spent:.1f} µs the batch"
    label = f"{name}: decode + NMS"
    room.report.number("speed", label, each, "µs an image", most=most, note=note)
    return each


def _against(room: Room, name: str, ours: float, rival: float) -> None:
    least = FASTER if "EfficientNMS" in name else None
    note = f"{rival / ours:.1f} times ours"
    room.report.number("speed", name, rival, "µs an image", note=note)
    if least is not None:
        room.report.number("speed", f"{name} / ours", rival / ours, "times", least=least)


def _preprocess(room: Room, images: int) -> None:
    case = ssd300_case(np.random.default_rng(0), images)
    size = InputSpec(300, 300, "BGR", (104.0, 117.0, 123.0))
    with slot_of(room, replace(case, spec=replace(case.spec, input=size))) as (device, slot):
        slot.submit(pictures(images, FULL_HD))
        slot.collect()
        work = slot.stages(images)["preprocess"]
        spent = median_us(milliseconds(device, slot.stream, work, rounds=_rounds(room)))
    name, most = f"preprocess 1080p BGR, batch {images}", PREPROCESS if images == 1 else None
    room.report.number("speed", name, spent / images, "µs an image", most=most)


@dataclass(frozen=True)
class _Kind:
    """A way to run a model's network in the slots."""

    name: str
    open: Callable[[Device, Subject, int], Any]


def time_models(room: Room, seed: int) -> None:
    """Time every model whole and in steps, with TensorRT or else PyTorch as the network."""
    for name in NAMES:
        for images in room.batches:
            title = f"{name}, batch {images}"
            with room.report.guard("models", title):
                room.need_gpu()
                room.report.check_time()
                kind = _kind(room)
                subject = _busy(find_subject(room, name))
                _time_model(room, subject, images, kind, f"{title}, {kind.name}")
    for name in NAMES:
        for images in (room.batches[0], room.batches[-1]):
            title = f"{name}, batch {images}"
            with room.report.guard("models", f"{title}, PyTorch compiled"):
                room.need_gpu()
                room.report.check_time()
                _compiled(room, find_subject(room, name), images, title)


def _busy(subject: Subject) -> Subject:
    """Give a model the threshold at which it finds as much as a trained one."""
    limit = usual_threshold(subject)
    return replace(subject, spec=subject.spec.with_thresholds(score_threshold=limit))


def _kind(room: Room) -> _Kind:
    if not room.no_tensorrt:
        return _Kind("TensorRT FP16", partial(_engine, room))
    import_torch()
    return _Kind("PyTorch FP16", _torch)


def _engine(room: Room, device: Device, subject: Subject, images: int) -> Any:
    """Open the engine for one image, or the one for all larger batches."""
    from realtime_ssd_engines.tensorrt.build import EngineOptions, ensure_engine
    from realtime_ssd_engines.tensorrt.network import EngineNetwork

    most = 1 if images == 1 else max(room.batches)
    options = EngineOptions("fp16", max_batch=most, cache=room.place / "engines")
    plan = ensure_engine(subject.path, subject.spec, options)
    return EngineNetwork(device, plan, subject.spec)


def _torch(device: Device, subject: Subject, most: int) -> Any:
    return TorchNetwork(torch_model(subject), subject.spec)


def _time_model(room: Room, subject: Subject, images: int, kind: _Kind, title: str) -> None:
    device = room.device()
    try:
        with device:
            network = kind.open(device, subject, images)
            options = BackendOptions(batch=images)
            cache = room.place / "kernels"
            backend = GpuBackend(device, network, subject.spec, options, cache=cache)
    except BaseException:
        device.close()
        raise
    with backend:
        frames = pictures(images, FULL_HD)
        backend.collect(backend.submit(frames))
        with device:
            _steps(room, device, backend, title)
        _whole(room, backend, frames, title)


def _steps(room: Room, device: Device, backend: GpuBackend, title: str) -> None:
    """Time the steps one by one, then all of them in one launch and in several."""
    slot, images, rounds = backend.slots[0], backend.max_batch, _rounds(room)
    steps = slot.stages(images)
    bytes_in = 3 * FULL_HD[0] * FULL_HD[1] * images
    pinned, buffer = device.pinned(bytes_in), device.buffer(bytes_in)

    def time(work: Callable[[], None], repeats: int = 5, *, graph: bool = True) -> float:
        return median_us(milliseconds(device, slot.stream, work, repeats, rounds, graph=graph))

    copy = time(lambda: device.copy_in(buffer, pinned.bytes, slot.stream))
    room.report.number("models", f"{title}: copy-in 1080p", copy, "µs")
    for memory in (pinned, buffer):
        memory.close()
    for label, step in (
        ("preprocess", "preprocess"),
        ("network", "network"),
        ("decode + NMS", "detect"),
        ("copy-out", "copy-out"),
    ):
        room.report.number("models", f"{title}: {label}", time(steps[step]), "µs")
    bare = time(steps["network"], 1)
    room.report.number("models", f"{title}: bare network in a graph", bare, "µs")
    for label, graph in (("one launch", True), ("single launches", False)):
        whole = time(lambda: slot.enqueue(images), 1, graph=graph)
        room.report.number("models", f"{title}: frame, {label}", whole, "µs")
        most = WHOLE if graph else None
        name = f"{title}: frame, {label} / bare network"
        room.report.number("models", name, whole / bare, "times", most=most)


def _whole(room: Room, backend: GpuBackend, frames: Sequence[Any], title: str) -> None:
    """Time frames from host memory to detections, one at a time and with all slots busy."""
    rounds, alone = 10 if room.quick else 200, []
    for _ in range(rounds):
        ticket = backend.submit(frames)
        backend.collect(ticket)
        alone.append(1000 * ticket.timings["gpu"])
    value = median_us(alone)
    room.report.number("models", f"{title}: one batch alone, copy-in to copy-out", value, "µs")
    spent = steady(backend, list(frames), rounds)
    rate = len(frames) / spent
    least = 5000 if title.startswith("ssd300_vgg16, batch 32, Tensor") else None
    room.report.number("models", f"{title}: all slots busy", rate, "images/s", least=least)
    if title.startswith("ssd300_vgg16, batch 1, Tensor"):
        room.report.number("models", f"{title}: all slots busy", 1000 * spent, "ms", most=0.7)


def _compiled(room: Room, subject: Subject, images: int, title: str) -> None:
    """Time PyTorch in FP16, channels last: as it is, in a CUDA graph, and compiled."""
    from benchmarks.gpu.baselines import torch_times

    for label, spent in torch_times(subject, images, _rounds(room)):
        room.report.number("models", f"{title}, PyTorch FP16, {label}: network", spent, "µs")
