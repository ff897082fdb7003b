"""Baselines on the same GPU: TensorRT's NMS plugin, torchvision and PyTorch."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.clock import multiprocessor_clock
from benchmarks.gpu.context import GpuContext, import_torch
from benchmarks.gpu.gpu_timing import Timing, time_work, warm_up
from benchmarks.gpu.head_cases import HeadCase
from benchmarks.gpu.models import COCO_LABELS, LABELS, TRAINED, random_image
from benchmarks.gpu.report_rows import SkippedError

__all__ = ["efficient_nms", "torch_model", "torch_scores", "torch_times", "torchvision_nms"]

PLUGIN = "EfficientNMS_TRT"


def efficient_nms(context: GpuContext, case: HeadCase) -> float:
    """Time softmax and `EfficientNMS_TRT` on the same heads.

    Returns:
        Microseconds per image.

    Raises:
        SkippedError: If TensorRT is not available or has no such plugin.
    """
    context.require_tensorrt()
    if context.flavor == "rtx":
        raise SkippedError(f"TensorRT-RTX has no plugin {PLUGIN}")
    from realtime_ssd_engines.tensorrt import compat, compat_runtime
    from realtime_ssd_engines.tensorrt.library import library

    trt, images = library(), len(case.scores)
    builder, network, config, messages = compat.create_builder(1 << 30)
    scores = network.add_input("scores", trt.float32, case.scores.shape)
    offsets = network.add_input("offsets", trt.float32, case.offsets.shape)
    softmax = network.add_softmax(scores)
    softmax.axes = 1 << 2
    factors = np.array([[case.spec.variances]], np.float32)
    scale = network.add_constant(factors.shape, factors).get_output(0)
    scaled = network.add_elementwise(offsets, scale, trt.ElementWiseOperation.PROD)
    boxes = case.spec.boxes.boxes().astype(np.float32)[None]
    anchors = network.add_constant(boxes.shape, boxes).get_output(0)
    layer = network.add_plugin_v2(
        [scaled.get_output(0), softmax.get_output(0), anchors], _plugin(trt, messages, case)
    )
    for number in range(layer.num_outputs):
        layer.get_output(number).name = f"out{number}"
        network.mark_output(layer.get_output(number))
    plan = compat.build_plan(builder, network, config, messages)
    return _run_plan(context, case, compat_runtime.load_engine(plan)) / images


def _plugin(trt: Any, messages: Any, case: HeadCase) -> Any:
    trt.init_libnvinfer_plugins(messages.logger, "")
    registry = trt.get_plugin_registry()
    creators = getattr(registry, "all_creators", None) or registry.plugin_creator_list
    creator = next((item for item in creators if item.name == PLUGIN), None)
    if creator is None:
        raise SkippedError(f"{PLUGIN} is not registered in TensorRT {trt.__version__}")
    limits = case.spec.thresholds
    types = trt.PluginFieldType
    fields = [
        trt.PluginField(name, np.array([value], dtype), field_type)
        for name, value, dtype, field_type in (
            ("score_threshold", limits.score_threshold, np.float32, types.FLOAT32),
            ("iou_threshold", limits.iou_threshold, np.float32, types.FLOAT32),
            ("max_output_boxes", limits.max_detections, np.int32, types.INT32),
            ("background_class", 0, np.int32, types.INT32),
            ("score_activation", 0, np.int32, types.INT32),
            ("box_coding", 1, np.int32, types.INT32),
        )
    ]
    return creator.create_plugin("nms", trt.PluginFieldCollection(fields))


def _run_plan(context: GpuContext, case: HeadCase, engine: Any) -> float:
    """Return the microseconds per batch of an engine whose inputs are recorded heads."""
    device, inputs, buffers = context.device(), {"scores": case.scores, "offsets": case.offsets}, []
    with device:
        stream, execution = device.stream(), engine.create_execution_context()
        for number in range(engine.num_io_tensors):
            name = engine.get_tensor_name(number)
            shape = tuple(engine.get_tensor_shape(name))
            buffer = device.buffer(4 * int(np.prod(shape)))
            buffers.append(buffer)
            execution.set_tensor_address(name, buffer.address)
            if name in inputs:
                pinned = device.pinned(inputs[name].nbytes)
                pinned.view(np.dtype(np.float32), shape)[...] = inputs[name]
                device.copy_in(buffer, pinned.bytes, stream)
                stream.synchronize()
                pinned.close()
        rounds = 5 if context.quick else 51
        run = partial(execution.execute_async_v3, stream.handle)
        timing = time_work(device, stream, run, 5, rounds)
        del execution, run
        for buffer in buffers:
            buffer.close()
    return timing.us


def torchvision_nms(context: GpuContext, case: HeadCase) -> float:
    """Time the usual PyTorch implementation: softmax, decode, threshold, `batched_nms`, best K.

    Returns:
        Microseconds per image, including the synchronization that dynamic shapes require.
    """
    torch = import_torch()
    try:
        batched_nms = import_module("torchvision.ops").batched_nms
    except (ImportError, RuntimeError) as error:
        raise SkippedError("torchvision is not installed or fails to load") from error
    scores, offsets = (torch.from_numpy(a).cuda() for a in (case.scores, case.offsets))
    anchors = torch.from_numpy(case.spec.boxes.boxes()).cuda()
    limits, (vx, vy, vw, vh) = case.spec.thresholds, case.spec.variances
    variance_xy, variance_wh = torch.tensor([vx, vy]).cuda(), torch.tensor([vw, vh]).cuda()

    def detect(logits: Any, deltas: Any) -> Any:
        values = logits.softmax(-1)
        center = deltas[:, :2] * variance_xy * anchors[:, 2:] + anchors[:, :2]
        half = (deltas[:, 2:] * variance_wh).exp() * anchors[:, 2:] / 2
        boxes = torch.cat([center - half, center + half], 1)
        rows, labels = (values[:, 1:] > limits.score_threshold).nonzero(as_tuple=True)
        best = values[rows, labels + 1]
        selected = batched_nms(boxes[rows], best, labels, limits.iou_threshold)
        selected = selected[: limits.max_detections]
        return boxes[rows[selected]], best[selected], labels[selected]

    def work() -> None:
        for logits, deltas in zip(scores, offsets, strict=True):
            detect(logits, deltas)

    return _event_time(torch, work, 5 if context.quick else 31).us / len(case.scores)


def _event_time(torch: Any, work: Callable[[], object], rounds: int) -> Timing:
    """Time work on PyTorch's current stream, after a warm-up."""
    work()
    warm_up(work, torch.cuda.synchronize)
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(1000 * begin.elapsed_time(end))
    return Timing(statistics.median(times), multiprocessor_clock())


def torch_model(name: str) -> Any:
    """Return a network with random weights on the GPU, in FP16 and channels-last layout.

    Raises:
        SkippedError: If PyTorch does not support the GPU.
    """
    torch = import_torch()
    from realtime_ssd_training.models import create

    torch.manual_seed(0)
    trained = name == TRAINED
    network: Any = create(
        "ssd300_mobilenet_v1" if trained else name, COCO_LABELS if trained else LABELS
    )
    return network.eval().half().cuda().to(memory_format=torch.channels_last)


def torch_scores(network: Any) -> NDArray[np.float32]:
    """Return the score head that a network of `torch_model` computes for a random image."""
    torch = import_torch()
    image = torch.from_numpy(random_image(network.spec)).half().cuda()[None]
    with torch.no_grad():
        scores, _ = network(image.contiguous(memory_format=torch.channels_last))
    values: NDArray[np.float32] = scores[0].float().cpu().numpy()
    return values


def torch_times(name: str, images: int, variant: str, rounds: int) -> Timing:
    """Time PyTorch's network.

    Args:
        name: One of `benchmarks.gpu.models.NAMES`.
        images: Batch size.
        variant: "eager", "graph" or "compiled, graph".
        rounds: Number of timed batches.
    """
    torch, network = import_torch(), torch_model(name)
    size = network.spec.input
    batch = torch.randn(images, 3, size.height, size.width, device="cuda").half()
    batch = batch.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        if variant == "eager":
            return _event_time(torch, lambda: network(batch), rounds)
        if variant.startswith("compiled"):
            network = torch.compile(network)
        side_stream = torch.cuda.Stream()
        with torch.cuda.stream(side_stream):
            for _ in range(3):
                network(batch)
        side_stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            network(batch)
        return _event_time(torch, graph.replay, rounds)
