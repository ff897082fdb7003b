"""Find the box decoding inside a graph and take it out, with the default boxes it holds.

Exporters often append the decoding to the network. Its inputs and outputs are P × 4, so it can be
cut out and run alone: offsets of zero give the default boxes, single steps give the variances, and
random offsets prove that it is the SSD decoding (paper, section 2.2) and nothing else.
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
from realtime_ssd_training.importers import graph
from realtime_ssd_training.importers.graph import Floats, Model

__all__ = ["Decoding", "check_corners", "find_decoding"]

Variances = tuple[float, float, float, float]
Probe = Callable[[Floats], Floats]
TOLERANCE = 1e-4
PIXELS = 2.5  # default boxes in fractions of the image never reach this far


@dataclass(frozen=True, slots=True, eq=False)
class Decoding:
    """A decoding that was found inside a graph.

    Attributes:
        offsets: Tensor that holds the raw offsets, 1 × P × 4.
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
    """Look for the decoding that makes the boxes of a graph.

    Args:
        model: The graph, with a batch of 1.
        output: Its output of boxes, 1 × `count` × 4.
        count: Number of default boxes.
        width: Columns of the input, should the boxes be in pixels.
        height: Rows of the input.

    Returns:
        The decoding; None if the output is not the SSD decoding of any tensor of the graph.
    """
    exponential = _exponential(model, output)
    if exponential is None:
        return None
    for name in _sources(model, exponential, count):
        probe = _cut_out(model, name, output, count)
        if probe is not None:
            return _read(probe, name, count, (width, height))
    return None


def _exponential(model: Model, output: str) -> Any:
    """Find the last exponential before an output: that of the box sizes."""
    made, seen, waiting = graph.producers(model), set(), [output]
    while waiting:
        name = waiting.pop(0)
        node = made.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type == "Exp":
            return node
        waiting.extend(node.input)
    return None


def _sources(model: Model, node: Any, count: int) -> list[str]:
    """List the tensors of shape 1 × `count` × 4 from which a node is computed, nearest first."""
    made, names, waiting = graph.producers(model), list[str](), list(node.input)
    while waiting:
        name = waiting.pop(0)
        if name in made and name not in names:
            names.append(name)
            waiting.extend(made[name].input)
    shapes = graph.shapes(model, names)
    return [name for name in names if shapes.get(name) == (1, count, 4)]


def _cut_out(model: Model, source: str, output: str, count: int) -> Probe | None:
    """Make the part of a graph between two tensors a function; None if it needs other inputs."""
    part = graph.extract(model, {source: (1, count, 4)}, {output: (1, count, 4)})
    if [port.name for port in graph.inputs(part)] != [source]:
        return None

    def probe(offsets: Floats) -> Floats:
        result: Floats = graph.run(part, {source: offsets[None].astype(np.float32)})[0][0]
        return result

    return probe


def _read(probe: Probe, name: str, count: int, size: tuple[int, int]) -> Decoding | None:
    """Read default boxes and variances out of a decoding and prove that they explain it."""
    start = probe(np.zeros((count, 4), np.float32))
    unit = np.ones(2)
    if np.abs(start).max() > PIXELS:
        unit = np.array(size, np.float64)
    scale = np.tile(unit, 2).astype(np.float32)
    for form in (to_center, _same):
        boxes = form(start / scale).astype(np.float32)
        variances = _variances(probe, form, boxes, scale)
        if variances and _explains(probe, form, boxes, variances, scale):
            return _ordered(name, boxes, variances)
    return None


def _same(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    return boxes


Form = Callable[[NDArray[np.floating]], NDArray[np.floating]]


def _variances(probe: Probe, form: Form, boxes: Floats, scale: Floats) -> Variances | None:
    """Find the factors of the offsets: what a step of one does to each coordinate."""
    if not (boxes[:, 2:] > 0).all():
        return None
    moved = form(probe(np.ones(boxes.shape, np.float32)) / scale)
    with np.errstate(invalid="ignore", divide="ignore"):
        centers = np.median((moved[:, :2] - boxes[:, :2]) / boxes[:, 2:], axis=0)
        sizes = np.median(np.log(moved[:, 2:] / boxes[:, 2:]), axis=0)
    values = [round(float(value), 5) for value in (*centers, *sizes)]
    if not np.isfinite(values).all():
        return None
    return (values[0], values[1], values[2], values[3])


def _explains(probe: Probe, form: Form, boxes: Floats, variances: Variances, scale: Floats) -> bool:
    """Tell whether the SSD decoding gives what the graph gives for random offsets."""
    offsets = np.random.default_rng(0).normal(size=boxes.shape).astype(np.float32)
    mine = decode(offsets, boxes, variances)
    theirs = to_corners(form(probe(offsets) / scale))
    return np.allclose(mine, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def _ordered(name: str, boxes: Floats, variances: Variances) -> Decoding:
    """Tell x from y: default boxes lie row by row, so the first centre to move is x."""
    moves = np.abs(np.diff(boxes[:, :2], axis=0)) > 1e-6
    first = moves.any(axis=1).argmax()
    if moves[first, 0]:
        return Decoding(name, boxes, variances, "xywh")
    y, x, h, w = variances
    return Decoding(name, boxes[:, [1, 0, 3, 2]], (x, y, w, h), "yxhw")


def check_corners(boxes: Floats, what: str) -> None:
    """Refuse boxes that are no corners in fractions of the image.

    Args:
        boxes: P × 4 boxes of a run of the graph.
        what: Name of the output, for the message.

    Raises:
        ModelError: If the boxes are in pixels, in another order or raw offsets.
    """
    inside = (np.abs(boxes) <= PIXELS).mean() > 0.99
    ordered = (boxes[:, 2:] >= boxes[:, :2]).mean() > 0.99
    if not (inside and ordered):
        raise ModelError(
            f"the output '{what}' holds neither corners (x1, y1, x2, y2) as fractions of the image "
            "nor a known SSD decoding; export the raw heads and give the default boxes (--anchors)"
        )
