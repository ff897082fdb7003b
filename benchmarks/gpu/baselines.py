"""What else does the same work on a GPU: TensorRT's own NMS, torchvision, PyTorch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.gpu.clock import median_us, milliseconds
from benchmarks.gpu.context import Room, import_torch
from benchmarks.gpu.heads import Case
from benchmarks.gpu.rows import SkippedError
from benchmarks.gpu.subjects import LABELS, REAL, Subject

__all__ = ["efficient_nms", "torch_model", "torch_times", "torchvision_nms"]

PLUGIN = "EfficientNMS_TRT"


def efficient_nms(room: Room, case: Case) -> float:
    """Time softmax and `EfficientNMS_TRT` on the same heads.

    Returns:
        Microseconds an image.

    Raises:
        SkippedError: If there is no TensorRT or the plugin is not registered.
    """
    room.need_tensorrt()
    from realtime_ssd_engines.tensorrt import compat as trt_compat
    from realtime_ssd_engines.tensorrt.library import library

    trt, images = library(), len(case.scores)
    builder, network, config, heard = trt_compat.builder_parts(1 << 30)
    scores = network.add_input("scores", trt.float32, case.scores.shape)
    offsets = network.add_input("offsets", trt.float32, case.offsets.shape)
    soft = network.add_softmax(scores)
    soft.axes = 1 << 2
    factors = np.array([[case.spec.variances]], np.float32)
    scale = network.add_constant(factors.shape, factors).get_output(0)
    scaled = network.add_elementwise(offsets, scale, trt.ElementWiseOperation.PROD)
    boxes = case.spec.boxes.boxes().astype(np.float32)[None]
    anchors = network.add_constant(boxes.shape, boxes).get_output(0)
    layer = network.add_plugin_v2(
        [scaled.get_output(0), soft.get_output(0), anchors], _plugin(trt, heard, case)
    )
    for number in range(layer.num_outputs):
        layer.get_output(number).name = f"out{number}"
        network.mark_output(layer.get_output(number))
    plan = trt_compat.serialize(builder, network, config, heard)
    return _run_plan(room, case, trt_compat.deserialize(plan)) / images


def _plugin(trt: Any, heard: Any, case: Case) -> Any:
    trt.init_libnvinfer_plugins(heard.logger, "")
    registry = trt.get_plugin_registry()
    creators = getattr(registry, "all_creators", None) or registry.plugin_creator_list
    creator = next((one for one in creators if one.name == PLUGIN), None)
    if creator is None:
        raise SkippedError(f"{PLUGIN} is not registered in TensorRT {trt.__version__}")
    limits = case.spec.thresholds
    kinds = trt.PluginFieldType
    fields = [
        trt.PluginField(name, np.array([value], kind), type_)
        for name, value, kind, type_ in (
            ("score_threshold", limits.score_threshold, np.float32, kinds.FLOAT32),
            ("iou_threshold", limits.iou_threshold, np.float32, kinds.FLOAT32),
            ("max_output_boxes", limits.max_detections, np.int32, kinds.INT32),
            ("background_class", 0, np.int32, kinds.INT32),
            ("score_activation", 0, np.int32, kinds.INT32),
            ("box_coding", 1, np.int32, kinds.INT32),
        )
    ]
    return creator.create_plugin("nms", trt.PluginFieldCollection(fields))


def _run_plan(room: Room, case: Case, engine: Any) -> float:
    """Time an engine of recorded inputs; microseconds a batch."""
    device = room.device()
    try:
        with device:
            stream, context, owned = device.stream(), engine.create_execution_context(), []
            given = {"scores": case.scores, "offsets": case.offsets}
            for number in range(engine.num_io_tensors):
                name = engine.get_tensor_name(number)
                shape = tuple(engine.get_tensor_shape(name))
                buffer = device.buffer(4 * int(np.prod(shape)))
                owned.append(buffer)
                context.set_tensor_address(name, buffer.address)
                if name in given:
                    pinned = device.pinned(given[name].nbytes)
                    pinned.view(np.dtype(np.float32), shape)[...] = given[name]
                    device.copy_in(buffer, pinned.bytes, stream)
                    stream.synchronize()
                    pinned.close()
            rounds, run = 5 if room.quick else 51, partial(context.execute_async_v3, stream.handle)
            times = milliseconds(device, stream, run, 5, rounds)
            del context, run
            for buffer in owned:
                buffer.close()
        return median_us(times)
    finally:
        device.close()


def torchvision_nms(room: Room, case: Case) -> float:
    """Time the usual PyTorch way: softmax, decode, threshold, `batched_nms`, best K.

    Returns:
        Microseconds an image, with all the waiting that its changing shapes cost.
    """
    torch = import_torch()
    try:
        batched_nms = import_module("torchvision.ops").batched_nms
    except (ImportError, RuntimeError) as error:
        raise SkippedError("torchvision is not installed, or does not load") from error
    scores, offsets = (torch.from_numpy(a).cuda() for a in (case.scores, case.offsets))
    anchors = torch.from_numpy(case.spec.boxes.boxes()).cuda()
    limits, (vx, vy, vw, vh) = case.spec.thresholds, case.spec.variances
    low, high = torch.tensor([vx, vy]).cuda(), torch.tensor([vw, vh]).cuda()

    def image(raw: Any, delta: Any) -> Any:
        values = raw.softmax(-1)
        centre = delta[:, :2] * low * anchors[:, 2:] + anchors[:, :2]
        half = (delta[:, 2:] * high).exp() * anchors[:, 2:] / 2
        boxes = torch.cat([centre - half, centre + half], 1)
        rows, labels = (values[:, 1:] > limits.score_threshold).nonzero(as_tuple=True)
        best = values[rows, labels + 1]
        kept = batched_nms(boxes[rows], best, labels, limits.iou_threshold)[: limits.max_detections]
        return boxes[rows[kept]], best[kept], labels[kept]

    def work() -> None:
        for raw, delta in zip(scores, offsets, strict=True):
            image(raw, delta)

    return statistics.median(_events(torch, work, 5 if room.quick else 31)) / len(case.scores)


def _events(torch: Any, work: Callable[[], object], rounds: int) -> list[float]:
    """Time work on PyTorch's own stream; microseconds a round."""
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


def torch_model(subject: Subject) -> Any:
    """Give a network with random weights on the GPU, FP16 and channels last.

    Raises:
        SkippedError: If PyTorch does not see the GPU, or the model exists as ONNX only.
    """
    torch = import_torch()
    if subject.name == REAL:
        name, labels = "ssd300_mobilenet_v1", subject.spec.labels
    else:
        name, labels = subject.name, LABELS
    from realtime_ssd_training.models import create

    model: Any = create(name, labels).eval().half().cuda()
    if model.spec.num_boxes != subject.spec.num_boxes:
        raise SkippedError(f"'{name}' in PyTorch has other boxes than '{subject.name}'")
    return model.to(memory_format=torch.channels_last)


def torch_times(subject: Subject, images: int, rounds: int) -> Iterator[tuple[str, float]]:
    """Time PyTorch's network: as it is, in a CUDA graph, and compiled in a CUDA graph.

    Returns:
        What was timed, and microseconds a batch.
    """
    torch, size = import_torch(), subject.spec.input
    model = torch_model(subject)
    picture = torch.randn(images, 3, size.height, size.width, device="cuda").half()
    picture = picture.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        times = _events(torch, lambda: model(picture), rounds)
        yield "eager", statistics.median(times)
        for label, network in (("graph", model), ("compiled, graph", torch.compile(model))):
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                for _ in range(3):
                    network(picture)
            side.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                network(picture)
            yield label, statistics.median(_events(torch, graph.replay, rounds))
