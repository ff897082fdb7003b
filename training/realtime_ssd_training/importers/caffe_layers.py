"""Conversion of Caffe layers to ONNX nodes.

Source: the layer definitions of BVLC Caffe and of weiliu89's SSD branch (Normalize, Permute,
PriorBox, DetectionOutput).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, prod

import numpy as np

from realtime_ssd_training.importers.caffe_anchors import read_prior_box
from realtime_ssd_training.importers.caffe_definition import layer_error
from realtime_ssd_training.importers.caffe_graph import Blob, GraphBuilder
from realtime_ssd_training.weights.caffe_schema import Message, enum_name

__all__ = ["CONVERTERS"]

Pair = tuple[int, int]


def _pair(parameters: Message, field: str, default: int, prefix: str) -> Pair:
    """Return a size along both axes, given once, as two numbers, or as a field for each axis."""
    values = list(getattr(parameters, field)) or [default]
    height, width = f"{prefix}_h", f"{prefix}_w"
    return (
        getattr(parameters, height) if parameters.HasField(height) else values[0],
        getattr(parameters, width) if parameters.HasField(width) else values[-1],
    )


def _window(parameters: Message) -> tuple[Pair, Pair, Pair]:
    """Return kernel size, stride and padding."""
    return (
        _pair(parameters, "kernel_size", 0, "kernel"),
        _pair(parameters, "stride", 1, "stride"),
        _pair(parameters, "pad", 0, "pad"),
    )


def convolution(graph: GraphBuilder, layer: Message, bottoms: Sequence[Blob]) -> Blob:
    """Convert Convolution (grouped, dilated, with or without bias)."""
    source, parameters = bottoms[0], layer.convolution_param
    kernel, stride, pad = _window(parameters)
    dilation = _pair(parameters, "dilation", 1, "dilation")
    inputs, outputs = source.shape[1], parameters.num_output
    depthwise = "Depthwise" in layer.type and not parameters.HasField("group")
    groups = inputs if depthwise else parameters.group
    if not outputs or not all(kernel) or inputs % groups or outputs % groups:
        raise layer_error(layer, f"turns {inputs} channels into {outputs} with kernel {kernel}")
    shapes: list[tuple[int, ...]] = [(outputs, inputs // groups, *kernel)]
    if parameters.bias_term:
        shapes.append((outputs,))
    weights = [graph.constant(blob) for blob in graph.layer_weights(layer, *shapes)]
    name = graph.add(
        "Conv",
        [source.name, *weights],
        kernel_shape=kernel,
        strides=stride,
        pads=[*pad, *pad],
        dilations=dilation,
        group=groups,
    )
    sizes = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, p, d, k, s in zip(source.shape[2:], pad, dilation, kernel, stride, strict=True)
    ]
    return Blob(name, (1, outputs, *sizes))


def batch_norm(graph: GraphBuilder, layer: Message, bottoms: Sequence[Blob]) -> Blob:
    """Convert BatchNorm: stored sums divided by the stored count, without scale and shift."""
    source = bottoms[0]
    channels = source.shape[1]
    mean, variance, count = graph.layer_weights(layer, (channels,), (channels,), (1,))
    factor = np.float32(1 / count[0] if count[0] else 0)
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    weights = [graph.constant(values) for values in (ones, zeros, mean * factor, variance * factor)]
    eps = layer.batch_norm_param.eps
    return source.copy(name=graph.add("BatchNormalization", [source.name, *weights], epsilon=eps))


def scale(graph: GraphBuilder, layer: Message, bottoms: Sequence[Blob]) -> Blob:
    """Convert Scale: a factor and an optional shift per channel."""
    parameters, channels = layer.scale_param, bottoms[0].shape[1]
    if len(bottoms) != 1 or parameters.axis != 1 or parameters.num_axes != 1:
        raise layer_error(layer, "scales other axes than the channels, which is not supported")
    shapes = [(channels,)] * (2 if parameters.bias_term else 1)
    name = bottoms[0].name
    for op_type, values in zip(("Mul", "Add"), graph.layer_weights(layer, *shapes), strict=False):
        name = graph.add(op_type, [name, graph.constant(values.reshape(1, -1, 1, 1))])
    return bottoms[0].copy(name=name)


def relu(graph: GraphBuilder, layer: Message, bottoms: Sequence[Blob]) -> Blob:
    """Convert ReLU, leaky if the definition has a slope."""
    slope = layer.relu_param.negative_slope
    if slope:
        return bottoms[0].copy(name=graph.add("LeakyRelu", [bottoms[0].name], alpha=slope))
    return bottoms[0].copy(name=graph.add("Relu", [bottoms[0].name]))


def relu6(graph: GraphBuilder, _: Message, bottoms: Sequence[Blob]) -> Blob:
    """Convert ReLU6, a layer of the MobileNetV2 versions of Caffe."""
    limits = [graph.constant(np.array(limit, np.float32)) for limit in (0, 6)]
    return bottoms[0].copy(name=graph.add("Clip", [bottoms[0].name, *limits]))


def slice_blob(graph: GraphBuilder, layer: Message, bottoms: Sequence[Blob]) -> list[Blob]:
    """Convert Slice: parts along an axis, of equal sizes unless the definition has points."""
    source, parameters = bottoms[0], layer.slice_param
    axis = parameters.axis if parameters.HasField("axis") else parameters.slice_dim
    axis = range(len(source.shape))[axis]
    count, size = len(layer.top), source.shape[axis]
    points = list(parameters.slice_point) or [k * size // count for k in range(1, count)]
    edges = [0, *points, size]
    lengths = [end - begin for begin, end in pairwise(edges)]
    if len(lengths) != count or min(lengths) < 1 or (not parameters.slice_point and size % count):
        raise layer_error(layer, f"slices {size} values at {points} into {count} parts")
    sizes = graph.constant(np.array(lengths, np.int64))
    names = graph.add_split([source.name, sizes], count, axis=axis)
    return [
        source.copy(name=name, shape=(*source.shape[:axis], length, *source.shape[axis + 1 :]))
        for name, length in zip(names, lengths, strict=True)
    ]


def pooling(graph: GraphBuilder, layer: Message, bottoms: Sequence[Blob]) -> Blob:
    """Convert Pooling; Caffe rounds sizes up, which becomes padding at the end of the axes."""
    source, parameters = bottoms[0], layer.pooling_param
    method = enum_name(parameters, "pool")
    if method not in ("MAX", "AVE"):
        raise layer_error(layer, f"pools by {method}, only MAX and AVE are supported")
    kernel, stride, pad = _window(parameters)
    image = (source.shape[2], source.shape[3])
    kernel = image if parameters.global_pooling else kernel
    sizes, pad_end = zip(*map(_pooled_size, image, kernel, stride, pad), strict=True)
    average = method == "AVE"
    if average and any(end > begin for end, begin in zip(pad_end, pad, strict=True)):
        raise layer_error(layer, "averages over windows that exceed the image; not supported")
    name = graph.add(
        "AveragePool" if average else "MaxPool",
        [source.name],
        kernel_shape=kernel,
        strides=stride,
        pads=[*pad, *pad_end],
        **({"count_include_pad": 1} if average else {}),
    )
    return Blob(name, (*source.shape[:2], *sizes))


def _pooled_size(size: int, kernel: int, stride: int, pad: int) -> Pair:
    """Return the output size along one axis and the end padding that completes its windows."""
    outputs = ceil((size + 2 * pad - kernel) / stride) + 1
    if pad and (outputs - 1) * stride >= size + pad:
        outputs -= 1
    return outputs, max(0, (outputs - 1) * stride + kernel - size - pad)


def normalize(graph: GraphBuilder, layer: Message, bottoms: Sequence[Blob]) -> Blob:
    """Convert Normalize: unit length over the channels, times a learned factor."""
    source, parameters = bottoms[0], layer.norm_param
    factor_count = 1 if parameters.channel_shared else source.shape[1]
    (factors,) = graph.layer_weights(layer, (factor_count,))
    axes = np.array([1, 2, 3] if parameters.across_spatial else [1])
    squares = graph.add("Mul", [source.name, source.name])
    total = graph.add("ReduceSum", [squares, graph.constant(axes)], keepdims=1)
    eps = graph.constant(np.float32(parameters.eps).reshape(1))
    length = graph.add("Sqrt", [graph.add("Add", [total, eps])])
    unit = graph.add("Div", [source.name, length])
    factor = graph.constant(factors.reshape(1, -1, 1, 1))
    return source.copy(name=graph.add("Mul", [unit, factor]))


def permute(graph: GraphBuilder, layer: Message, bottoms: Sequence[Blob]) -> Blob:
    """Convert Permute; axes that are not listed follow the listed ones in their order."""
    source = bottoms[0]
    listed = list(layer.permute_param.order)
    order = listed + [axis for axis in range(len(source.shape)) if axis not in listed]
    name = graph.add("Transpose", [source.name], perm=order)
    return Blob(name, tuple(source.shape[axis] for axis in order))


def flatten(graph: GraphBuilder, layer: Message, bottoms: Sequence[Blob]) -> Blob:
    """Convert Flatten from axis 1 to the last."""
    source = bottoms[0]
    if layer.flatten_param.axis != 1:
        raise layer_error(layer, "flattens from another axis than 1, which is not supported")
    shape = (1, prod(source.shape[1:]))
    return source.copy(name=graph.add("Flatten", [source.name], axis=1), shape=shape)


def reshape(graph: GraphBuilder, layer: Message, bottoms: Sequence[Blob]) -> Blob:
    """Convert Reshape, where 0 keeps a size and -1 stands for the remaining elements."""
    source, new_shape = bottoms[0], list(layer.reshape_param.shape.dim)
    sizes = [source.shape[i] if size == 0 else size for i, size in enumerate(new_shape)]
    known = -prod(sizes)
    if sizes.count(-1) > 1 or (-1 in sizes and prod(source.shape) % known):
        raise layer_error(layer, f"cannot turn {source.shape} into {new_shape}")
    shape = tuple(prod(source.shape) // known if size == -1 else size for size in sizes)
    name = graph.add("Reshape", [source.name, graph.constant(np.array(new_shape, np.int64))])
    return source.copy(name=name, shape=shape)


def concat(graph: GraphBuilder, layer: Message, bottoms: Sequence[Blob]) -> Blob:
    """Convert Concat; default boxes are concatenated outside the graph."""
    if all(blob.prior_boxes for blob in bottoms):
        prior_boxes = tuple(item for blob in bottoms for item in blob.prior_boxes)
        return Blob("", (), prior_boxes=prior_boxes)
    parameters, first = layer.concat_param, bottoms[0]
    axis = parameters.axis if parameters.HasField("axis") else parameters.concat_dim
    axis = range(len(first.shape))[axis]  # a negative axis counts from the end
    total = sum(blob.shape[axis] for blob in bottoms)
    name = graph.add("Concat", [blob.name for blob in bottoms], axis=axis)
    return first.copy(name=name, shape=(*first.shape[:axis], total, *first.shape[axis + 1 :]))


def eltwise(graph: GraphBuilder, layer: Message, bottoms: Sequence[Blob]) -> Blob:
    """Convert Eltwise: sum, product or maximum of blobs of the same size."""
    parameters = layer.eltwise_param
    if parameters.coeff:
        raise layer_error(layer, "combines blobs with coefficients, which is not supported")
    op_type = {"SUM": "Sum", "PROD": "Mul", "MAX": "Max"}[enum_name(parameters, "operation")]
    return bottoms[0].copy(name=graph.add(op_type, [blob.name for blob in bottoms]))


def identity(_: GraphBuilder, __: Message, bottoms: Sequence[Blob]) -> Blob:
    """Convert layers that have no effect after training."""
    return bottoms[0]


def softmax(_: GraphBuilder, __: Message, bottoms: Sequence[Blob]) -> Blob:
    """Leave the softmax to the post-processing."""
    return bottoms[0].copy(activation="softmax")


def sigmoid(_: GraphBuilder, __: Message, bottoms: Sequence[Blob]) -> Blob:
    """Leave the sigmoid to the post-processing."""
    return bottoms[0].copy(activation="sigmoid")


def prior_box(_: GraphBuilder, layer: Message, bottoms: Sequence[Blob]) -> Blob:
    """Read the default boxes of a feature map."""
    (rows, columns), (height, width) = (blob.shape[2:4] for blob in bottoms)
    boxes = read_prior_box(layer.prior_box_param, (rows, columns), (height, width))
    return Blob("", (), prior_boxes=(boxes,))


Converter = Callable[[GraphBuilder, Message, Sequence[Blob]], Blob | list[Blob]]
CONVERTERS: dict[str, Converter] = {
    "BatchNorm": batch_norm,
    "Concat": concat,
    "Convolution": convolution,
    "ConvolutionDepthwise": convolution,
    "DepthwiseConvolution": convolution,
    "Dropout": identity,
    "Eltwise": eltwise,
    "Flatten": flatten,
    "Normalize": normalize,
    "Permute": permute,
    "Pooling": pooling,
    "PriorBox": prior_box,
    "ReLU": relu,
    "ReLU6": relu6,
    "Reshape": reshape,
    "Scale": scale,
    "Sigmoid": sigmoid,
    "Silence": identity,
    "Slice": slice_blob,
    "Softmax": softmax,
    "Split": identity,
}
