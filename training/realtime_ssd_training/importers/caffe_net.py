"""A Caffe network being written as an ONNX graph: nodes, weights and the sizes of every blob."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError
from realtime_ssd_training.importers.caffe_boxes import PriorLayer
from realtime_ssd_training.importers.caffe_text import Message
from realtime_ssd_training.importers.caffe_weights import Blobs
from realtime_ssd_training.importers.graph import Model

__all__ = ["Blob", "Layer", "Net"]

OPSET = 17


@dataclass(frozen=True, slots=True)
class Blob:
    """A tensor of the network.

    Attributes:
        name: Its name in the ONNX graph.
        shape: Its sizes for a batch of one.
        activation: "softmax" or "sigmoid" where the definition applies it but the graph does not:
            it is left to the post-processing.
        priors: PriorBox layers, for blobs that hold default boxes and are not in the graph.
    """

    name: str
    shape: tuple[int, ...]
    activation: str = "none"
    priors: tuple[PriorLayer, ...] = ()

    def copy(self, **changes: Any) -> Blob:
        """Give the blob with some attributes replaced."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the definition.

    Attributes:
        name: Its name.
        kind: Its type, such as "Convolution".
        settings: All its fields.
    """

    name: str
    kind: str
    settings: Message

    def options(self, name: str) -> Message:
        """Give its parameter block, such as "convolution_param"."""
        return self.settings.message(name)

    def refuse(self, what: str) -> ModelError:
        """Make the error for something in this layer that cannot be converted."""
        return ModelError(f"layer '{self.name}' ({self.kind}) {what}")


@dataclass(slots=True)
class Net:
    """The graph so far.

    Attributes:
        weights: Trained arrays by layer name.
        blobs: The tensors by their name in the definition; layers in place replace them.
        used: Names of the layers whose weights were taken.
        nodes: ONNX nodes.
        constants: ONNX initializers.
    """

    weights: dict[str, Blobs]
    blobs: dict[str, Blob] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node; give the name of its output."""
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(
            onnx.helper.make_node(kind, list(inputs), [output], name=output, **attributes)
        )
        return output

    def constant(self, values: NDArray[Any]) -> str:
        """Add an initializer; give its name."""
        name = f"weight_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def take(self, layer: Layer, *shapes: tuple[int, ...]) -> Blobs:
        """Take the weights of a layer, which must have exactly these shapes.

        Old files write vectors as 1 × 1 × 1 × n; sizes of one in front do not count.

        Raises:
            ModelError: If weights are missing, too many or of another shape.
        """
        blobs = self.weights.get(layer.name)
        if blobs is None:
            raise layer.refuse("has no weights in the caffemodel; give the one that belongs to it")
        have = [blob.shape for blob in blobs]
        if len(have) != len(shapes) or any(
            _bare(a) != _bare(b) for a, b in zip(have, shapes, strict=True)
        ):
            raise layer.refuse(
                f"needs weights of shapes {list(shapes)}, but the caffemodel has {have}; give the "
                "caffemodel that belongs to the definition"
            )
        self.used.add(layer.name)
        return [blob.reshape(shape) for blob, shape in zip(blobs, shapes, strict=True)]

    def model(self, inputs: Sequence[Blob], outputs: Sequence[Blob]) -> Model:
        """Finish the graph."""
        kind = onnx.TensorProto.FLOAT
        ports = [
            [onnx.helper.make_tensor_value_info(blob.name, kind, blob.shape) for blob in group]
            for group in (inputs, outputs)
        ]
        graph = onnx.helper.make_graph(self.nodes, "caffe", *ports, self.constants)
        opset = onnx.helper.make_opsetid("", OPSET)
        return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop sizes of one in front."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape
