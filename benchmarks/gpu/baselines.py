"""Baselines on the same GPU: TensorRT's NMS plugin, torchvision and PyTorch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.gpu.context import GpuContext, import_torch
from benchmarks.gpu.gpu_timing import median_us, time_ms
from benchmarks.gpu.head_cases import HeadCase
from benchmarks.gpu.models import LABELS, TRAINED, BenchmarkModel
from benchmarks.gpu.report_rows import SkippedError

__all__ = ["efficient_nms", "torch_model", "torch_times", "torchvision_nms"]

PLUGIN = "EfficientNMS_TRT"


def efficient_nms(context: GpuContext, case: HeadCase) -> float:
    """Time softmax and `EfficientNMS_TRT` on the same heads.

    Returns:
        Microseconds per image.

    Raises:
        SkippedError: If TensorRT is not available or the plugin is not registered.
    """
    context.require_tensorrt()
    from realtime_ssd_engines.tensorrt import compat
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
    return _run_plan(context, case, compat.load_engine(plan)) / images


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
        times = time_ms(device, stream, run, 5, rounds)
        del execution, run
        for buffer in buffers:
            buffer.close()
    return median_us(times)


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

    times = _event_times(torch, work, 5 if context.quick else 31)
    return statistics.median(times) / len(case.scores)


def _event_times(torch: Any, work: Callable[[], object], rounds: int) -> list[float]:
    """Return the microseconds per round of work on PyTorch's current stream."""
    times = []
    for number in range(rounds + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        if number >= 3:
            times.append(1000 * begin.elapsed_time(end))
    return times


def torch_model(model: BenchmarkModel) -> Any:
    """Return a network with random weights on the GPU, in FP16 and channels-last layout.

    Raises:
        SkippedError: If PyTorch does not support the GPU, or the model exists as ONNX only.
    """
    torch = import_torch()
    if model.name == TRAINED:
        name, labels = "ssd300_mobilenet_v1", model.spec.labels
    else:
        name, labels = model.name, LABELS
    from realtime_ssd_training.models import create

    network: Any = create(name, labels).eval().half().cuda()
    if network.spec.num_boxes != model.spec.num_boxes:
        raise SkippedError(f"'{name}' in PyTorch has other boxes than '{model.name}'")
    return network.to(memory_format=torch.channels_last)


def torch_times(model: BenchmarkModel, images: int, rounds: int) -> Iterator[tuple[str, float]]:
    """Time PyTorch's network: eager, in a CUDA graph, and compiled in a CUDA graph.

    Yields:
        Variant, and microseconds per batch.
    """
    torch, size = import_torch(), model.spec.input
    eager = torch_model(model)
    batch = torch.randn(images, 3, size.height, size.width, device="cuda").half()
    batch = batch.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        times = _event_times(torch, lambda: eager(batch), rounds)
        yield "eager", statistics.median(times)
        for variant, network in (("graph", eager), ("compiled, graph", torch.compile(eager))):
            side_stream = torch.cuda.Stream()
            with torch.cuda.stream(side_stream):
                for _ in range(3):
                    network(batch)
            side_stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                network(batch)
            yield variant, statistics.median(_event_times(torch, graph.replay, rounds))
