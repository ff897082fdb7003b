"""Builder of the ONNX graph of a TFLite network: images as N × C × H × W, weights in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError
from realtime_ssd_training.importers.nhwc_graph import NhwcBuilder, Value
from realtime_ssd_training.weights.tflite_file import Operator, Tensor

__all__ = ["GraphBuilder", "operator_error"]

_SIGN_BIT = 128


@dataclass(slots=True)
class GraphBuilder(NhwcBuilder):
    """The ONNX graph of a TFLite network under construction.

    Attributes:
        tensors: Tensors of the file.
        keep_quantized: Whether 8-bit weights stay integers, and 8-bit results of operators with
            weights are rounded as in the file.
        values: Tensors that are computed so far, by index in the file.
    """

    tensors: list[Tensor]
    keep_quantized: bool = False
    values: dict[int, Value] = field(default_factory=dict)

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


def operator_error(operator: Operator, problem: str) -> ModelError:
    """Return an error about an operator."""
    return ModelError(f"a {operator.name} of the TFLite model {problem}; it may be damaged")
