"""Conversion of TFLite operators to ONNX nodes.

QUANTIZE and DEQUANTIZE disappear, because the graph computes with real numbers. One effect of
quantization is kept: TensorFlow 1 stores no activation where the range of the output starts at 0,
since its saturation is the ReLU6; there the values are limited to that range.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from realtime_ssd_training.importers.nhwc_graph import Value, same_padding
from realtime_ssd_training.importers.tflite_graph import GraphBuilder, operator_error
from realtime_ssd_training.weights.tflite_file import Operator, Tensor

__all__ = ["CONVERTERS"]

Converter = Callable[[GraphBuilder, Operator], Value]
_NONE, _RELU, _RELU6 = 0, 1, 3
_SAME = 0
_LEVELS = 255  # steps between the smallest and the largest 8-bit value
_RELU6_LIMIT, _RELU6_TOLERANCE = 6.0, 0.01


def _activate(graph: GraphBuilder, operator: Operator, name: str) -> str:
    """Add the activation that an operator includes, and the rounding of its result if kept."""
    kind = operator.options.get("activation", _NONE)
    output = graph.tensors[operator.outputs[0]]
    upper = _upper_limit(output)
    limited = kind == _RELU6 and upper is not None and upper <= _RELU6_LIMIT
    if graph.keep_quantized and (kind == _NONE or limited):
        return graph.rounded(name, output)  # the range of the result is the activation
    name = graph.rounded(name, output)  # lets ONNX Runtime run the operator in integers
    if kind == _RELU6:
        name = _clip(graph, name)
    elif kind == _RELU:
        name = graph.add("Relu", [name])
    elif kind != _NONE:
        raise operator_error(operator, f"includes the activation {kind}, which is not supported")
    elif upper is not None:
        name = _clip(graph, name, upper)
    return graph.rounded(name, output)


def _upper_limit(tensor: Tensor) -> float | None:
    """Return the largest value of a quantized tensor whose smallest value is 0, else None."""
    if not tensor.is_8bit or tensor.zero_point[0] != (0 if tensor.dtype is np.uint8 else -128):
        return None
    upper = _LEVELS * float(tensor.scale[0])
    return _RELU6_LIMIT if abs(upper - _RELU6_LIMIT) < _RELU6_TOLERANCE else upper


def _clip(graph: GraphBuilder, name: str, upper: float = _RELU6_LIMIT) -> str:
    limits = [graph.constant(np.array(limit, np.float32)) for limit in (0, upper)]
    return graph.add("Clip", [name, *limits])


def _conv(graph: GraphBuilder, operator: Operator) -> Value:
    image = graph.value(operator, 0)
    outputs, _, _, depth = graph.weights(operator, 1, 4).shape
    groups, rest = divmod(image.shape[-1], depth)
    if rest or outputs % groups:
        raise operator_error(operator, f"has {image.shape[-1]} channels but other weights")
    return _add_conv(graph, operator, image, (0, 3, 1, 2), groups)


def _depthwise_conv(graph: GraphBuilder, operator: Operator) -> Value:
    image = graph.value(operator, 0)
    depth, _, _, outputs = graph.weights(operator, 1, 4).shape
    channels = image.shape[-1]
    if depth != 1 or outputs % channels:
        raise operator_error(operator, f"has {channels} channels but other weights")
    return _add_conv(graph, operator, image, (3, 0, 1, 2), channels)


def _add_conv(
    graph: GraphBuilder, operator: Operator, image: Value, axes: tuple[int, ...], groups: int
) -> Value:
    """Add a convolution.

    Args:
        graph: The graph.
        operator: The operator.
        image: Its input.
        axes: Axes of its weights for outputs, inputs per group, rows and columns.
        groups: Number of groups.
    """
    options = operator.options
    strides = [options["stride_h"], options["stride_w"]]
    dilations = [options["dilation_h"], options["dilation_w"]]
    if len(image.shape) != 4 or min(*strides, *dilations) < 1:
        raise operator_error(operator, "has an input or strides that do not fit")
    sizes = graph.weights(operator, 1, 4).shape
    kernel = [sizes[axes[2]], sizes[axes[3]]]
    pads = [(0, 0), (0, 0)]
    if options["padding"] == _SAME:
        lines = zip(image.shape[1:3], kernel, strides, dilations, strict=True)
        pads = [same_padding(*line) for line in lines]
    inputs = [graph.channels_first(image), graph.stored_weights(operator, 1, axes)]
    if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
        inputs.append(graph.stored_weights(operator, 2, (0,)))
    name = graph.add(
        "Conv",
        inputs,
        group=groups,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=[pads[0][0], pads[1][0], pads[0][1], pads[1][1]],
    )
    rows, columns = (
        (size + sum(pad) - (length - 1) * dilation - 1) // stride + 1
        for size, pad, length, stride, dilation in zip(
            image.shape[1:3], pads, kernel, strides, dilations, strict=True
        )
    )
    shape = (1, rows, columns, sizes[axes[0]])
    return Value(shape, _activate(graph, operator, name), channels_first=True)


def _reshape(graph: GraphBuilder, operator: Operator) -> Value:
    value = graph.value(operator, 0)
    shape = list(graph.tensors[operator.outputs[0]].shape)
    if len(operator.inputs) > 1:
        shape = [int(size) for size in graph.weights(operator, 1, 1)]
    if shape.count(-1) == 1:
        known = -int(np.prod(shape))
        shape[shape.index(-1)] = int(np.prod(value.shape)) // max(known, 1)
    if np.prod(shape) != np.prod(value.shape) or not shape or shape[0] != 1:
        raise operator_error(operator, f"makes {shape} of {list(value.shape)}")
    target = graph.constant(np.array(shape, np.int64))
    return Value(tuple(shape), graph.add("Reshape", [graph.same_order(value), target]))


def _concatenate(graph: GraphBuilder, operator: Operator) -> Value:
    values = [graph.value(operator, position) for position in range(len(operator.inputs))]
    rank = len(values[0].shape)
    axis = operator.options["axis"] % rank
    if axis == 0 or any(len(value.shape) != rank for value in values):
        raise operator_error(operator, f"joins tensors on the axis {axis}")
    shape = list(values[0].shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    first = all(value.channels_first for value in values)
    names = [graph.channels_first(v) if first else graph.same_order(v) for v in values]
    name = graph.add("Concat", names, axis=(0, 2, 3, 1)[axis] if first else axis)
    return Value(tuple(shape), _activate(graph, operator, name), first)


def _binary(op_type: str) -> Converter:
    """Return the converter of an operator of two tensors, which may be broadcast."""

    def convert(graph: GraphBuilder, operator: Operator) -> Value:
        values = [graph.value(operator, position) for position in (0, 1)]
        shape = np.broadcast_shapes(*(value.shape for value in values))
        first = any(value.channels_first for value in values)
        names = [_operand(graph, value, first, len(shape)) for value in values]
        name = graph.add(op_type, names)
        return Value(shape, _activate(graph, operator, name), first)

    return convert


def _operand(graph: GraphBuilder, value: Value, first: bool, rank: int) -> str:
    if value.constant is not None:
        padded = value.constant.reshape((1,) * (rank - value.constant.ndim) + value.constant.shape)
        value = Value(padded.shape, constant=padded.astype(np.float32))
    return graph.channels_first(value) if first else graph.same_order(value)


def _unary(op_type: str) -> Converter:
    """Return the converter of a function of each value."""

    def convert(graph: GraphBuilder, operator: Operator) -> Value:
        value = graph.value(operator, 0)
        name = graph.channels_first(value) if value.channels_first else graph.same_order(value)
        result = _clip(graph, name) if op_type == "Clip" else graph.add(op_type, [name])
        result = graph.rounded(result, graph.tensors[operator.outputs[0]])
        return Value(value.shape, result, value.channels_first)

    return convert


def _softmax(graph: GraphBuilder, operator: Operator) -> Value:
    value = graph.value(operator, 0)
    if operator.options["beta"] != 1:
        raise operator_error(operator, f"has the factor {operator.options['beta']}, not 1")
    return Value(value.shape, graph.add("Softmax", [graph.same_order(value)], axis=-1))


def _pad(graph: GraphBuilder, operator: Operator) -> Value:
    value = graph.value(operator, 0)
    pads = graph.weights(operator, 1, 2).astype(np.int64)
    if pads.shape != (len(value.shape), 2) or pads[0].any() or pads.min() < 0:
        raise operator_error(operator, f"pads {list(value.shape)} by {pads.tolist()}")
    shape = tuple(int(size + sum(pad)) for size, pad in zip(value.shape, pads, strict=True))
    first = value.channels_first
    ordered = pads[[0, 3, 1, 2]] if first else pads
    name = graph.channels_first(value) if first else graph.same_order(value)
    amounts = graph.constant(ordered.T.reshape(-1))
    return Value(shape, graph.add("Pad", [name, amounts]), first)


def _identity(graph: GraphBuilder, operator: Operator) -> Value:
    return graph.value(operator, 0)


def _pool(op_type: str) -> Converter:
    """Return the converter of a pooling, whose averages exclude the padding."""

    def convert(graph: GraphBuilder, operator: Operator) -> Value:
        image, options = graph.value(operator, 0), operator.options
        kernel = [options["filter_h"], options["filter_w"]]
        strides = [options["stride_h"], options["stride_w"]]
        if len(image.shape) != 4 or min(*kernel, *strides) < 1:
            raise operator_error(operator, "has an input or sizes that do not fit")
        pads = [(0, 0), (0, 0)]
        if options["padding"] == _SAME:
            lines = zip(image.shape[1:3], kernel, strides, strict=True)
            pads = [same_padding(*line, 1) for line in lines]
        name = graph.add(
            op_type,
            [graph.channels_first(image)],
            kernel_shape=kernel,
            strides=strides,
            pads=[pads[0][0], pads[1][0], pads[0][1], pads[1][1]],
        )
        rows, columns = (
            (size + sum(pad) - length) // stride + 1
            for size, pad, length, stride in zip(
                image.shape[1:3], pads, kernel, strides, strict=True
            )
        )
        shape = (1, rows, columns, image.shape[3])
        return Value(shape, _activate(graph, operator, name), channels_first=True)

    return convert


def _mean(graph: GraphBuilder, operator: Operator) -> Value:
    """Convert the mean over rows and columns."""
    value = graph.value(operator, 0)
    listed = graph.weights(operator, 1, 1)
    axes = sorted(int(axis) % 4 for axis in listed)
    if len(value.shape) != 4 or axes != [1, 2]:
        raise operator_error(operator, f"averages the axes {axes}, not rows and columns")
    name = graph.add("ReduceMean", [graph.channels_first(value)], axes=[2, 3], keepdims=1)
    name = graph.rounded(name, graph.tensors[operator.outputs[0]])
    mean = Value((1, 1, 1, value.shape[3]), name, channels_first=True)
    if operator.options["keep_dims"]:
        return mean
    shape = (1, value.shape[3])
    target = graph.constant(np.array(shape, np.int64))
    return Value(shape, graph.add("Reshape", [graph.same_order(mean), target]))


def _resize(mode: str) -> Converter:
    """Return the converter of a resize to a constant size."""

    def convert(graph: GraphBuilder, operator: Operator) -> Value:
        value, size = graph.value(operator, 0), graph.value(operator, 1).constant
        if size is None or len(value.shape) != 4:
            raise operator_error(operator, "has a size that is not constant")
        rows, columns = (int(item) for item in np.ravel(size))
        aligned, half = (operator.options[k] for k in ("align_corners", "half_pixel_centers"))
        empty = graph.constant(np.zeros(0, np.float32))
        sizes = graph.constant(np.array([1, value.shape[3], rows, columns], np.int64))
        name = graph.add(
            "Resize",
            [graph.channels_first(value), empty, empty, sizes],
            mode=mode,
            coordinate_transformation_mode=(
                "align_corners" if aligned else "half_pixel" if half else "asymmetric"
            ),
            nearest_mode="round_prefer_ceil" if aligned or half else "floor",
        )
        name = graph.rounded(name, graph.tensors[operator.outputs[0]])
        return Value((1, rows, columns, value.shape[3]), name, channels_first=True)

    return convert


def _hard_swish(graph: GraphBuilder, operator: Operator) -> Value:
    """Convert the hard swish, whose ONNX operator TensorRT 8 does not have."""
    value = graph.value(operator, 0)
    name = graph.channels_first(value) if value.channels_first else graph.same_order(value)
    gate = graph.add("HardSigmoid", [name], alpha=1 / 6, beta=0.5)
    result = graph.rounded(graph.add("Mul", [name, gate]), graph.tensors[operator.outputs[0]])
    return Value(value.shape, result, value.channels_first)


CONVERTERS: dict[str, Converter] = {
    "ADD": _binary("Add"),
    "AVERAGE_POOL_2D": _pool("AveragePool"),
    "CONCATENATION": _concatenate,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise_conv,
    "DEQUANTIZE": _identity,
    "HARD_SWISH": _hard_swish,
    "LOGISTIC": _unary("Sigmoid"),
    "MAX_POOL_2D": _pool("MaxPool"),
    "MEAN": _mean,
    "MUL": _binary("Mul"),
    "PAD": _pad,
    "QUANTIZE": _identity,
    "RELU": _unary("Relu"),
    "RELU6": _unary("Clip"),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize("linear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest"),
    "SOFTMAX": _softmax,
    "SQUEEZE": _reshape,
    "SUB": _binary("Sub"),
}
"""Converters by operator."""
