"""Import of SSDs that are ONNX already: heads found by shape, contract by family or by file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from realtime_ssd.errors import ModelError, UsageError
from realtime_ssd.spec import ModelSpec
from training.importers import graph, tensorflow
from training.importers.graph import Model, Port
from training.importers.options import Imported, ImportOptions
from training.importers.overrides import apply
from training.importers.saving import save

__all__ = ["Heads", "import_model"]

WIDTH_OF_OFFSETS = 4
OFFSET_WORDS = ("box", "loc", "offset", "reg", "encod")
QUANTISED_LEVELS = 256
TENSORFLOW_ROUNDING = 0.00645306


@dataclass(frozen=True, slots=True)
class Heads:
    """The two outputs of a single-shot detector, and where its images go in.

    Attributes:
        image: The input, 1 × 3 × H × W.
        scores: The output P × C.
        offsets: The output P × 4.
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


def import_model(path: Path, output: Path, options: ImportOptions) -> Imported:
    """Import an ONNX file; see `training.importers.import_model`."""
    model = graph.load(path)
    heads = find_heads(model, path)
    family = options.family or recognise(heads)
    spec = apply(_describe(family, heads, model, path), options)
    cut = graph.keep_outputs(
        model,
        [heads.scores, heads.offsets],
        [(1, heads.boxes, heads.classes), (1, heads.boxes, WIDTH_OF_OFFSETS)],
    )
    for old, new in (
        (heads.scores, spec.scores_output),
        (heads.offsets, spec.offsets_output),
        (heads.image.name, spec.input.name),
    ):
        graph.rename(cut, old, new)
    dynamic = save(cut, spec, output)
    return Imported(spec, output, family, dynamic)


def find_heads(model: Model, path: Path) -> Heads:
    """Find input, scores and offsets of a graph by their shapes.

    Raises:
        ModelError: If there is not one image input, or not one pair of heads.
    """
    images = [port for port in graph.inputs(model) if _is_image(port)]
    if len(images) != 1 or len(graph.inputs(model)) != 1:
        raise ModelError(f"{_found(model, path)}; one input 1×3×H×W of fixed size is needed")
    blank = np.zeros((1, *(size or 0 for size in images[0].shape[1:])), np.float32)
    values = graph.run(model, {images[0].name: blank})
    shapes = {
        port.name: value.shape for port, value in zip(graph.outputs(model), values, strict=True)
    }
    pairs = [
        (first, second)
        for first, one in shapes.items()
        for second, two in shapes.items()
        if first != second and _are_heads(one, two) and not _swapped(first, second, one, two)
    ]
    if len(pairs) != 1:
        shown = ", ".join(f"{name} {'×'.join(map(str, sizes))}" for name, sizes in shapes.items())
        raise ModelError(
            f"'{path}' gives the outputs {shown}; an SSD gives scores N×P×C and offsets N×P×4: "
            "export its raw heads"
        )
    scores, offsets = pairs[0]
    _, boxes, classes = shapes[scores]
    inside = _ends_in_activation(model, scores)
    return Heads(images[0], scores, offsets, boxes, classes, inside)


def _is_image(port: Port) -> bool:
    shape = port.shape
    return len(shape) == 4 and shape[0] in (1, None) and shape[1] == 3 and None not in shape[2:]


def _are_heads(scores: tuple[int, ...], offsets: tuple[int, ...]) -> bool:
    return (
        len(scores) == len(offsets) == 3
        and scores[:2] == offsets[:2]
        and offsets[2] == WIDTH_OF_OFFSETS
    )


def _swapped(scores: str, offsets: str, one: tuple[int, ...], two: tuple[int, ...]) -> bool:
    """Tell whether two heads of the same width are named the other way round."""
    if one != two:
        return False
    named = [any(word in name.lower() for word in OFFSET_WORDS) for name in (scores, offsets)]
    return named[0] or not named[1]


def _ends_in_activation(model: Model, output: str) -> bool:
    """Tell whether an output comes out of a softmax or sigmoid, looking through mere copies."""
    made = graph.producers(model)
    node = made.get(output)
    while node is not None and node.op_type in ("Identity", "Reshape", "Transpose", "Cast"):
        node = made.get(node.input[0])
    return node is not None and node.op_type in ("Softmax", "Sigmoid")


def _found(model: Model, path: Path) -> str:
    taken = ", ".join(map(str, graph.inputs(model)))
    given = ", ".join(map(str, graph.outputs(model)))
    return f"'{path}' takes {taken or 'nothing'} and gives {given}"


def recognise(heads: Heads) -> str:
    """Name the family of a graph; empty if none is known.

    TensorFlow's detector is known by its sizes and by its names, because other detectors have
    1917 default boxes as well.
    """
    size = (heads.width, heads.height, heads.boxes, heads.classes)
    if size == (300, 300, 1917, 91) and "encoding" in heads.offsets:
        return "tensorflow"
    return ""


def _describe(family: str, heads: Heads, model: Model, path: Path) -> ModelSpec:
    """Give the contract of a family for these heads."""
    if not family:
        raise ModelError(
            f"{_found(model, path)}, which is no known family; name one with --family "
            f"({', '.join(FAMILIES)})"
        )
    if family not in FAMILIES:
        raise UsageError(
            f"there is no family '{family}' for ONNX files; choose from {', '.join(FAMILIES)}"
        )
    return FAMILIES[family](heads, model)


def _tensorflow(heads: Heads, model: Model) -> ModelSpec:
    """Describe TensorFlow's detector; weights of few values tell that it was quantised."""
    rounding = TENSORFLOW_ROUNDING if _was_quantised(model) else 0.0
    return tensorflow.mobilenet_spec(heads.activation_inside, rounding)


def _was_quantised(model: Model) -> bool:
    """Tell whether no large weight tensor has more values than eight bits can tell apart."""
    large = [graph.values(item) for item in model.graph.initializer if np.prod(item.dims) > 10_000]
    return bool(large) and all(len(np.unique(item)) <= QUANTISED_LEVELS for item in large)


FAMILIES: dict[str, Callable[[Heads, Model], ModelSpec]] = {"tensorflow": _tensorflow}
