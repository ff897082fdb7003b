"""Detection and removal of a box decoding at the end of a graph.

Exporters often append the decoding to the network. Its input and output are P × 4, so it can be
extracted and run alone: zero offsets return the default boxes, offsets of one return the
variances, and random offsets verify that it is the SSD decoding (paper, section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.boxes import decode, to_center, to_corners
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import Coding
from realtime_ssd_training.importers import onnx_graph
from realtime_ssd_training.importers.onnx_graph import Floats, Model

__all__ = ["Decoding", "check_corners", "find_decoding"]

Variances = tuple[float, float, float, float]
Decoder = Callable[[Floats], Floats]
ToCenter = Callable[[NDArray[np.floating]], NDArray[np.floating]]
TOLERANCE = 1e-4
LARGEST_FRACTION = 2.5  # coordinates above are in pixels, not in fractions of the image
MIN_MOVE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Decoding:
    """A decoding inside a graph.

    Attributes:
        offsets: Name of the tensor of raw offsets, 1 × P × 4.
        default_boxes: P × 4 float32 (cx, cy, w, h), fractions of the image.
        variances: Factors of the offsets of cx, cy, w, h.
        coding: Order of the raw offsets.
    """

    offsets: str
    default_boxes: Floats
    variances: Variances
    coding: Coding


def find_decoding(
    model: Model, output: str, count: int, width: int, height: int
) -> Decoding | None:
    """Find the decoding that computes the boxes of a graph.

    Args:
        model: The graph, with a batch of 1.
        output: Its output of boxes, 1 × `count` × 4.
        count: Number of default boxes.
        width: Columns of the input, for boxes in pixels.
        height: Rows of the input.

    Returns:
        The decoding; None if the output is not the SSD decoding of any tensor of the graph.
    """
    exponential = _last_exponential(model, output)
    if exponential is None:
        return None
    for name in _candidate_offsets(model, exponential, count):
        decoder = _extract_decoder(model, name, output, count)
        if decoder is not None:
            return _analyze(decoder, name, count, (width, height))
    return None


def _last_exponential(model: Model, output: str) -> Any:
    """Return the last exponential before an output, which is the one of the box sizes."""
    nodes, visited, queue = onnx_graph.producers(model), set(), [output]
    while queue:
        name = queue.pop(0)
        node = nodes.get(name)
        if node is None or name in visited:
            continue
        visited.add(name)
        if node.op_type == "Exp":
            return node
        queue.extend(node.input)
    return None


def _candidate_offsets(model: Model, node: Any, count: int) -> list[str]:
    """List the tensors 1 × `count` × 4 from which a node is computed, nearest first."""
    nodes, names, queue = onnx_graph.producers(model), list[str](), list(node.input)
    while queue:
        name = queue.pop(0)
        if name in nodes and name not in names:
            names.append(name)
            queue.extend(nodes[name].input)
    shapes = onnx_graph.measure_shapes(model, names)
    return [name for name in names if shapes.get(name) == (1, count, 4)]


def _extract_decoder(model: Model, offsets: str, output: str, count: int) -> Decoder | None:
    """Return the part of a graph between two tensors; None if it needs other inputs."""
    part = onnx_graph.extract(model, {offsets: (1, count, 4)}, {output: (1, count, 4)})
    if [tensor.name for tensor in onnx_graph.inputs(part)] != [offsets]:
        return None

    def decoder(values: Floats) -> Floats:
        result: Floats = onnx_graph.run(part, {offsets: values[None].astype(np.float32)})[0][0]
        return result

    return decoder


def _analyze(decoder: Decoder, name: str, count: int, size: tuple[int, int]) -> Decoding | None:
    """Derive default boxes and variances of a decoder and verify them."""
    start = decoder(np.zeros((count, 4), np.float32))
    unit = np.ones(2)
    if np.abs(start).max() > LARGEST_FRACTION:
        unit = np.array(size, np.float64)
    scale = np.tile(unit, 2).astype(np.float32)
    for to_center_form in (to_center, _unchanged):
        boxes = to_center_form(start / scale).astype(np.float32)
        variances = _variances(decoder, to_center_form, boxes, scale)
        if variances and _is_ssd_decoding(decoder, to_center_form, boxes, variances, scale):
            return _with_axis_order(name, boxes, variances)
    return None


def _unchanged(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    return boxes


def _variances(
    decoder: Decoder, to_center_form: ToCenter, boxes: Floats, scale: Floats
) -> Variances | None:
    """Measure the factors of the offsets as the effect of offsets of one."""
    if not (boxes[:, 2:] > 0).all():
        return None
    moved = to_center_form(decoder(np.ones(boxes.shape, np.float32)) / scale)
    with np.errstate(invalid="ignore", divide="ignore"):
        centers = np.median((moved[:, :2] - boxes[:, :2]) / boxes[:, 2:], axis=0)
        sizes = np.median(np.log(moved[:, 2:] / boxes[:, 2:]), axis=0)
    values = [round(float(value), 5) for value in (*centers, *sizes)]
    if not np.isfinite(values).all():
        return None
    return (values[0], values[1], values[2], values[3])


def _is_ssd_decoding(
    decoder: Decoder,
    to_center_form: ToCenter,
    boxes: Floats,
    variances: Variances,
    scale: Floats,
) -> bool:
    """Return whether the SSD decoding of random offsets equals that of the graph."""
    offsets = np.random.default_rng(0).normal(size=boxes.shape).astype(np.float32)
    expected = decode(offsets, boxes, variances)
    actual = to_corners(to_center_form(decoder(offsets) / scale))
    return np.allclose(expected, actual, rtol=TOLERANCE, atol=TOLERANCE)


def _with_axis_order(name: str, boxes: Floats, variances: Variances) -> Decoding:
    """Determine the order of x and y.

    Default boxes are listed row by row, so x is the first center coordinate that changes.
    """
    moves = np.abs(np.diff(boxes[:, :2], axis=0)) > MIN_MOVE
    first = moves.any(axis=1).argmax()
    if moves[first, 0]:
        return Decoding(name, boxes, variances, "xywh")
    y, x, h, w = variances
    return Decoding(name, boxes[:, [1, 0, 3, 2]], (x, y, w, h), "yxhw")


def check_corners(boxes: Floats, output: str) -> None:
    """Check that boxes are corners in fractions of the image.

    Args:
        boxes: P × 4 boxes of a run of the graph.
        output: Name of the output, for the message.

    Raises:
        ModelError: If the boxes are in pixels, in another order or raw offsets.
    """
    inside = (np.abs(boxes) <= LARGEST_FRACTION).mean() > 0.99
    ordered = (boxes[:, 2:] >= boxes[:, :2]).mean() > 0.99
    if not (inside and ordered):
        raise ModelError(
            f"the output '{output}' is neither corners (x1, y1, x2, y2) as fractions of the image "
            "nor a known SSD decoding; export the raw heads and set `anchors` to the default boxes"
        )
