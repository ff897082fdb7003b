"""A small frozen graph as TensorFlow's Object Detection API exports it, and its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef
from torch import Tensor
from torch.nn import functional

Array = NDArray[Any]
SIDE, CELLS, CLASSES = 16, 4, 3
TYPES = {"float32": 1, "int32": 3, "uint8": 4, "int64": 9}


class GraphWriter:
    """Adds nodes to a graph."""

    def __init__(self) -> None:
        self.graph = GraphDef()

    def node(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        node = self.graph.node.add(op=op, name=name)
        node.input.extend(inputs)
        for key, value in attributes.items():
            target = node.attr[key]
            if isinstance(value, bool):
                target.b = value
            elif isinstance(value, int):
                target.i = value
            elif isinstance(value, float):
                target.f = value
            elif isinstance(value, bytes):
                target.s = value
            else:
                target.list.i.extend(value)
        return name

    def const(self, name: str, value: Any, *, compact: bool = False) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        array = array.astype(np.int32) if array.dtype == np.int64 else array
        tensor = self.graph.node.add(op="Const", name=name).attr["value"].tensor
        tensor.dtype = TYPES[str(array.dtype)]
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        if compact and array.dtype == np.float32:
            tensor.float_val.append(float(array.reshape(-1)[0]))
        else:
            tensor.tensor_content = array.tobytes()
        return name

    def conv(
        self, name: str, source: str, weight: Array, *, stride: int = 1, depthwise: bool = False
    ) -> str:
        kernel = self.const(f"{name}/weights", weight)
        read = self.node("Identity", f"{name}/weights/read", kernel)
        op = "DepthwiseConv2dNative" if depthwise else "Conv2D"
        strides = [1, stride, stride, 1]
        return self.node(op, name, source, read, strides=strides, padding=b"SAME")


def draw(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32) * 0.3


WEIGHTS = {
    "stem": draw(1, 3, 3, 3, 8),
    "depthwise": draw(2, 3, 3, 8, 1),
    "point": draw(3, 1, 1, 8, 12),
    "box": draw(4, 1, 1, 12, 8),
    "class": draw(5, 1, 1, 12, 2 * (CLASSES + 1)),
}
BIAS = draw(6, 8)
NORM = [np.abs(draw(7, 8)) + 0.5, draw(8, 8), draw(9, 8), np.abs(draw(10, 8)) + 0.5]


def default_corners() -> Array:
    """Return the default boxes as y1, x1, y2, x2: two in each of 4 × 4 cells."""
    centers = (np.arange(CELLS) + 0.5) / CELLS
    y, x = np.meshgrid(centers, centers, indexing="ij")
    center = np.stack([y, x], -1).reshape(-1, 1, 2).repeat(2, 1)
    half = np.broadcast_to(np.array([[0.1, 0.1], [0.2, 0.15]]), center.shape)
    return np.concatenate([center - half, center + half], -1).reshape(-1, 4).astype(np.float32)


def detector(
    *, sigmoid: bool = True, scales: Sequence[float] = (10.0, 10.0, 5.0, 5.0)
) -> GraphWriter:
    """Return the graph of a detector with an image of any size and constant weights."""
    g = GraphWriter()
    g.node("Placeholder", "image_tensor")
    g.node("Cast", "ToFloat", "image_tensor")
    size = g.const("Preprocessor/size", [SIDE, SIDE])
    g.node("ResizeBilinear", "Preprocessor/ResizeBilinear", "ToFloat", size)
    g.node("Mul", "Preprocessor/mul", g.const("half", 2 / 255), "Preprocessor/ResizeBilinear")
    g.node("Sub", "Preprocessor/sub", "Preprocessor/mul", g.const("one", 1.0))
    g.conv("stem", "Preprocessor/sub", WEIGHTS["stem"], stride=2)
    parts = [g.const(f"norm/{k}", value) for k, value in enumerate(NORM)]
    g.node("FusedBatchNormV3", "norm", "stem", *parts, is_training=False, epsilon=1e-3)
    g.node("Relu6", "relu", "norm")
    g.conv("depthwise", "relu", WEIGHTS["depthwise"], stride=2, depthwise=True)
    g.conv("point", "depthwise", WEIGHTS["point"])
    g.node("Relu6", "features", "point")
    for head, columns in (("box", 4), ("class", CLASSES + 1)):
        g.conv(head, "features", WEIGHTS[head])
        bias = g.const(f"{head}/bias", BIAS[: 2 * columns], compact=False)
        g.node("BiasAdd", f"{head}/BiasAdd", head, bias)
        shape = g.node("Shape", f"{head}/Shape", "features")
        ends = [g.const(f"{head}/{k}", [k]) for k in (0, 1)]
        batch = g.node("StridedSlice", f"{head}/batch", shape, *ends, ends[1], shrink_axis_mask=1)
        rest = [g.const(f"{head}/rows", -1), g.const(f"{head}/columns", columns)]
        target = g.node("Pack", f"{head}/target", batch, *rest, axis=0)
        g.node("Reshape", f"{head}/Reshape", f"{head}/BiasAdd", target)
    _add_post_processing(g, sigmoid, scales)
    return g


def _add_post_processing(g: GraphWriter, sigmoid: bool, scales: Sequence[float]) -> None:
    corners = g.const("anchors", default_corners())
    prefix = "Postprocessor/Decode"
    anchors = f"{prefix}/get_center_coordinates_and_sizes/transpose"
    axes = g.const("axes", [1, 0])
    g.node("Transpose", anchors, corners, axes)
    flat = g.node("Reshape", "Postprocessor/Reshape_1", "box/Reshape", g.const("flat", [-1, 4]))
    g.node("Transpose", f"{prefix}/transpose", flat, axes)
    g.node("Unpack", f"{prefix}/unstack", f"{prefix}/transpose", num=4)
    for k, scale in enumerate(scales):
        divisor = g.const(f"{prefix}/y{k}", scale)
        g.node("RealDiv", f"{prefix}/truediv_{k}", f"{prefix}/unstack:{k}", divisor)
    logits = g.node(
        "RealDiv", "Postprocessor/scale_logits", "class/Reshape", g.const("logit_scale", 1.0)
    )
    g.node("Sigmoid" if sigmoid else "Softmax", "Postprocessor/convert_scores", logits)
    begin, size = g.const("begin", [0, 0, 1]), g.const("slice", [-1, -1, -1])
    g.node("Slice", "Postprocessor/Slice", "Postprocessor/convert_scores", begin, size)
    limits = [g.const("iou", 0.55), g.const("score", 0.25)]
    entered = [g.node("Enter", f"enter_{name}", name) for name in limits]
    number = g.node("Minimum", "number", g.const("per_class", 60), "unknown")
    g.node("NonMaxSuppressionV3", "nms", "boxes", "scores", number, *entered)
    for name in ("unknown", "boxes", "scores"):
        g.node("Placeholder", name)


def expected_heads(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores and offsets (y, x, h, w) of images from -1 to 1, N × 3 × 16 × 16."""
    kernels = {name: torch.from_numpy(value) for name, value in WEIGHTS.items()}

    def same(x: Tensor) -> Tensor:  # one row and column at the end, for even sizes and stride 2
        return functional.pad(x, (0, 1, 0, 1))

    x = functional.conv2d(same(images), kernels["stem"].permute(3, 2, 0, 1), stride=2)
    scale, shift, mean, variance = map(torch.from_numpy, NORM)
    x = functional.batch_norm(x, mean, variance, scale, shift, eps=1e-3).clamp(0, 6)
    weight = kernels["depthwise"].permute(2, 3, 0, 1)
    x = functional.conv2d(same(x), weight, stride=2, groups=8)
    x = functional.conv2d(x, kernels["point"].permute(3, 2, 0, 1)).clamp(0, 6)
    heads = []
    for name, columns in (("class", CLASSES + 1), ("box", 4)):
        bias = torch.from_numpy(BIAS[: 2 * columns])
        y = functional.conv2d(x, kernels[name].permute(3, 2, 0, 1), bias)
        heads.append(y.permute(0, 2, 3, 1).reshape(len(images), -1, columns))
    return heads[0], heads[1]


def write(writer: GraphWriter, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(writer.graph.SerializeToString())
    return path


def write_saved_model(writer: GraphWriter, folder: Path) -> Path:
    """Write a SavedModel: a message with meta graphs as its field 2."""
    meta = MetaGraphDef(graph_def=writer.graph).SerializeToString()
    length, prefix = len(meta), bytearray(b"\x08\x01\x12")
    while length > 127:
        prefix.append(length & 127 | 128)
        length >>= 7
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(bytes([*prefix, length]) + meta)
    return folder
