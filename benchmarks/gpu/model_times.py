"""Times the models: the stages of a frame and whole frames, next to the bare network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from realtime_ssd_engines.backend import GpuBackend
from realtime_ssd_engines.cuda.driver import Device

from benchmarks.gpu.baselines import torch_model, torch_scores, torch_times
from benchmarks.gpu.checks import Check
from benchmarks.gpu.context import GpuContext, import_torch
from benchmarks.gpu.frame import random_frames, steady_state_seconds
from benchmarks.gpu.gpu_timing import Timing, time_work
from benchmarks.gpu.models import find_model, onnx_scores, typical_threshold
from benchmarks.gpu.networks import TorchNetwork
from benchmarks.gpu.speed import FULL_HD
from realtime_ssd.backends import BackendOptions
from realtime_ssd.core.spec import ModelSpec

__all__ = ["checks"]

SECTION = "models"
MAX_ADDED_US = 20.0
"""Target of a frame's time at batch 1 in addition to the bare network."""


@dataclass(frozen=True)
class _NetworkType:
    """A way to run a model's network in frame slots.

    Attributes:
        name: Name in the report.
        open: Returns the network for a device, and its specification with a score threshold.
    """

    name: str
    open: Callable[[Device, str, int], tuple[Any, ModelSpec]]


def checks(context: GpuContext) -> list[Check]:
    """Time all models and their stages, with TensorRT or, without it, PyTorch as the network."""
    return [*_model_checks(context), *_torch_checks(context)]


def _model_checks(context: GpuContext) -> Iterator[Check]:
    for name in context.names:
        for images in context.batches:
            check = partial(_time_model, context, name, images)
            yield Check(f"{name}, batch {images}", check)


def _torch_checks(context: GpuContext) -> Iterator[Check]:
    variants = ["eager", "graph", *(["compiled, graph"] if context.request.torch_compile else [])]
    for name in context.names:
        for images in sorted({context.batches[0], context.batches[-1]}):
            for variant in variants:
                title = f"{name}, batch {images}, PyTorch FP16, {variant}: network"
                yield Check(title, partial(_time_torch, context, name, images, variant, title))


def _network_type(context: GpuContext) -> _NetworkType:
    if not context.tensorrt_problem:
        name = "TensorRT-RTX FP16" if context.flavor == "rtx" else "TensorRT FP16"
        return _NetworkType(name, partial(_open_engine, context))
    import_torch()
    return _NetworkType("PyTorch FP16", partial(_open_torch, context))


def _open_engine(
    context: GpuContext, device: Device, name: str, images: int
) -> tuple[Any, ModelSpec]:
    """Open the engine for one image, or the one for all larger batches."""
    from realtime_ssd_engines.tensorrt.engine_builder import EngineOptions, get_or_build_engine
    from realtime_ssd_engines.tensorrt.network import EngineNetwork
    from realtime_ssd_engines.tensorrt.toolchain import make_toolchain

    model = find_model(context, name)
    max_batch = 1 if images == 1 else max(context.batches)
    options = EngineOptions("fp16", batch=max_batch, cache=context.workdir / "engines")
    toolchain = make_toolchain(context.flavor)
    engine = get_or_build_engine(model.path, model.spec, options, toolchain=toolchain)
    network = EngineNetwork(device, engine.plan, model.spec, context.flavor)
    threshold = typical_threshold(model.spec, onnx_scores(model))
    return network, model.spec.with_thresholds(score_threshold=threshold)


def _open_torch(
    context: GpuContext, device: Device, name: str, images: int
) -> tuple[Any, ModelSpec]:
    """Open the PyTorch network, with a threshold for its own heads."""
    network = torch_model(name)
    spec: ModelSpec = network.spec
    threshold = typical_threshold(spec, torch_scores(network))
    return TorchNetwork(network, spec), spec.with_thresholds(score_threshold=threshold)


def _time_model(context: GpuContext, name: str, images: int) -> None:
    device, network_type = context.device(), _network_type(context)
    title = f"{name}, batch {images}, {network_type.name}"
    with device:
        network, spec = network_type.open(device, name, images)
        options = BackendOptions(batch=images)
        cache = context.workdir / "kernels"
        backend = GpuBackend(device, network, spec, options, cache=cache)
    with backend:
        frames = random_frames(images, FULL_HD)
        backend.collect(backend.submit(frames))
        with device:
            _time_stages(context, device, backend, title)
        _time_throughput(context, backend, frames, title)


def _time_stages(context: GpuContext, device: Device, backend: GpuBackend, title: str) -> None:
    """Time each stage, then whole frames with one launch and with separate launches."""
    slot, images = backend.slots[0], backend.max_batch
    stages, rounds = slot.stages(images), 5 if context.quick else 51

    def time(work: Callable[[], None], repeats: int = 5, *, graph: bool = True) -> Timing:
        return time_work(device, slot.stream, work, repeats, rounds, graph=graph)

    def report(label: str, timing: Timing) -> float:
        context.report.number(SECTION, f"{title}: {label}", timing.us, "µs", clock=timing.clock)
        return timing.us

    report("copy-in 1080p", _time_copy_in(device, slot.stream, images, time))
    for label, stage in (
        ("preprocess", "preprocess"),
        ("network", "network"),
        ("decode + NMS", "detect"),
        ("copy-out", "copy-out"),
    ):
        if stage in stages:
            report(label, time(stages[stage]))
    bare = report("bare network in a graph", time(stages["network"], 1))
    for label, graph in (("one launch", True), ("separate launches", False)):
        total = report(f"frame, {label}", time(lambda: slot.enqueue(images), 1, graph=graph))
        name = f"{title}: frame, {label}, in addition to the bare network"
        most = MAX_ADDED_US if graph and images == 1 else None
        note = f"{total / bare:.2f} times the bare network"
        context.report.number(SECTION, name, total - bare, "µs", most=most, note=note)


def _time_copy_in(
    device: Device, stream: Any, images: int, time: Callable[[Callable[[], None]], Timing]
) -> Timing:
    """Time the copy of 1080p images from pinned memory."""
    size = 3 * FULL_HD[0] * FULL_HD[1] * images
    pinned, buffer = device.pinned(size), device.buffer(size)
    try:
        return time(lambda: device.copy_in(buffer, pinned.bytes, stream))
    finally:
        pinned.close()
        buffer.close()


def _time_throughput(
    context: GpuContext, backend: GpuBackend, frames: Sequence[Any], title: str
) -> None:
    """Time frames from host memory to detections, sequentially and with all slots busy."""
    rounds, latencies = 10 if context.quick else 200, []
    for _ in range(rounds):
        batch = backend.submit(frames)
        backend.collect(batch)
        latencies.append(1e6 * batch.timings["gpu"])
    name = f"{title}: one batch alone on the GPU"
    context.report.number(SECTION, name, median(latencies), "µs")
    elapsed = steady_state_seconds(backend, list(frames), rounds)
    rate = len(frames) / elapsed
    least = 5000 if title.startswith("ssd300_vgg16, batch 32, Tensor") else None
    context.report.number(SECTION, f"{title}: all slots busy", rate, "images/s", least=least)
    if title.startswith("ssd300_vgg16, batch 1, Tensor"):
        context.report.number(SECTION, f"{title}: all slots busy", 1000 * elapsed, "ms", most=0.7)


def _time_torch(context: GpuContext, name: str, images: int, variant: str, title: str) -> None:
    """Time PyTorch's network in FP16: eager, in a CUDA graph, or compiled in a CUDA graph."""
    timing = torch_times(name, images, variant, 5 if context.quick else 51)
    context.report.number(SECTION, title, timing.us, "µs", clock=timing.clock)
