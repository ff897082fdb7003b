"""Builder of the ONNX graph of a TFLite network: images as N × C × H × W, weights in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError
from realtime_ssd_training.importers.onnx_graph import Model
from realtime_ssd_training.weights.tflite_file import Operator, Tensor

__all__ = ["GraphBuilder", "Value", "operator_error"]

OPSET = 17
_SIGN_BIT = 128


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor of the network.

    Attributes:
        shape: Shape in TFLite's order, for a batch of one.
        name: Name in the ONNX graph; empty for a constant.
        channels_first: Whether the ONNX tensor is N × C × H × W instead of N × H × W × C.
        constant: Values of a constant in TFLite's order, dequantized.
    """

    shape: tuple[int, ...]
    name: str = ""
    channels_first: bool = False
    constant: NDArray[Any] | None = None


@dataclass(slots=True)
class GraphBuilder:
    """An ONNX graph under construction.

    Attributes:
        tensors: Tensors of the file.
        keep_quantized: Whether 8-bit weights stay integers, and 8-bit results of operators with
            weights are rounded as in the file.
        values: Tensors that are computed so far, by index in the file.
        nodes: ONNX nodes.
        constants: ONNX initializers.
    """

    tensors: list[Tensor]
    keep_quantized: bool = False
    values: dict[int, Value] = field(default_factory=dict)
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def add(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        output = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(
            onnx.helper.make_node(op_type, list(inputs), [output], name=output, **attributes)
        )
        return output

    def constant(self, values: NDArray[Any]) -> str:
        """Add an initializer and return its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def value(self, operator: Operator, position: int) -> Value:
        """Return an input of an operator.

        Raises:
            ModelError: If the operator does not have it or nothing computes it.
        """
        index = operator.inputs[position] if position < len(operator.inputs) else -1
        if index in self.values:
            return self.values[index]
        if not 0 <= index < len(self.tensors):
            raise operator_error(operator, f"has no input {position}")
        tensor = self.tensors[index]
        if tensor.values is None:
            raise operator_error(operator, f"has the input '{tensor.name}', which is not computed")
        constant = tensor.real_values()
        return Value(constant.shape, constant=constant)

    def weights(self, operator: Operator, position: int, ndim: int) -> NDArray[Any]:
        """Return a constant input of an operator.

        Raises:
            ModelError: If it is not constant or has another number of axes.
        """
        constant = self.value(operator, position).constant
        if constant is None or constant.ndim != ndim:
            raise operator_error(operator, f"has an input {position} that is not constant")
        return constant

    def stored_weights(self, operator: Operator, position: int, axes: Sequence[int]) -> str:
        """Return the ONNX tensor of constant weights with reordered axes.

        Args:
            operator: The operator.
            position: Which of its inputs.
            axes: Axes of the file in the order of the ONNX tensor.
        """
        values = self.weights(operator, position, len(axes))
        tensor = self.tensors[operator.inputs[position]]
        if not self.keep_quantized or tensor.values is None or not len(tensor.scale):
            return self.constant(values.transpose(axes))
        axis = tuple(axes).index(tensor.axis) if len(tensor.scale) > 1 else 0
        scale, zero_point, stored = tensor.scale, tensor.zero_point, tensor.values
        if tensor.dtype is np.uint8:  # the same steps as int8, which runs faster
            stored, zero_point = (stored ^ _SIGN_BIT).view(np.int8), zero_point - _SIGN_BIT
        return self.add(
            "DequantizeLinear",
            [self.constant(stored.transpose(axes)), *self._steps(scale, zero_point, stored.dtype)],
            axis=axis,
        )

    def _steps(self, scale: NDArray[Any], zero_point: NDArray[Any], dtype: Any) -> list[str]:
        """Add scale and zero point of a quantized tensor."""
        shape = () if len(scale) == 1 else (len(scale),)
        values = (scale.astype(np.float32), zero_point.astype(dtype))
        return [self.constant(item.reshape(shape)) for item in values]

    def rounded(self, name: str, tensor: Tensor) -> str:
        """Return an ONNX tensor rounded to the steps of a quantized tensor, if they are kept."""
        if not self.keep_quantized or not tensor.is_8bit:
            return name
        steps = self._steps(tensor.scale, tensor.zero_point, tensor.dtype)
        return self.add("DequantizeLinear", [self.add("QuantizeLinear", [name, *steps]), *steps])

    def channels_first(self, value: Value) -> str:
        """Return the ONNX tensor of an N × H × W × C value as N × C × H × W."""
        if value.constant is not None:
            return self.constant(value.constant.transpose(0, 3, 1, 2))
        if value.channels_first:
            return value.name
        return self.add("Transpose", [value.name], perm=[0, 3, 1, 2])

    def same_order(self, value: Value) -> str:
        """Return the ONNX tensor of a value in TFLite's order."""
        if value.constant is not None:
            return self.constant(value.constant)
        if not value.channels_first:
            return value.name
        return self.add("Transpose", [value.name], perm=[0, 2, 3, 1])

    def build(self, image: Value, outputs: Sequence[Value]) -> Model:
        """Return the model from an image (N × H × W × C) to some outputs."""
        rows, columns, channels = image.shape[1:]
        shapes = [(image.name, (1, channels, rows, columns))]
        inputs, results = (
            [
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
                for name, shape in items
            ]
            for items in (shapes, [(value.name, value.shape) for value in outputs])
        )
        graph = onnx.helper.make_graph(self.nodes, "tflite", inputs, results, self.constants)
        opset = onnx.helper.make_opsetid("", OPSET)
        return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


def operator_error(operator: Operator, problem: str) -> ModelError:
    """Return an error about an operator."""
    return ModelError(f"a {operator.name} of the TFLite model {problem}; it may be damaged")
