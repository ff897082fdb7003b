"""Evaluation of the constant parts of a TensorFlow graph: default boxes, shapes and factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd_training.importers.tensorflow_file import Node, attribute, to_array

__all__ = ["FUNCTIONS", "dequantize", "strided_slice"]

Array = NDArray[Any]
Function = Callable[[Node, Sequence[Array]], Array | list[Array]]

_NUMPY_TYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64, 10: np.bool_}


def _cast(node: Node, inputs: Sequence[Array]) -> Array:
    return inputs[0].astype(_NUMPY_TYPES.get(attribute(node, "DstT", "type", 1), np.float32))


def _concat(_: Node, inputs: Sequence[Array]) -> Array:
    return np.concatenate(inputs[:-1], axis=int(inputs[-1]))


def _pack(node: Node, inputs: Sequence[Array]) -> Array:
    return np.stack(inputs, axis=int(attribute(node, "axis", "i", 0)))


def _unpack(node: Node, inputs: Sequence[Array]) -> list[Array]:
    axis = int(attribute(node, "axis", "i", 0))
    return [np.squeeze(part, axis) for part in np.split(inputs[0], inputs[0].shape[axis], axis)]


def _split(node: Node, inputs: Sequence[Array]) -> list[Array]:
    return np.split(inputs[1], int(attribute(node, "num_split", "i", 1)), int(inputs[0]))


def _slice(_: Node, inputs: Sequence[Array]) -> Array:
    source, begin, size = inputs
    return source[
        tuple(
            slice(int(start), None if count < 0 else int(start) + int(count))
            for start, count in zip(begin, size, strict=True)
        )
    ]


def strided_slice(node: Node, inputs: Sequence[Array]) -> Array:
    """Apply StridedSlice, whose masks select open ends, new axes and single indices."""
    source, begin, end, step = inputs
    masks = {
        name: int(attribute(node, f"{name}_mask", "i", 0))
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    index: list[Any] = []
    for k in range(len(begin)):
        bit = 1 << k
        if masks["ellipsis"] & bit:
            index.append(Ellipsis)
        elif masks["new_axis"] & bit:
            index.append(np.newaxis)
        elif masks["shrink_axis"] & bit:
            index.append(int(begin[k]))
        else:
            first = None if masks["begin"] & bit else int(begin[k])
            last = None if masks["end"] & bit else int(end[k])
            index.append(slice(first, last, int(step[k])))
    return np.asarray(source[tuple(index)])


def _squeeze(node: Node, inputs: Sequence[Array]) -> Array:
    axes = tuple(int(axis) for axis in node.attr["squeeze_dims"].list.i)
    return np.squeeze(inputs[0], axes or None)


def _sum(node: Node, inputs: Sequence[Array]) -> Array:
    axes = tuple(int(axis) for axis in np.ravel(inputs[1]))
    keep = bool(attribute(node, "keep_dims", "b", False))
    return np.asarray(inputs[0].sum(axis=axes, keepdims=keep, dtype=inputs[0].dtype))


def _prod(_: Node, inputs: Sequence[Array]) -> Array:
    axes = tuple(int(axis) for axis in np.ravel(inputs[1]))
    return np.asarray(np.prod(inputs[0], axis=axes, dtype=inputs[0].dtype))


def dequantize(_: Node, inputs: Sequence[Array]) -> Array:
    """Dequantize 8-bit values between a minimum and a maximum (mode MIN_FIRST)."""
    values, low, high = inputs
    step = (np.float64(high) - np.float64(low)) / 255
    if not step:
        return np.full(values.shape, low, np.float32)
    lowest = 0 if values.dtype == np.uint8 else -128
    # The minimum is rounded to whole steps, so that 0 is one of the values.
    real = np.round(np.float64(low) / step) * step + (values.astype(np.float64) - lowest) * step
    return np.asarray(real, np.float32)


def _range(_: Node, inputs: Sequence[Array]) -> Array:
    start, stop, step = (item.item() for item in inputs)
    return np.arange(start, stop, step, dtype=inputs[0].dtype)


def _elementwise(function: Callable[..., Any]) -> Function:
    def apply(_: Node, inputs: Sequence[Array]) -> Array:
        result = np.asarray(function(*inputs))
        return result if result.dtype == np.bool_ else result.astype(inputs[-1].dtype)

    return apply


def _real_div(_: Node, inputs: Sequence[Array]) -> Array:
    return np.asarray(inputs[0] / inputs[1]).astype(inputs[0].dtype)


FUNCTIONS: dict[str, Function] = {
    "Add": _elementwise(np.add),
    "AddV2": _elementwise(np.add),
    "BroadcastTo": lambda _, i: np.broadcast_to(i[0], tuple(i[1])),
    "Cast": _cast,
    "ConcatV2": _concat,
    "Const": lambda node, _: to_array(node.attr["value"].tensor),
    "Dequantize": dequantize,
    "Equal": _elementwise(np.equal),
    "Exp": _elementwise(np.exp),
    "ExpandDims": lambda _, i: np.expand_dims(i[0], int(i[1])),
    "Fill": lambda _, i: np.full(tuple(i[0]), i[1]),
    "Floor": _elementwise(np.floor),
    "FloorDiv": _elementwise(np.floor_divide),
    "FloorMod": _elementwise(np.mod),
    "GatherV2": lambda _, i: np.take(i[0], i[1], axis=int(i[2]) if len(i) > 2 else 0),
    "Greater": _elementwise(np.greater),
    "GreaterEqual": _elementwise(np.greater_equal),
    "Identity": lambda _, i: i[0],
    "Less": _elementwise(np.less),
    "LessEqual": _elementwise(np.less_equal),
    "LogicalAnd": _elementwise(np.logical_and),
    "Maximum": _elementwise(np.maximum),
    "Minimum": _elementwise(np.minimum),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Pack": _pack,
    "Pow": _elementwise(np.power),
    "Prod": _prod,
    "Range": _range,
    "Rank": lambda _, i: np.array(i[0].ndim, np.int32),
    "RealDiv": _real_div,
    "Reshape": lambda _, i: i[0].reshape(tuple(int(size) for size in i[1])),
    "Round": _elementwise(np.round),
    "Rsqrt": _elementwise(lambda x: 1 / np.sqrt(x)),
    "Select": lambda _, i: np.where(i[0], i[1], i[2]),
    "Shape": lambda _, i: np.array(i[0].shape, np.int32),
    "Size": lambda _, i: np.array(i[0].size, np.int32),
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _elementwise(np.sqrt),
    "Square": _elementwise(np.square),
    "Squeeze": _squeeze,
    "StopGradient": lambda _, i: i[0],
    "StridedSlice": strided_slice,
    "Sub": _elementwise(np.subtract),
    "Sum": _sum,
    "Tile": lambda _, i: np.tile(i[0], tuple(int(count) for count in i[1])),
    "Transpose": lambda _, i: np.transpose(i[0], tuple(int(axis) for axis in i[1])),
    "Unpack": _unpack,
    "ZerosLike": _elementwise(np.zeros_like),
}
"""Numpy equivalents of operations, by name."""
