"""Find the two heads of a single-shot detector in an ONNX graph, by their shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from realtime_ssd.core.errors import ModelError
from realtime_ssd_training.importers import graph
from realtime_ssd_training.importers.graph import Model, Port

__all__ = ["Heads", "find_heads", "found"]

OFFSET_WORDS = ("box", "loc", "offset", "reg", "encod")
COPIES = ("Identity", "Reshape", "Transpose", "Cast", "Squeeze", "Unsqueeze")
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Heads:
    """The two outputs of a single-shot detector, and where its images go in.

    Attributes:
        image: The input, 1 × 3 × H × W.
        scores: The output 1 × P × C.
        offsets: The output 1 × P × 4.
        boxes: P, the number of default boxes.
        classes: C, the number of score columns.
        activation_inside: Whether the graph turns scores into probabilities itself.
    """

    image: Port
    scores: str
    offsets: str
    boxes: int
    classes: int
    activation_inside: bool

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
        ModelError: If there is not one image input, or not one pair of heads.
    """
    taken = graph.inputs(model)
    if len(taken) != 1 or not _is_image(taken[0]):
        raise ModelError(
            f"{found(model, path)}; an SSD takes one input 1×3×H×W of fixed size: export it so"
        )
    values = graph.run(model, {taken[0].name: graph.zeros(taken[0])})
    names = [port.name for port in graph.outputs(model)]
    shapes = {name: value.shape for name, value in zip(names, values, strict=True)}
    pairs = [
        (scores, offsets)
        for scores in shapes
        for offsets in shapes
        if scores != offsets and _are_heads(scores, offsets, shapes)
    ]
    if len(pairs) != 1:
        shown = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in shapes.items())
        raise ModelError(
            f"'{path}' gives {shown}; an SSD gives one output of scores 1×P×C and one of offsets "
            "1×P×4: export its heads without non-maximum suppression"
        )
    scores, offsets = pairs[0]
    _, boxes, classes = shapes[scores]
    inside = _ends_in_activation(model, scores)
    return Heads(taken[0], scores, offsets, boxes, classes, inside)


def _is_image(port: Port) -> bool:
    shape = port.shape
    return len(shape) == 4 and shape[0] in (1, None) and shape[1] == 3 and None not in shape[2:]


def _are_heads(scores: str, offsets: str, shapes: dict[str, Shape]) -> bool:
    """Tell whether two outputs are scores and offsets; names decide where both are P × 4."""
    first, second = shapes[scores], shapes[offsets]
    if len(first) != 3 or first[:2] != second[:2] or second[2:] != (4,):
        return False
    if first != second:
        return True
    named = [any(word in name.lower() for word in OFFSET_WORDS) for name in (scores, offsets)]
    return named == [False, True]


def _ends_in_activation(model: Model, output: str) -> bool:
    """Tell whether an output comes out of a softmax or sigmoid, looking through mere copies."""
    made = graph.producers(model)
    node = made.get(output)
    while node is not None and node.op_type in COPIES:
        node = made.get(node.input[0])
    return node is not None and node.op_type in ("Softmax", "Sigmoid")


def found(model: Model, path: Path) -> str:
    """Say what a graph takes and gives, as the beginning of a message."""
    taken = ", ".join(map(str, graph.inputs(model)))
    given = ", ".join(map(str, graph.outputs(model)))
    return f"'{path}' takes {taken or 'nothing'} and gives {given or 'nothing'}"
