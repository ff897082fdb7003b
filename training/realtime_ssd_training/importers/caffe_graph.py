"""Builder of the ONNX graph of a Caffe network: nodes, weights and the shape of every blob."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from realtime_ssd_training.importers.caffe_anchors import PriorBox
from realtime_ssd_training.importers.caffe_definition import layer_error
from realtime_ssd_training.importers.onnx_graph import Model
from realtime_ssd_training.weights.caffe_schema import Message
from realtime_ssd_training.weights.caffe_weights import Blobs

__all__ = ["Blob", "GraphBuilder"]

OPSET = 17


@dataclass(frozen=True, slots=True)
class Blob:
    """A tensor of the network.

    Attributes:
        name: Name in the ONNX graph.
        shape: Shape for a batch of one.
        activation: "softmax" or "sigmoid" if the definition applies it here. The graph omits it
            and leaves it to the post-processing.
        prior_boxes: Default boxes, for a blob of PriorBox layers, which is not in the graph.
    """

    name: str
    shape: tuple[int, ...]
    activation: str = "none"
    prior_boxes: tuple[PriorBox, ...] = ()

    def copy(self, **changes: Any) -> Blob:
        """Return the blob with some attributes replaced."""
        return replace(self, **changes)


@dataclass(slots=True)
class GraphBuilder:
    """An ONNX graph under construction.

    Attributes:
        weights: Trained arrays by layer name.
        blobs: Tensors by name in the definition; in-place layers replace them.
        used_layers: Names of the layers whose weights are in the graph.
        nodes: ONNX nodes.
        constants: ONNX initializers.
    """

    weights: dict[str, Blobs]
    blobs: dict[str, Blob] = field(default_factory=dict)
    used_layers: set[str] = field(default_factory=set)
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def add(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        output = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(
            onnx.helper.make_node(op_type, list(inputs), [output], name=output, **attributes)
        )
        return output

    def add_split(self, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Add a Split node and return the names of its outputs."""
        names = [f"split_{len(self.nodes)}_{k}" for k in range(count)]
        self.nodes.append(onnx.helper.make_node("Split", list(inputs), names, **attributes))
        return names

    def constant(self, values: NDArray[Any]) -> str:
        """Add an initializer and return its name."""
        name = f"weight_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def bottom(self, layer: Message, name: str) -> Blob:
        """Return the input of a layer.

        Raises:
            ModelError: If no previous layer produces it.
        """
        if name not in self.blobs:
            raise layer_error(layer, f"has the input '{name}', which no previous layer produces")
        return self.blobs[name]

    def layer_weights(self, layer: Message, *shapes: tuple[int, ...]) -> Blobs:
        """Return the weights of a layer in the expected shapes, and mark the layer as used.

        Old files store vectors as 1 × 1 × 1 × n, so leading ones are ignored.

        Raises:
            ModelError: If weights are missing, superfluous or of another shape.
        """
        blobs = self.weights.get(layer.name)
        if blobs is None:
            raise layer_error(
                layer, "has no weights in the .caffemodel; use the one of this definition"
            )
        actual = [blob.shape for blob in blobs]
        if [*map(_without_leading_ones, actual)] != [*map(_without_leading_ones, shapes)]:
            raise layer_error(
                layer,
                f"expects weights of shapes {list(shapes)}, but the .caffemodel has {actual}; use "
                "the one of this definition",
            )
        self.used_layers.add(layer.name)
        return [blob.reshape(shape) for blob, shape in zip(blobs, shapes, strict=True)]

    def build(self, inputs: Sequence[Blob], outputs: Sequence[Blob]) -> Model:
        """Return the model with these inputs and outputs."""
        graph_inputs, graph_outputs = (
            [
                onnx.helper.make_tensor_value_info(blob.name, onnx.TensorProto.FLOAT, blob.shape)
                for blob in blobs
            ]
            for blobs in (inputs, outputs)
        )
        graph = onnx.helper.make_graph(
            self.nodes, "caffe", graph_inputs, graph_outputs, self.constants
        )
        opset = onnx.helper.make_opsetid("", OPSET)
        return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


def _without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape
