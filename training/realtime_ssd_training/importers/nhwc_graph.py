"""Builder of the ONNX graph of a network that stores images as N × H × W × C.

Images are N × C × H × W in ONNX; they are transposed only where values are reshaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from realtime_ssd_training.importers.onnx_graph import Model

__all__ = ["NhwcBuilder", "Value", "same_padding"]

OPSET = 17


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor of the network.

    Attributes:
        shape: Shape in the order of the file, for a batch of one.
        name: Name in the ONNX graph; empty for a constant.
        channels_first: Whether the ONNX tensor is N × C × H × W instead of N × H × W × C.
        constant: Values of a constant in the order of the file, dequantized.
    """

    shape: tuple[int, ...]
    name: str = ""
    channels_first: bool = False
    constant: NDArray[Any] | None = None


@dataclass(slots=True, kw_only=True)
class NhwcBuilder:
    """An ONNX graph under construction.

    Attributes:
        nodes: ONNX nodes.
        constants: ONNX initializers.
    """

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

    def channels_first(self, value: Value) -> str:
        """Return the ONNX tensor of an N × H × W × C value as N × C × H × W."""
        if value.constant is not None:
            return self.constant(value.constant.transpose(0, 3, 1, 2))
        if value.channels_first:
            return value.name
        return self.add("Transpose", [value.name], perm=[0, 3, 1, 2])

    def same_order(self, value: Value) -> str:
        """Return the ONNX tensor of a value in the order of the file."""
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
        graph = onnx.helper.make_graph(self.nodes, "network", inputs, results, self.constants)
        opset = onnx.helper.make_opsetid("", OPSET)
        return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the padding before and after one axis, as TensorFlow's "SAME" computes it.

    The output has ceil(size / stride) values; an odd padding has its larger part at the end.
    """
    count = -(-size // stride)
    total = max((count - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
