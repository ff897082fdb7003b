"""Shapes of all tensors of an ONNX graph, without its weights.

ONNX's shape inference does not follow every computation of a shape, such as a division or an
operator of an old version. These small integer tensors are computed here, and the inference is
repeated with their values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

__all__ = ["Shape", "SizeError", "attribute", "infer_shapes"]

Shape = tuple[int | None, ...]
"""Sizes of a tensor; None for an unknown one."""
_Array = NDArray[Any]

_SMALL = 64
"""Elements of a constant that may be a shape; larger ones are represented by their own shape."""
_ROUNDS = 4
_FLOATS = frozenset({1, 10, 11, 16})
_CASTS = {1: np.float32, 6: np.int32, 7: np.int64, 11: np.float64}
"""NumPy types of `TensorProto.DataType`."""


class SizeError(ValueError):
    """A graph that is too large; the message is a clause about it."""


def infer_shapes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """Return the shapes of the tensors of a graph whose rank can be found.

    Args:
        model: The model; weights may be in other files.
        shapes: Shape of each input.

    Raises:
        SizeError: If the graph contradicts itself, or has a division that may end the process.
    """
    skeleton = _skeleton(model, shapes)
    found, floats = _infer(skeleton)
    _check_divisions(skeleton, floats)
    for _ in range(_ROUNDS):
        if all(_is_known(found.get(name)) for node in skeleton.graph.node for name in node.output):
            break
        if not _compute_values(skeleton, found):
            break
        found, _ = _infer(skeleton)
    return found


def attribute(node: Any, name: str) -> list[int]:
    """Return the integers of an attribute of a node; empty if it has none of that name."""
    for item in node.attribute:
        if item.name == name:
            return list(item.ints) or [item.i]
    return []


def _is_known(shape: Shape | None) -> bool:
    return shape is not None and None not in shape


def _infer(skeleton: onnx.ModelProto) -> tuple[dict[str, Shape], set[str]]:
    """Return the shapes of tensors, and the names of those with floating-point values."""
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(skeleton, data_prop=True).graph
    except Exception as error:
        raise SizeError("is damaged: the shapes of its tensors contradict each other") from error
    found: dict[str, Shape] = {item.name: tuple(item.dims) for item in graph.initializer}
    floats = {item.name for item in graph.initializer if item.data_type in _FLOATS}
    for items in (graph.input, graph.value_info, graph.output):
        for item in items:
            if item.type.tensor_type.elem_type in _FLOATS:
                floats.add(item.name)
            if item.type.tensor_type.HasField("shape"):
                found[item.name] = tuple(
                    size.dim_value if size.HasField("dim_value") else None
                    for size in item.type.tensor_type.shape.dim
                )
    return found, floats


def _check_divisions(skeleton: onnx.ModelProto, floats: set[str]) -> None:
    """Check that integers are only divided by positive constants.

    The smallest integer divided by -1 ends the process (SIGFPE).
    """
    import onnx

    constants = {item.name: item for item in skeleton.graph.initializer}
    for node in skeleton.graph.node:
        if node.op_type not in ("Div", "Mod") or not floats.isdisjoint(node.input):
            continue
        divisor = constants.get(node.input[1]) if len(node.input) > 1 else None
        try:
            positive = divisor is not None and (onnx.numpy_helper.to_array(divisor) > 0).all()
        except (TypeError, ValueError):  # its values do not fit its type or shape
            positive = False
        if not positive:
            raise SizeError("divides integers by a number that may be 0 or negative")


def _skeleton(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """Copy a model without its large weights, which become inputs, and its declared shapes."""
    import onnx

    result = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = result.graph
    graph.name = "shapes"
    constants = list(model.graph.initializer)
    for node in model.graph.node:
        value = _constant(node)
        if value is None:
            graph.node.append(node)
        else:  # shape inference follows values of initializers, but not those of constants
            constants.append(value)
    for tensor in constants:
        if prod(tensor.dims) <= _SMALL and tensor.data_location != tensor.EXTERNAL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(_declared(tensor.name, tensor.data_type, tensor.dims))
    types = {item.name: item.type.tensor_type.elem_type for item in model.graph.input}
    for name, shape in shapes.items():
        graph.input.append(_declared(name, types[name], shape))
    graph.output.extend(onnx.ValueInfoProto(name=item.name) for item in model.graph.output)
    return result


def _constant(node: Any) -> Any:
    """Return the tensor of a constant, named like the node's output, or None."""
    import onnx

    if node.op_type != "Constant" or not node.output:
        return None
    for item in node.attribute:
        if item.name == "value" and item.HasField("t"):
            tensor = onnx.TensorProto()
            tensor.CopyFrom(item.t)
            tensor.name = node.output[0]
            return tensor
    return None


def _declared(name: str, kind: int, shape: Sequence[int]) -> Any:
    import onnx

    return onnx.helper.make_tensor_value_info(name, kind, list(shape))


def _compute_values(skeleton: onnx.ModelProto, shapes: Mapping[str, Shape]) -> bool:
    """Replace nodes that compute small tensors by their values; return whether there were any."""
    import onnx

    graph = skeleton.graph
    try:
        values: dict[str, _Array] = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in graph.initializer
            if tensor.data_type in _CASTS
        }
    except ValueError:
        raise SizeError("is damaged: a constant has other values than it declares") from None
    remaining, count = [], len(graph.node)
    for node in graph.node:
        value = _value(node, values, shapes)
        if value is None or len(node.output) != 1:
            remaining.append(node)
        else:
            values[node.output[0]] = value
            graph.initializer.append(onnx.numpy_helper.from_array(value, node.output[0]))
    del graph.node[:]
    graph.node.extend(remaining)
    return len(remaining) < count


def _value(node: Any, values: Mapping[str, _Array], shapes: Mapping[str, Shape]) -> _Array | None:
    """Return the output of a node with small known inputs, or None."""
    if node.op_type == "Shape" and not node.attribute:
        shape = shapes.get(node.input[0]) if node.input else None
        return np.array(shape, np.int64) if _is_known(shape) else None
    function = _FUNCTIONS.get(node.op_type)
    if function is None or any(name not in values for name in node.input if name):
        return None
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(function(node, *(values[name] for name in node.input if name)))
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None  # ONNX Runtime reports it
    return result if result.size <= _SMALL and result.dtype != object else None


def _axes(node: Any, inputs: Sequence[_Array]) -> tuple[int, ...]:
    return tuple(int(axis) for axis in (inputs[0] if inputs else attribute(node, "axes")))


def _divide(_: Any, first: _Array, second: _Array) -> _Array:
    if np.issubdtype(first.dtype, np.integer):  # rounded towards zero
        return np.trunc(first / second).astype(first.dtype)
    return np.asarray(first / second)


def _slice(node: Any, data: _Array, *inputs: _Array) -> _Array:
    """Return a part of a one-dimensional tensor."""
    starts, ends = inputs[:2] if inputs else (attribute(node, "starts"), attribute(node, "ends"))
    step = int(inputs[3][0]) if len(inputs) > 3 else 1
    if data.ndim != 1 or len(starts) != 1:
        raise ValueError
    return data[int(starts[0]) : int(ends[0]) : step]


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": lambda _, a, b: a + b,
    "Cast": lambda node, a: a.astype(_CASTS[attribute(node, "to")[0]]),
    "Ceil": lambda _, a: np.ceil(a),
    "Concat": lambda _, *parts: np.concatenate(parts),
    "Div": _divide,
    "Floor": lambda _, a: np.floor(a),
    "Gather": lambda node, a, b: a.take(b, (attribute(node, "axis") or [0])[0]),
    "Identity": lambda _, a: a,
    "Mul": lambda _, a, b: a * b,
    "Slice": _slice,
    "Squeeze": lambda node, a, *b: a.squeeze(_axes(node, b) or None),
    "Sub": lambda _, a, b: a - b,
    "Unsqueeze": lambda node, a, *b: np.expand_dims(a, _axes(node, b)),
}
