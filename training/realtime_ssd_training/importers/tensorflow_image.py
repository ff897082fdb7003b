"""Input of a TensorFlow detector: where the resized image enters, its size and its scaling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import InputSpec
from realtime_ssd_training.importers.tensorflow_constants import FUNCTIONS
from realtime_ssd_training.importers.tensorflow_file import Graph, Node, data_inputs
from realtime_ssd_training.importers.tensorflow_graph import GraphConverter

__all__ = ["ImageInput", "find_image"]

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_SCALING = ("Mul", "Sub", "Add", "AddV2", "RealDiv", "Cast", "Identity")
_UNSCALED = ("Pad", "SpaceToBatchND", "FusedBatchNorm", "FusedBatchNormV3", "BiasAdd")
_RESIZERS = ("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea")


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The input of the network.

    Attributes:
        node: Name of the node whose output the network receives.
        spec: Size and scaling of the image for that output.
        is_scaled: Whether the graph scales the image itself, as all but TFLite graphs do.
    """

    node: str
    spec: InputSpec
    is_scaled: bool


def find_image(graph: Graph, output: str, converter: GraphConverter) -> ImageInput:
    """Find where the image enters the network.

    Args:
        graph: The graph.
        output: A node that depends on the whole network, such as the scores.
        converter: Evaluates constants.

    Raises:
        ModelError: If there is no such place, or its size is not fixed.
    """
    path = _path_to_image(graph, output)
    position = 0
    while position < len(path) - 1 and path[position + 1].op in _SCALING:
        position += 1
    shift, total = (
        _apply(path[1 : position + 1], np.full((1, 1, 1, 3), value), converter)
        for value in (0.0, 1.0)
    )
    scale = np.broadcast_to(total - shift, (3,))
    if not np.isfinite(scale).all() or not scale.all():
        raise ModelError("the TensorFlow graph does not scale its image by constant factors")
    height, width = _size(graph, path[0], converter)
    mean = -np.broadcast_to(shift, (3,)) / scale
    spec = InputSpec(
        width,
        height,
        "RGB",
        (float(mean[0]), float(mean[1]), float(mean[2])),
        (float(scale[0]), float(scale[1]), float(scale[2])),
    )
    return ImageInput(path[position].name, spec, position > 0)


def _path_to_image(graph: Graph, output: str) -> list[Node]:
    """Return the nodes from the image to the input of the first convolution."""
    nodes = graph.ancestors([output])
    first = next((node for node in nodes if node.op in _CONVOLUTIONS), None)
    if first is None:
        raise ModelError("the TensorFlow graph has no convolutions; use the graph of an SSD")
    path = [graph.node(data_inputs(first)[0])]
    while path[0].op in (*_SCALING, *_UNSCALED):
        varying = [item for item in data_inputs(path[0]) if not _is_constant(graph, item)]
        if len(varying) != 1:
            break
        path.insert(0, graph.node(varying[0]))
    return path


def _is_constant(graph: Graph, reference: str) -> bool:
    return all(node.op in FUNCTIONS for node in graph.ancestors([reference]))


def _apply(
    nodes: list[Node], value: NDArray[np.float64], converter: GraphConverter
) -> NDArray[np.float64]:
    """Apply scaling nodes to an image."""
    previous = ""
    for node in nodes:
        inputs = []
        for item in data_inputs(node):
            is_image = item.partition(":")[0] == previous or not _is_constant(converter.graph, item)
            constant = value if is_image else converter.constant_of(item).astype(np.float64)
            inputs.append(constant)
        if node.op not in ("Cast", "Identity"):
            value = np.asarray(FUNCTIONS[node.op](node, inputs), np.float64)
        previous = node.name
    return value.reshape(-1)


def _size(graph: Graph, image: Node, converter: GraphConverter) -> tuple[int, int]:
    """Return rows and columns: of a placeholder, or the constant size of a resize operation."""
    sizes = [item.size for item in image.attr["shape"].shape.dim]
    if image.op == "Placeholder" and len(sizes) == 4 and min(sizes[1:3]) > 0:
        return int(sizes[1]), int(sizes[2])
    found = set()
    for node in graph.ancestors([image.name]):
        if node.op in _RESIZERS and _is_constant(graph, data_inputs(node)[1]):
            rows, columns = converter.constant_of(data_inputs(node)[1])
            found.add((int(rows), int(columns)))
    if len(found) != 1:
        raise ModelError(
            "the TensorFlow graph does not resize images to one fixed size; export it with "
            "fixed_shape_resizer"
        )
    return found.pop()
