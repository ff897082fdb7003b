"""Conversion of TensorFlow operations on images to ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd_training.importers.nhwc_graph import Value, same_padding
from realtime_ssd_training.importers.tensorflow_file import Node, attribute, data_inputs
from realtime_ssd_training.importers.tensorflow_graph import (
    Converter,
    GraphConverter,
    node_error,
)

__all__ = ["CONVERTERS"]

Pads = list[tuple[int, int]]


def _source(node: Node, position: int = 0) -> str:
    """Return the name of the node that computes an input."""
    return str(data_inputs(node)[position]).partition(":")[0]


def _check_format(node: Node) -> None:
    if attribute(node, "data_format", "s", b"NHWC") not in (b"NHWC", b""):
        raise node_error(node, "has images in the order NCHW, which is not supported")


def _pads(node: Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> Pads:
    if attribute(node, "padding", "s") == b"SAME":
        return [same_padding(*line, 1) for line in zip(sizes, kernel, strides, strict=True)]
    return [(0, 0), (0, 0)]


def _conv(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
    """Convert Conv2D and DepthwiseConv2dNative, also inside SpaceToBatchND (dilated)."""
    _check_format(node)
    image, kernel = inputs[0], inputs[1].constant
    if kernel is None or kernel.ndim != 4:
        raise node_error(node, "has weights that are not constant")
    strides = list(node.attr["strides"].list.i)[1:3]
    dilation = (list(node.attr["dilations"].list.i) or [1] * 4)[1:3]
    depthwise = node.op == "DepthwiseConv2dNative"
    if depthwise:
        rows, columns, channels, multiplier = kernel.shape
        weight = kernel.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, rows, columns)
        groups = channels
    else:
        weight = kernel.transpose(3, 2, 0, 1)
        groups = image.shape[3] // kernel.shape[2]
    size = weight.shape[2:]
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    pads = _pads(node, image.shape[1:3], reach, strides)
    if _source(node) in graph.dilations:
        block, paddings = graph.dilations[_source(node)]
        dilation, pads = [block, block], [(int(a), int(b)) for a, b in paddings]
        reach = [(k - 1) * block + 1 for k in size]
    name = graph.add_convolution(
        np.ascontiguousarray(weight, np.float32),
        [graph.channels_first(image)],
        group=int(groups),
        kernel_shape=list(size),
        strides=[int(step) for step in strides],
        dilations=[int(step) for step in dilation],
        pads=[pads[0][0], pads[1][0], pads[0][1], pads[1][1]],
    )
    rows, columns = _pooled(image, pads, reach, strides)
    return Value((1, rows, columns, len(weight)), name, channels_first=True)


def _pooled(image: Value, pads: Pads, reach: Sequence[int], strides: Sequence[int]) -> list[int]:
    return [
        (size + sum(pad) - kernel) // int(stride) + 1
        for size, pad, kernel, stride in zip(image.shape[1:3], pads, reach, strides, strict=True)
    ]


def _pool(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
    """Convert MaxPool and AvgPool, whose averages exclude the padding."""
    _check_format(node)
    image = inputs[0]
    kernel = [int(size) for size in node.attr["ksize"].list.i][1:3]
    strides = [int(size) for size in node.attr["strides"].list.i][1:3]
    pads = _pads(node, image.shape[1:3], kernel, strides)
    name = graph.add(
        "MaxPool" if node.op == "MaxPool" else "AveragePool",
        [graph.channels_first(image)],
        kernel_shape=kernel,
        strides=strides,
        pads=[pads[0][0], pads[1][0], pads[0][1], pads[1][1]],
    )
    rows, columns = _pooled(image, pads, kernel, strides)
    return Value((1, rows, columns, image.shape[3]), name, channels_first=True)


def _batch_norm(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
    _check_format(node)
    parts = [item.constant for item in inputs[1:5]]
    if any(part is None for part in parts) or attribute(node, "is_training", "b", True):
        raise node_error(node, "normalizes by statistics that are not constant; freeze the graph")
    scale, shift, mean, variance = (np.asarray(part, np.float64) for part in parts)
    epsilon = attribute(node, "epsilon", "f", 1e-4)
    factor = scale / np.sqrt(variance + epsilon)
    return graph.scale(inputs[0], factor, shift - mean * factor, _source(node))


def _bias_add(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
    _check_format(node)
    bias = inputs[1].constant
    if bias is None or len(inputs[0].shape) != 4:
        raise node_error(node, "adds values that are not constant")
    return graph.scale(inputs[0], np.ones_like(bias), bias, _source(node))


def _binary(op_type: str) -> Converter:
    """Return the converter of an operation of two tensors, one of which may be constant."""

    def convert(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
        first, second = (item.constant for item in inputs)
        if second is not None:
            values = second.astype(np.float64)
            operand = -values if op_type == "Sub" else values
            operand = 1 / values if op_type == "Div" else operand
            return _with_constant(graph, node, op_type in ("Add", "Sub"), inputs, 0, operand)
        if first is not None and op_type in ("Add", "Mul"):
            return _with_constant(graph, node, op_type == "Add", inputs, 1, first)
        if first is not None:
            constant = graph.constant(np.asarray(first, np.float32))
            shape = tuple(np.broadcast_shapes(first.shape, inputs[1].shape))
            return Value(shape, graph.add(op_type, [constant, graph.same_order(inputs[1])]))
        return _of_two(graph, op_type, *inputs)

    return convert


def _of_two(graph: GraphConverter, op_type: str, first: Value, second: Value) -> Value:
    shape = tuple(np.broadcast_shapes(first.shape, second.shape))
    is_image = len(first.shape) == len(second.shape) == 4
    order = graph.channels_first if is_image else graph.same_order
    name = graph.add(op_type, [order(first), order(second)])
    return Value(shape, name, channels_first=is_image)


def _with_constant(
    graph: GraphConverter,
    node: Node,
    is_sum: bool,
    inputs: Sequence[Value],
    position: int,
    constant: NDArray[Any],
) -> Value:
    """Add a constant to an input, or multiply the input by it, per channel if possible."""
    value = inputs[position]
    if np.all(constant == (0 if is_sum else 1)) and constant.size == 1:
        return value
    channels = value.shape[-1]
    if len(value.shape) == 4 and constant.size in (1, channels):
        per_channel = np.broadcast_to(constant.reshape(-1), (channels,))
        ones, zeros = np.ones(channels), np.zeros(channels)
        factor, shift = (ones, per_channel) if is_sum else (per_channel, zeros)
        return graph.scale(value, factor, shift, _source(node, position))
    operand = graph.constant(np.asarray(constant, np.float32))
    name = graph.add("Add" if is_sum else "Mul", [graph.same_order(value), operand])
    return Value(tuple(np.broadcast_shapes(value.shape, constant.shape)), name)


def _unary(op_type: str) -> Converter:
    """Return the converter of a function of each value."""

    def convert(graph: GraphConverter, _: Node, inputs: Sequence[Value]) -> Value:
        value = inputs[0]
        name = graph.channels_first(value) if value.channels_first else graph.same_order(value)
        return Value(value.shape, graph.add(op_type, [name]), value.channels_first)

    return convert


def _relu6(graph: GraphConverter, _: Node, inputs: Sequence[Value]) -> Value:
    value = inputs[0]
    name = graph.channels_first(value) if value.channels_first else graph.same_order(value)
    limits = [graph.constant(np.array(limit, np.float32)) for limit in (0, 6)]
    return Value(value.shape, graph.add("Clip", [name, *limits]), value.channels_first)


def _limit(op_type: str) -> Converter:
    """Return the converter of a minimum or maximum with a constant number."""

    def convert(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
        value = next(item for item in inputs if item.constant is None)
        constant = next((item.constant for item in inputs if item.constant is not None), None)
        if constant is None or constant.size != 1:
            raise node_error(node, "compares two tensors, which is not supported")
        limit = graph.constant(np.asarray(constant, np.float32).reshape(()))
        name = graph.channels_first(value) if value.channels_first else graph.same_order(value)
        return Value(value.shape, graph.add(op_type, [name, limit]), value.channels_first)

    return convert


def _rsqrt(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
    root = _unary("Sqrt")(graph, node, inputs)
    return Value(root.shape, graph.add("Reciprocal", [root.name]), root.channels_first)


def _square(graph: GraphConverter, _: Node, inputs: Sequence[Value]) -> Value:
    return _of_two(graph, "Mul", inputs[0], inputs[0])


def _reduce(op_type: str) -> Converter:
    """Return the converter of a sum or mean over rows and columns, or over channels."""

    def convert(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
        value, axes = inputs[0], inputs[1].constant
        keep = bool(attribute(node, "keep_dims", "b", False))
        if axes is None or len(value.shape) != 4:
            raise node_error(node, "reduces axes that are not constant")
        chosen = sorted(int(axis) % 4 for axis in np.ravel(axes))
        moved = [(0, 2, 3, 1)[axis] for axis in chosen]
        # The L2 normalization of TensorFlow drops its axis, but is broadcast again.
        name = graph.channels_first(value)
        if op_type == "Sum":
            name = graph.add("ReduceSum", [name, graph.constant(np.array(moved))], keepdims=1)
        else:
            name = graph.add("ReduceMean", [name], axes=moved, keepdims=1)
        shape = tuple(1 if axis in chosen else size for axis, size in enumerate(value.shape))
        if keep:
            return Value(shape, name, channels_first=True)
        dropped = tuple(size for axis, size in enumerate(value.shape) if axis not in chosen)
        target = graph.constant(np.array(dropped, np.int64))
        ordered = graph.same_order(Value(shape, name, channels_first=True))
        return Value(dropped, graph.add("Reshape", [ordered, target]))

    return convert


def _reshape(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
    value, target = inputs[0], inputs[1].constant
    if target is None:
        raise node_error(node, "has a shape that depends on the image")
    return _with_shape(graph, value, [int(size) for size in np.ravel(target)])


def _with_shape(graph: GraphConverter, value: Value, shape: list[int]) -> Value:
    if -1 in shape:
        known = -int(np.prod(shape))
        shape[shape.index(-1)] = int(np.prod(value.shape)) // max(known, 1)
    if np.prod(shape) != np.prod(value.shape):
        raise ValueError("a reshape changes the number of values")
    sizes = graph.constant(np.array(shape, np.int64))
    return Value(tuple(shape), graph.add("Reshape", [graph.same_order(value), sizes]))


def _squeeze(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
    value = inputs[0]
    rank = len(value.shape)
    axes = {int(axis) % rank for axis in node.attr["squeeze_dims"].list.i}
    axes = axes or {axis for axis, size in enumerate(value.shape) if size == 1}
    return _with_shape(graph, value, [s for axis, s in enumerate(value.shape) if axis not in axes])


def _expand(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
    shape = list(inputs[0].shape)
    if inputs[1].constant is None:
        raise node_error(node, "inserts an axis that is not constant")
    axis = int(inputs[1].constant)
    shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, 1)
    return _with_shape(graph, inputs[0], shape)


def _concat(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
    *values, last = inputs
    if last.constant is None:
        raise node_error(node, "joins tensors along an axis that is not constant")
    axis = int(last.constant) % len(values[0].shape)
    shape = list(values[0].shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    first = all(value.channels_first for value in values)
    names = [graph.channels_first(v) if first else graph.same_order(v) for v in values]
    name = graph.add("Concat", names, axis=(0, 2, 3, 1)[axis] if first else axis)
    return Value(tuple(shape), name, first)


def _pad(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
    value, pads = inputs[0], inputs[1].constant
    if pads is None or pads.shape != (4, 2) or pads.min() < 0:
        raise node_error(node, "has a padding that is not constant")
    shape = tuple(int(size + sum(pad)) for size, pad in zip(value.shape, pads, strict=True))
    amounts = graph.constant(pads[[0, 3, 1, 2]].T.reshape(-1).astype(np.int64))
    name = graph.add("Pad", [graph.channels_first(value), amounts])
    return Value(shape, name, channels_first=True)


def _space_to_batch(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
    """Remember block size and padding, which become dilation and padding of the convolution."""
    block, paddings = inputs[1].constant, inputs[2].constant
    if block is None or paddings is None or len(set(block.tolist())) != 1 or len(block) != 2:
        raise node_error(node, "has a block size that is not supported")
    if int(block[0]) == 1:
        pads = np.pad(paddings, ((1, 1), (0, 0)))
        return _pad(graph, node, [inputs[0], Value(pads.shape, constant=pads)])
    graph.dilations[node.name] = (int(block[0]), paddings)
    return inputs[0]


def _batch_to_space(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
    crops = inputs[2].constant
    value = inputs[0]
    if crops is None:
        raise node_error(node, "crops by amounts that are not constant")
    if not np.any(crops):
        return value
    starts, cut = [int(a) for a, _ in crops], [int(b) for _, b in crops]
    rows, columns = value.shape[1] - cut[0], value.shape[2] - cut[1]
    arguments = [np.array(starts), np.array([rows, columns]), np.array([2, 3])]
    names = [graph.constant(item.astype(np.int64)) for item in arguments]
    name = graph.add("Slice", [graph.channels_first(value), *names])
    shape = (1, rows - starts[0], columns - starts[1], value.shape[3])
    return Value(shape, name, channels_first=True)


def _softmax(graph: GraphConverter, _: Node, inputs: Sequence[Value]) -> Value:
    value = inputs[0]
    return Value(value.shape, graph.add("Softmax", [graph.same_order(value)], axis=-1))


def _resize(graph: GraphConverter, node: Node, inputs: Sequence[Value]) -> Value:
    value, size = inputs[0], inputs[1].constant
    if size is None:
        raise node_error(node, "has a size that depends on the image")
    rows, columns = (int(item) for item in size)
    align, half = (attribute(node, k, "b", False) for k in ("align_corners", "half_pixel_centers"))
    mode = "align_corners" if align else "half_pixel" if half else "asymmetric"
    nearest = node.op == "ResizeNearestNeighbor"
    empty = graph.constant(np.zeros(0, np.float32))
    sizes = graph.constant(np.array([1, value.shape[3], rows, columns], np.int64))
    name = graph.add(
        "Resize",
        [graph.channels_first(value), empty, empty, sizes],
        mode="nearest" if nearest else "linear",
        coordinate_transformation_mode=mode,
        nearest_mode="floor" if mode == "asymmetric" else "round_prefer_ceil",
    )
    return Value((1, rows, columns, value.shape[3]), name, channels_first=True)


def _identity(_: GraphConverter, __: Node, inputs: Sequence[Value]) -> Value:
    return inputs[0]


CONVERTERS: dict[str, Converter] = {
    "Add": _binary("Add"),
    "AddV2": _binary("Add"),
    "AvgPool": _pool,
    "BatchToSpaceND": _batch_to_space,
    "BiasAdd": _bias_add,
    "ConcatV2": _concat,
    "Conv2D": _conv,
    "DepthwiseConv2dNative": _conv,
    "ExpandDims": _expand,
    "FusedBatchNorm": _batch_norm,
    "FusedBatchNormV2": _batch_norm,
    "FusedBatchNormV3": _batch_norm,
    "Identity": _identity,
    "MaxPool": _pool,
    "Maximum": _limit("Max"),
    "Mean": _reduce("Mean"),
    "Minimum": _limit("Min"),
    "Mul": _binary("Mul"),
    "Pad": _pad,
    "RealDiv": _binary("Div"),
    "Relu": _unary("Relu"),
    "Relu6": _relu6,
    "Reshape": _reshape,
    "ResizeBilinear": _resize,
    "ResizeNearestNeighbor": _resize,
    "Rsqrt": _rsqrt,
    "Sigmoid": _unary("Sigmoid"),
    "Softmax": _softmax,
    "SpaceToBatchND": _space_to_batch,
    "Square": _square,
    "Squeeze": _squeeze,
    "StopGradient": _identity,
    "Sub": _binary("Sub"),
    "Sum": _reduce("Sum"),
}
"""Converters by operation."""
