"""Extraction of the network from an ONNX graph that also resizes images and suppresses boxes.

Such graphs come from tf2onnx and from end-to-end exporters. The extracted graph has an image
N × 3 × H × W as its input, and scores and decoded boxes as its outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import InputSpec
from realtime_ssd_training.importers import onnx_graph
from realtime_ssd_training.importers.onnx_graph import Model

__all__ = ["Network", "extract_network", "has_pipeline"]

_PIPELINE = ("NonMaxSuppression", "Loop", "Scan", "If", "TopK")
_SCALING = ("Mul", "Sub", "Add", "Div", "Cast", "Identity", "Transpose", "Unsqueeze", "Squeeze")
_FINAL = ("Softmax", "Sigmoid")
_MOVES = ("Reshape", "Transpose", "Concat", "Squeeze", "Unsqueeze", "Slice", "Identity", "Split")
_IMAGE = "image"
_SIZES = (300, 320, 512, 640, 384, 416, 448, 224, 256, 800, 1024)


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """The network of a larger graph.

    Attributes:
        model: Graph from an image N × 3 × H × W to scores and boxes.
        mean: What was subtracted from the pixels of each channel.
        scale: Factor of each channel after the subtraction.
        is_scaled: Whether the larger graph scales the image itself.
    """

    model: Model
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    is_scaled: bool

    def input_spec(self, width: int, height: int) -> InputSpec:
        """Return the pre-processing that the larger graph does itself."""
        red, green, blue = self.mean
        factors = self.scale
        return InputSpec(
            width, height, "RGB", (red, green, blue), (factors[0], factors[1], factors[2])
        )


def has_pipeline(model: Model) -> bool:
    """Return whether a graph contains non-maximum suppression or loops."""
    return any(node.op_type in _PIPELINE for node in model.graph.node)


def extract_network(model: Model, path: Path) -> Network:
    """Extract the network of a graph.

    Args:
        model: The larger graph, which is not run.
        path: Its file, for messages.

    Raises:
        ModelError: If its parts cannot be recognized.
    """
    stem, chain = _find_image(model, path)
    shift, total = (_scaled(model, path, chain, stem, value) for value in (0.0, 1.0))
    factor = total - shift
    scores, boxes = _find_outputs(model, path)
    for height, width in _candidate_sizes(model, chain):
        part = onnx_graph.extract(
            model, {stem: (1, 3, height, width)}, {scores: (1, 1, 1), boxes: (1, 1, 4)}
        )
        if len(onnx_graph.inputs(part)) != 1:
            continue
        onnx_graph.check(part, path)
        if _runs(part, (scores, boxes)):
            onnx_graph.rename(part, stem, _IMAGE)
            break
    else:
        raise ModelError(
            f"the size of the images of '{path}' is not fixed; export the model with images of "
            "one size"
        )
    if not factor.all():
        raise ModelError(f"'{path}' does not scale its images by constant factors")
    mean, scale = -shift / factor, factor
    return Network(part, tuple(mean.tolist()), tuple(scale.tolist()), len(chain) > 1)


def _find_image(model: Model, path: Path) -> tuple[str, list[str]]:
    """Return the input of the first convolution, and the tensors from the image to it."""
    producers = onnx_graph.producers(model)
    first = next((node for node in model.graph.node if node.op_type == "Conv"), None)
    if first is None:
        raise ModelError(f"'{path}' has no convolutions; use the graph of an SSD")
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    for node in convolutions:
        before = set(_ancestors(producers, node.input[0]))
        if not any(item.op_type == "Conv" for item in map(producers.get, before) if item):
            first = node
            break
    constants = _constants(model)
    chain = [first.input[0]]
    while (node := producers.get(chain[0])) is not None and node.op_type in _SCALING:
        varying = [name for name in node.input if name not in constants]
        if len(varying) != 1:
            break
        chain.insert(0, varying[0])
    return first.input[0], chain


def _ancestors(producers: dict[str, Any], name: str) -> Iterator[str]:
    """Yield the tensors that a tensor depends on, itself included."""
    visited, stack = set[str](), [name]
    while stack:
        item = stack.pop()
        if item in visited:
            continue
        visited.add(item)
        yield item
        if item in producers:
            stack += producers[item].input


def _constants(model: Model) -> dict[str, Any]:
    constants = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = node.attribute[0].t
    return constants


def _scaled(
    model: Model, path: Path, chain: list[str], stem: str, value: float
) -> NDArray[np.float64]:
    """Return what the scaling makes of a value in each channel."""
    if len(chain) == 1:
        return np.full(3, value)
    producers = onnx_graph.producers(model)
    is_last = not any(
        producers[name].op_type == "Transpose" for name in chain[1:]
    ) and not _is_nhwc(model, chain[0])
    shape = (1, 3, 2, 2) if is_last else (1, 2, 2, 3)
    part = onnx_graph.extract(model, {chain[0]: shape}, {stem: (1, 3, 2, 2)})
    onnx_graph.check(part, path)
    result = onnx_graph.run(part, {chain[0]: np.full(shape, value, np.float32)})[0]
    return np.asarray(result.reshape(3, -1)[:, 0], np.float64)


def _is_nhwc(model: Model, name: str) -> bool:
    for item in model.graph.input:
        if item.name == name:
            sizes = item.type.tensor_type.shape.dim
            return len(sizes) == 4 and sizes[3].dim_value == 3
    return False


def _find_outputs(model: Model, path: Path) -> tuple[str, str]:
    """Return the tensors of scores and of decoded boxes, after the last convolutions."""
    producers = onnx_graph.producers(model)
    before_convolutions = {
        name
        for node in model.graph.node
        if node.op_type == "Conv"
        for name in _ancestors(producers, node.input[0])
    }
    end = [node for node in model.graph.node if node.output[0] not in before_convolutions]
    scores = [node.output[0] for node in end if node.op_type in _FINAL]
    exponentials = [node.output[0] for node in end if node.op_type == "Exp"]
    if len(scores) != 1 or not exponentials:
        raise ModelError(
            f"'{path}' contains non-maximum suppression but not one softmax or sigmoid of scores "
            "and a decoding of boxes before it; export its raw heads"
        )
    return scores[0], _last_boxes(model, exponentials)


def _last_boxes(model: Model, exponentials: list[str]) -> str:
    """Follow the sizes of boxes to the tensor of whole boxes, before any selection."""
    current = set(exponentials)
    boxes = exponentials[0]
    joined = False
    for node in model.graph.node:
        if not current.intersection(node.input) or node.output[0] in current:
            continue
        if joined and node.op_type not in _MOVES:
            break
        if node.op_type in (*_MOVES, "Mul", "Add", "Sub", "Div", "Clip", "Min", "Max"):
            current.update(node.output)
            if node.op_type in ("Concat", "Reshape", "Transpose", "ScatterND") and (
                joined or node.op_type == "Concat"
            ):
                joined = True
                boxes = node.output[0]
    return boxes


def _candidate_sizes(model: Model, chain: list[str]) -> Iterator[tuple[int, int]]:
    """Yield possible sizes: of the input, of resize operations, then frequent ones."""
    for item in model.graph.input:
        if item.name == chain[0]:
            sizes = [size.dim_value for size in item.type.tensor_type.shape.dim]
            if len(sizes) == 4 and min(sizes[2:]) > 3 and sizes[1] == 3:
                yield sizes[2], sizes[3]
                return
            if len(sizes) == 4 and sizes[3] == 3 and min(sizes[1:3]) > 3:
                yield sizes[1], sizes[2]
                return
    found = {pair for graph in _graphs(model.graph) for pair in _resized(model, graph)}
    yield from sorted(found)
    if not found:
        yield from ((size, size) for size in _SIZES)


def _graphs(graph: Any) -> Iterator[Any]:
    """Yield a graph and the graphs of its loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _resized(model: Model, graph: Any) -> Iterator[tuple[int, int]]:
    """Yield the constant sizes of resize operations in front of the network."""
    constants = {item.name: item for item in (*model.graph.initializer, *graph.initializer)}
    constants |= {
        node.output[0]: node.attribute[0].t
        for node in (*model.graph.node, *graph.node)
        if node.op_type == "Constant"
    }
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type != "Resize" or len(node.input) < 4:
            continue
        for name in _ancestors(producers, node.input[3]):
            if name in constants:
                values = onnx.numpy_helper.to_array(constants[name]).reshape(-1)
                if len(values) in (2, 4) and values.dtype.kind == "i" and values[-2:].min() > 3:
                    yield int(values[-2]), int(values[-1])


def _runs(part: Model, names: tuple[str, str]) -> bool:
    """Return whether scores and boxes of an extracted network have the same number of rows."""
    try:
        shapes = onnx_graph.measure_shapes(part, names)
    except ModelError:
        return False
    scores, boxes = (shapes[name] for name in names)
    return scores[:-1] == boxes[:-1] or int(np.prod(boxes)) == 4 * int(np.prod(scores[:-1]))
