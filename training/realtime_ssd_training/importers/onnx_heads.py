"""Detection of the score and offset outputs of a single-shot detector by their shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from realtime_ssd.core.errors import ModelError
from realtime_ssd_training.importers import onnx_graph
from realtime_ssd_training.importers.onnx_graph import Model, TensorInfo

__all__ = ["Heads", "describe_interface", "find_heads"]

OFFSET_WORDS = ("box", "loc", "offset", "reg", "encod")
COPIES = ("Identity", "Reshape", "Transpose", "Cast", "Squeeze", "Unsqueeze")
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Heads:
    """Input and outputs of a single-shot detector.

    Attributes:
        image: The input, 1 × 3 × H × W.
        scores: Name of the output 1 × P × C.
        offsets: Name of the output 1 × P × 4.
        num_boxes: P, the number of default boxes.
        num_classes: C, the number of score columns.
        has_activation: Whether the graph converts scores to probabilities itself.
    """

    image: TensorInfo
    scores: str
    offsets: str
    num_boxes: int
    num_classes: int
    has_activation: bool

    @property
    def height(self) -> int:
        """Rows of the input."""
        return self.image.shape[2] or 0

    @property
    def width(self) -> int:
        """Columns of the input."""
        return self.image.shape[3] or 0


def find_heads(model: Model, path: Path) -> Heads:
    """Find input, scores and offsets of a graph.

    Args:
        model: The graph.
        path: Its file, for messages.

    Raises:
        ModelError: If there is not exactly one image input and one pair of heads.
    """
    inputs = onnx_graph.inputs(model)
    if len(inputs) != 1 or not _is_image(inputs[0]):
        raise ModelError(
            f"{describe_interface(model, path)}; export it with one input 1×3×H×W of fixed size"
        )
    values = onnx_graph.run(model, {inputs[0].name: onnx_graph.zeros(inputs[0])})
    names = [output.name for output in onnx_graph.outputs(model)]
    shapes = {name: value.shape for name, value in zip(names, values, strict=True)}
    pairs = [
        (scores, offsets)
        for scores in shapes
        for offsets in shapes
        if scores != offsets and _are_heads(scores, offsets, shapes)
    ]
    if len(pairs) != 1:
        actual = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in shapes.items())
        raise ModelError(
            f"'{path}' has the outputs {actual}; an SSD has one output of scores 1×P×C and one of "
            "offsets 1×P×4: export its heads without non-maximum suppression"
        )
    scores, offsets = pairs[0]
    _, num_boxes, num_classes = shapes[scores]
    has_activation = _ends_in_activation(model, scores)
    return Heads(inputs[0], scores, offsets, num_boxes, num_classes, has_activation)


def _is_image(tensor: TensorInfo) -> bool:
    shape = tensor.shape
    return len(shape) == 4 and shape[0] in (1, None) and shape[1] == 3 and None not in shape[2:]


def _are_heads(scores: str, offsets: str, shapes: dict[str, Shape]) -> bool:
    """Return whether two outputs are scores and offsets; if both are P × 4, by their names."""
    first, second = shapes[scores], shapes[offsets]
    if len(first) != 3 or first[:2] != second[:2] or second[2:] != (4,):
        return False
    if first != second:
        return True
    named = [any(word in name.lower() for word in OFFSET_WORDS) for name in (scores, offsets)]
    return named == [False, True]


def _ends_in_activation(model: Model, output: str) -> bool:
    """Return whether an output is a softmax or sigmoid, ignoring nodes that only move values."""
    nodes = onnx_graph.producers(model)
    node = nodes.get(output)
    while node is not None and node.op_type in COPIES:
        node = nodes.get(node.input[0])
    return node is not None and node.op_type in ("Softmax", "Sigmoid")


def describe_interface(model: Model, path: Path) -> str:
    """Describe the inputs and outputs of a graph, as the beginning of a message."""
    inputs = ", ".join(map(str, onnx_graph.inputs(model))) or "none"
    outputs = ", ".join(map(str, onnx_graph.outputs(model))) or "none"
    return f"'{path}' has the inputs {inputs} and the outputs {outputs}"
