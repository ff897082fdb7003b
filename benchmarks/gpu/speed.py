"""Times the stages of a frame on the GPU, next to the bare network and other implementations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from realtime_ssd_engines.backend import GpuBackend
from realtime_ssd_engines.cuda.driver import Device

from benchmarks.gpu.baselines import efficient_nms, torch_model, torchvision_nms
from benchmarks.gpu.context import GpuContext, import_torch
from benchmarks.gpu.frame import random_frames, steady_state_seconds
from benchmarks.gpu.gpu_timing import median_us, time_ms
from benchmarks.gpu.head_cases import HeadCase, ssd300_case
from benchmarks.gpu.models import NAMES, BenchmarkModel, find_model, typical_threshold
from benchmarks.gpu.networks import TorchNetwork, open_slot
from realtime_ssd.backends import BackendOptions
from realtime_ssd.core.spec import InputSpec

__all__ = ["time_kernels", "time_models"]

FULL_HD = (1920, 1080)
MAX_DETECT_US, MAX_DETECT_US_BATCH_32, MAX_PREPROCESS_US = 30.0, 3.0, 10.0
MAX_FRAME_RATIO = 1.10
MIN_SPEEDUP = 3.0


def time_kernels(context: GpuContext, seed: int) -> None:
    """Time decode + NMS on 8732 boxes × 21 classes, and pre-processing from 1080p.

    Args:
        context: Options and resources.
        seed: Seed of the random heads.
    """
    for images in context.batches:
        name = f"8732 x 21 > 0.01, batch {images}"
        with context.report.guard("speed", f"{name}: decode + NMS"):
            context.require_gpu()
            case = ssd300_case(np.random.default_rng(seed), images)
            ours = _detect(context, case, name)
            for label, baseline in (
                ("EfficientNMS_TRT", efficient_nms),
                ("torchvision batched_nms", torchvision_nms),
            ):
                with context.report.guard("speed", f"{name}: {label}"):
                    _report_baseline(context, f"{name}: {label}", ours, baseline(context, case))
        with context.report.guard("speed", f"preprocess 1080p BGR, batch {images}"):
            context.require_gpu()
            _preprocess(context, images)


def _rounds(context: GpuContext) -> int:
    return 5 if context.quick else 51


def _detect(context: GpuContext, case: HeadCase, name: str) -> float:
    images = len(case.scores)
    with open_slot(context, case) as (device, slot):
        slot.submit(random_frames(images, (64, 64)))
        detections = sum(header.count for header, _ in slot.collect())
        work = slot.stages(images)["detect"]
        elapsed = median_us(time_ms(device, slot.stream, work, rounds=_rounds(context)))
    per_image = elapsed / images
    most = MAX_DETECT_US if images == 1 else MAX_DETECT_US_BATCH_32 if images == 32 else None
    note = f"{detections / images:.0f} detections per image, {elapsed:.1f} µs per batch"
    label = f"{name}: decode + NMS"
    context.report.number("speed", label, per_image, "µs per image", most=most, note=note)
    return per_image


def _report_baseline(context: GpuContext, name: str, ours: float, baseline: float) -> None:
    least = MIN_SPEEDUP if "EfficientNMS" in name else None
    note = f"{baseline / ours:.1f} times ours"
    context.report.number("speed", name, baseline, "µs per image", note=note)
    if least is not None:
        context.report.number("speed", f"{name} / ours", baseline / ours, "times", least=least)


def _preprocess(context: GpuContext, images: int) -> None:
    case = ssd300_case(np.random.default_rng(0), images)
    size = InputSpec(300, 300, "BGR", (104.0, 117.0, 123.0))
    with open_slot(context, replace(case, spec=replace(case.spec, input=size))) as (device, slot):
        slot.submit(random_frames(images, FULL_HD))
        slot.collect()
        work = slot.stages(images)["preprocess"]
        elapsed = median_us(time_ms(device, slot.stream, work, rounds=_rounds(context)))
    name, most = f"preprocess 1080p BGR, batch {images}", MAX_PREPROCESS_US if images == 1 else None
    context.report.number("speed", name, elapsed / images, "µs per image", most=most)


@dataclass(frozen=True)
class _NetworkType:
    """A way to run a model's network in frame slots."""

    name: str
    open: Callable[[Device, BenchmarkModel, int], Any]


def time_models(context: GpuContext, seed: int) -> None:
    """Time all models and their stages, with TensorRT or, without it, PyTorch as the network."""
    for name in NAMES:
        for images in context.batches:
            title = f"{name}, batch {images}"
            with context.report.guard("models", title):
                context.require_gpu()
                context.report.check_time()
                network_type = _network_type(context)
                model = _with_typical_threshold(find_model(context, name))
                _time_model(context, model, images, network_type, f"{title}, {network_type.name}")
    for name in NAMES:
        for images in (context.batches[0], context.batches[-1]):
            title = f"{name}, batch {images}"
            with context.report.guard("models", f"{title}, PyTorch compiled"):
                context.require_gpu()
                context.report.check_time()
                _time_torch(context, find_model(context, name), images, title)


def _with_typical_threshold(model: BenchmarkModel) -> BenchmarkModel:
    """Return the model with a threshold at which it has as many candidates as a trained model."""
    limit = typical_threshold(model)
    return replace(model, spec=model.spec.with_thresholds(score_threshold=limit))


def _network_type(context: GpuContext) -> _NetworkType:
    if not context.tensorrt_problem:
        return _NetworkType("TensorRT FP16", partial(_engine, context))
    import_torch()
    return _NetworkType("PyTorch FP16", _torch)


def _engine(context: GpuContext, device: Device, model: BenchmarkModel, images: int) -> Any:
    """Open the engine for one image, or the one for all larger batches."""
    from realtime_ssd_engines.tensorrt.engine_builder import EngineOptions, get_or_build_engine
    from realtime_ssd_engines.tensorrt.network import EngineNetwork

    max_batch = 1 if images == 1 else max(context.batches)
    options = EngineOptions("fp16", batch=max_batch, cache=context.workdir / "engines")
    engine = get_or_build_engine(model.path, model.spec, options)
    return EngineNetwork(device, engine.plan, model.spec)


def _torch(device: Device, model: BenchmarkModel, images: int) -> Any:
    return TorchNetwork(torch_model(model), model.spec)


def _time_model(
    context: GpuContext, model: BenchmarkModel, images: int, network_type: _NetworkType, title: str
) -> None:
    device = context.device()
    with device:
        network = network_type.open(device, model, images)
        options = BackendOptions(batch=images)
        cache = context.workdir / "kernels"
        backend = GpuBackend(device, network, model.spec, options, cache=cache)
    with backend:
        frames = random_frames(images, FULL_HD)
        backend.collect(backend.submit(frames))
        with device:
            _time_stages(context, device, backend, title)
        _time_throughput(context, backend, frames, title)


def _time_stages(context: GpuContext, device: Device, backend: GpuBackend, title: str) -> None:
    """Time each stage, then whole frames with one launch and with separate launches."""
    slot, images, rounds = backend.slots[0], backend.max_batch, _rounds(context)
    stages = slot.stages(images)
    bytes_in = 3 * FULL_HD[0] * FULL_HD[1] * images
    pinned, buffer = device.pinned(bytes_in), device.buffer(bytes_in)

    def time(work: Callable[[], None], repeats: int = 5, *, graph: bool = True) -> float:
        return median_us(time_ms(device, slot.stream, work, repeats, rounds, graph=graph))

    copy = time(lambda: device.copy_in(buffer, pinned.bytes, slot.stream))
    context.report.number("models", f"{title}: copy-in 1080p", copy, "µs")
    for memory in (pinned, buffer):
        memory.close()
    for label, stage in (
        ("preprocess", "preprocess"),
        ("network", "network"),
        ("decode + NMS", "detect"),
        ("copy-out", "copy-out"),
    ):
        context.report.number("models", f"{title}: {label}", time(stages[stage]), "µs")
    bare = time(stages["network"], 1)
    context.report.number("models", f"{title}: bare network in a graph", bare, "µs")
    for label, graph in (("one launch", True), ("separate launches", False)):
        total = time(lambda: slot.enqueue(images), 1, graph=graph)
        context.report.number("models", f"{title}: frame, {label}", total, "µs")
        most = MAX_FRAME_RATIO if graph else None
        name = f"{title}: frame, {label} / bare network"
        context.report.number("models", name, total / bare, "times", most=most)


def _time_throughput(
    context: GpuContext, backend: GpuBackend, frames: Sequence[Any], title: str
) -> None:
    """Time frames from host memory to detections, sequentially and with all slots busy."""
    rounds, latencies = 10 if context.quick else 200, []
    for _ in range(rounds):
        batch = backend.submit(frames)
        backend.collect(batch)
        latencies.append(1000 * batch.timings["gpu"])
    value = median_us(latencies)
    context.report.number("models", f"{title}: one batch alone, copy-in to copy-out", value, "µs")
    elapsed = steady_state_seconds(backend, list(frames), rounds)
    rate = len(frames) / elapsed
    least = 5000 if title.startswith("ssd300_vgg16, batch 32, Tensor") else None
    context.report.number("models", f"{title}: all slots busy", rate, "images/s", least=least)
    if title.startswith("ssd300_vgg16, batch 1, Tensor"):
        context.report.number("models", f"{title}: all slots busy", 1000 * elapsed, "ms", most=0.7)


def _time_torch(context: GpuContext, model: BenchmarkModel, images: int, title: str) -> None:
    """Time PyTorch in FP16: eager, in a CUDA graph, and compiled."""
    from benchmarks.gpu.baselines import torch_times

    for label, elapsed in torch_times(model, images, _rounds(context)):
        context.report.number("models", f"{title}, PyTorch FP16, {label}: network", elapsed, "µs")
