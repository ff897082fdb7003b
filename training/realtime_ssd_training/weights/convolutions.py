"""Convolutions of trained graphs, ONNX or TFLite, with their normalization folded in.

They are what networks of different frameworks have in common: a sequence of weights and biases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from realtime_ssd_training.weights.tflite_file import TfliteFile

__all__ = ["Convolution", "HeadConvolutions", "onnx_convolutions", "tflite_convolutions"]

Floats = NDArray[np.float32]
_COPIES = ("QuantizeLinear", "DequantizeLinear", "Identity")


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """A convolution of a trained network.

    Attributes:
        weight: Outputs × inputs per group × rows × columns.
        bias: One value per output.
        groups: Number of groups.
        stride: Step along the rows.
    """

    weight: Floats
    bias: Floats
    groups: int
    stride: int

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return int(self.weight.shape[1]) * self.groups

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return int(self.weight.shape[0])

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel has its own kernel."""
        return self.groups > 1 and self.groups == self.inputs

    def scaled(self, factor: Floats, shift: Floats) -> Convolution:
        """Return the convolution followed by a factor and a shift per output."""
        weight = (self.weight * factor[:, None, None, None]).astype(np.float32)
        return replace(self, weight=weight, bias=(self.bias * factor + shift).astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class HeadConvolutions:
    """The convolutions of a detector in the order of their execution.

    Attributes:
        backbone: Those that scores and offsets both depend on.
        scores: Those of the score heads.
        offsets: Those of the offset heads.
    """

    backbone: tuple[Convolution, ...]
    scores: tuple[Convolution, ...]
    offsets: tuple[Convolution, ...]


def tflite_convolutions(file: TfliteFile) -> list[Convolution]:
    """Return the convolutions of a TFLite network, dequantized, in the order of their execution."""
    found = []
    for operator in file.operators:
        if operator.name not in ("CONV_2D", "DEPTHWISE_CONV_2D") or len(operator.inputs) < 2:
            continue
        depthwise = operator.name == "DEPTHWISE_CONV_2D"
        kernel = np.asarray(file.tensors[operator.inputs[1]].real_values(), np.float32)
        weight = kernel.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
        bias = np.zeros(len(weight), np.float32)
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            bias = np.asarray(file.tensors[operator.inputs[2]].real_values(), np.float32)
        groups = len(weight) if depthwise else 1
        found.append(Convolution(weight, bias, groups, int(operator.options["stride_h"])))
    return found


def onnx_convolutions(model: onnx.ModelProto, scores: str, offsets: str) -> HeadConvolutions:
    """Return the convolutions of a detector in ONNX.

    Args:
        model: The graph.
        scores: Name of its output of scores.
        offsets: Name of its output of offsets.
    """
    graph = _Graph(model)
    of_scores, of_offsets = (graph.convolutions_before(name) for name in (scores, offsets))
    shared = of_scores.keys() & of_offsets.keys()
    groups = (
        [node for name, node in of_scores.items() if name in shared],
        [node for name, node in of_scores.items() if name not in shared],
        [node for name, node in of_offsets.items() if name not in shared],
    )
    backbone, score_heads, offset_heads = (
        tuple(item for node in nodes if (item := graph.read(node))) for nodes in groups
    )
    return HeadConvolutions(backbone, score_heads, offset_heads)


class _Graph:
    """Nodes and constants of an ONNX graph by tensor name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.constants = {item.name: item for item in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
        self.uses = Counter(name for node in model.graph.node for name in node.input)
        self.uses.update(output.name for output in model.graph.output)
        self.consumers = {name: node for node in model.graph.node for name in node.input}

    def convolutions_before(self, output: str) -> dict[str, Any]:
        """Return the convolutions that a tensor depends on, by output, in execution order."""
        order: dict[str, Any] = {}
        for node in self._nodes_before(output):
            if node.op_type == "Conv":
                order[node.output[0]] = node
        return order

    def _nodes_before(self, output: str) -> Iterator[Any]:
        """Yield nodes after those they depend on; inputs are visited in their order."""
        visited, stack = set[str](), [(output, False)]
        while stack:
            name, is_finished = stack.pop()
            node = self.producers.get(name)
            if node is None:
                continue
            if is_finished:
                yield node
            elif name not in visited:
                visited.add(name)
                stack.append((name, True))
                stack += [(item, False) for item in reversed(node.input)]

    def read(self, node: Any) -> Convolution | None:
        """Return a convolution with everything linear that follows it; None without constants."""
        weight = self._constant(node.input[1])
        if weight is None or weight.ndim != 4:
            return None
        bias = self._constant(node.input[2]) if len(node.input) > 2 else None
        attributes = {item.name: item for item in node.attribute}
        groups = attributes["group"].i if "group" in attributes else 1
        strides = list(attributes["strides"].ints) if "strides" in attributes else [1]
        if bias is None:
            bias = np.zeros(len(weight), np.float32)
        convolution = Convolution(weight, bias, int(groups), int(strides[0]))
        return self._with_followers(convolution, node.output[0])

    def _with_followers(self, convolution: Convolution, name: str) -> Convolution:
        while self.uses[name] == 1 and name in self.consumers:
            node = self.consumers[name]
            if node.op_type not in _COPIES:
                linear = self._linear(node, name, convolution.outputs)
                if linear is None:
                    return convolution
                convolution = convolution.scaled(*linear)
            name = node.output[0]
        return convolution

    def _linear(self, node: Any, name: str, channels: int) -> tuple[Floats, Floats] | None:
        """Return factor and shift per channel of a node; None if it does something else."""
        constants = [self._constant(item) for item in node.input if item != name]
        if any(item is None or item.size != channels for item in constants):
            return None
        values = [item.reshape(-1) for item in constants if item is not None]
        ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        if node.op_type == "BatchNormalization" and len(values) == 4:
            scale, shift, mean, variance = values
            epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
            factor = np.asarray(scale / np.sqrt(variance + epsilon), np.float32)
            return factor, np.asarray(shift - mean * factor, np.float32)
        if node.op_type == "Mul" and len(values) == 1:
            return values[0], zeros
        if node.op_type == "Add" and len(values) == 1:
            return ones, values[0]
        return None

    def _constant(self, name: str) -> Floats | None:
        if name in self.constants:
            return np.array(onnx.numpy_helper.to_array(self.constants[name]), np.float32)
        node = self.producers.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        values, *steps = (self._constant(item) for item in node.input)
        if values is None or not steps or steps[0] is None:
            return None
        axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
        zero = steps[1] if len(steps) > 1 and steps[1] is not None else np.float32(0)
        shape = [1] * values.ndim
        if steps[0].size > 1:
            shape[axis] = -1
        scaled = (values - np.reshape(zero, shape)) * np.reshape(steps[0], shape)
        return np.asarray(scaled, np.float32)
