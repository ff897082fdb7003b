"""Conversion of a part of a TensorFlow graph: constants are evaluated, the rest becomes ONNX."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError
from realtime_ssd_training.importers.nhwc_graph import NhwcBuilder, Value
from realtime_ssd_training.importers.tensorflow_constants import FUNCTIONS
from realtime_ssd_training.importers.tensorflow_file import Graph, Node, data_inputs

__all__ = ["Converter", "GraphConverter", "node_error"]

EVALUATION_ERRORS = (IndexError, KeyError, ValueError, TypeError, ZeroDivisionError, OverflowError)
"""What operations with wrong inputs raise."""


@dataclass(slots=True)
class GraphConverter(NhwcBuilder):
    """An ONNX graph that is converted from a TensorFlow graph.

    Attributes:
        graph: The TensorFlow graph.
        converters: Functions from a node and its inputs to its output in ONNX, by operation.
        values: Outputs that are computed so far, by node name.
        dilations: Block size and padding of a SpaceToBatchND, by the node's name.
        convolutions: Position of weight and bias among the constants, by ONNX tensor.
        uses: How often each node is an input, by name.
    """

    graph: Graph
    converters: dict[str, Converter]
    values: dict[str, list[Value]] = field(default_factory=dict)
    dilations: dict[str, tuple[int, NDArray[Any]]] = field(default_factory=dict)
    convolutions: dict[str, tuple[int, int]] = field(default_factory=dict)
    uses: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.uses = Counter(
            item.partition(":")[0]
            for node in self.graph.nodes.values()
            for item in data_inputs(node)
        )

    def convert(self, reference: str) -> Value:
        """Return an output of a node, with everything that it depends on.

        Raises:
            ModelError: If it depends on an operation that cannot be converted.
        """
        for node in self.graph.ancestors([reference], stop=self.values):
            if node.name not in self.values:
                self.values[node.name] = self._convert_node(node)
        return self.value(reference)

    def value(self, reference: str) -> Value:
        """Return an output that is computed already."""
        name, _, number = reference.partition(":")
        return self.values[name][int(number or 0)]

    def constant_of(self, reference: str) -> NDArray[Any]:
        """Return an output that does not depend on the image.

        Raises:
            ModelError: If it does.
        """
        constant = self.convert(reference).constant
        if constant is None:
            raise ModelError(f"'{reference}' of the TensorFlow graph is not constant")
        return constant

    def _convert_node(self, node: Node) -> list[Value]:
        inputs = [self.value(item) for item in data_inputs(node)]
        try:
            results = self._evaluate(node, inputs)
            if results is not None:
                return results
            if node.op in self.converters:
                return [self.converters[node.op](self, node, inputs)]
        except EVALUATION_ERRORS as error:
            raise node_error(node, "has inputs or attributes that do not fit") from error
        raise node_error(node, f"is of the type {node.op}, which cannot be imported")

    def _evaluate(self, node: Node, inputs: Sequence[Value]) -> list[Value] | None:
        """Return the values of a node with constant inputs; None if it has others."""
        if node.op in ("Shape", "Rank", "Size") and inputs[0].constant is None:
            inputs = [Value(inputs[0].shape, constant=np.empty(inputs[0].shape, np.uint8))]
        constants = [item.constant for item in inputs if item.constant is not None]
        if node.op not in FUNCTIONS or len(constants) < len(inputs):
            return None
        result = FUNCTIONS[node.op](node, constants)
        results = result if isinstance(result, list) else [result]
        return [Value(np.shape(item), constant=np.asarray(item)) for item in results]

    def add_convolution(
        self, weight: NDArray[np.float32], inputs: Sequence[str], **attributes: Any
    ) -> str:
        """Add a convolution with a bias of zeros, which `scale` can change.

        Args:
            weight: Outputs × inputs per group × rows × columns.
            inputs: The image.
            attributes: Attributes of the ONNX node.
        """
        position = len(self.constants)
        names = [self.constant(np.asarray(weight, np.float32))]
        names.append(self.constant(np.zeros(len(weight), np.float32)))
        output = self.add("Conv", [*inputs, *names], **attributes)
        self.convolutions[output] = (position, position + 1)
        return output

    def scale(self, value: Value, factor: NDArray[Any], shift: NDArray[Any], source: str) -> Value:
        """Return a value times a factor plus a shift per channel, folded into its convolution.

        Args:
            value: N × H × W × C.
            factor: C values.
            shift: C values.
            source: Name of the node that computes the value, which is not folded if others use it.
        """
        if value.name in self.convolutions and self.uses[source] == 1:
            weight, bias = (
                onnx.numpy_helper.to_array(self.constants[index])
                for index in self.convolutions[value.name]
            )
            for index, array in zip(
                self.convolutions[value.name],
                (weight * factor[:, None, None, None], bias * factor + shift),
                strict=True,
            ):
                name = self.constants[index].name
                self.constants[index] = onnx.numpy_helper.from_array(
                    np.asarray(array, np.float32), name
                )
            return value
        name = self.channels_first(value)
        for op_type, values in (("Mul", factor), ("Add", shift)):
            if np.any(values != (1 if op_type == "Mul" else 0)):
                operand = np.asarray(values, np.float32).reshape(1, -1, 1, 1)
                name = self.add(op_type, [name, self.constant(operand)])
        return Value(value.shape, name, channels_first=True)


Converter = Callable[[GraphConverter, Node, Sequence[Value]], Value]


def node_error(node: Node, problem: str) -> ModelError:
    """Return an error about a node."""
    return ModelError(f"the node '{node.name}' of the TensorFlow graph {problem}")
