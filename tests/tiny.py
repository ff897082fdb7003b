"""A tiny model, built with ONNX alone, that detects bright cells in dark images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec
from realtime_ssd.core.frames import Image
from realtime_ssd.core.spec import InputSpec, ModelSpec, attach_spec

CELLS, SIDE = 4, 32


def tiny_spec() -> ModelSpec:
    """Return a specification with one default box, as large as the cell, in each of 4 × 4 cells."""
    layer = AnchorLayer(CELLS, CELLS, 1 / CELLS, 1 / CELLS, ((1 / CELLS, 1 / CELLS),))
    return ModelSpec(
        name="tiny",
        input=InputSpec(SIDE, SIDE, "BGR", scale=(1 / 255,) * 3),
        boxes=AnchorSpec((layer,)),
        labels=("background", "bright"),
    )


def tiny_model(path: Path, spec: ModelSpec | None = None, *, factor: float = 40.0) -> Path:
    """Write the model: the logit of a cell grows with its mean brightness.

    Args:
        path: File to write; it is returned.
        spec: Specification to store in the file; `tiny_spec()` by default.
        factor: Slope of the logit; with NaN all outputs are NaN.
    """
    pool = SIDE // CELLS
    weights = np.zeros((2, 3, pool, pool), np.float32)
    weights[1] = factor / (3 * pool * pool)
    shift = np.array([factor / 2, 0.0], np.float32)
    zero = np.zeros((4, 3, pool, pool), np.float32)
    constants = {
        "w": weights,
        "b": shift,
        "z": zero,
        "s2": np.array([0, -1, 2], np.int64),
        "s4": np.array([0, -1, 4], np.int64),
    }
    nodes = []
    for name, kernel, bias, columns in (("scores", "w", "b", "s2"), ("offsets", "z", "", "s4")):
        inputs = ["image", kernel, bias] if bias else ["image", kernel]
        nodes += [
            helper.make_node("Conv", inputs, [f"{name}_map"], strides=[pool, pool]),
            helper.make_node("Transpose", [f"{name}_map"], [f"{name}_rows"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"{name}_rows", columns], [name]),
        ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CELLS**2, 2]),
            helper.make_tensor_value_info("offsets", TensorProto.FLOAT, ["n", CELLS**2, 4]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    attach_spec(model, spec or tiny_spec())
    onnx.save(model, str(path))
    return path


def bright_cell(cell: tuple[int, int], size: tuple[int, int] = (120, 160)) -> Image:
    """Return a dark image of `size` (height, width) with one bright cell (row, column)."""
    image = np.zeros((*size, 3), np.uint8)
    height, width = size[0] // CELLS, size[1] // CELLS
    row, column = cell
    image[row * height : (row + 1) * height, column * width : (column + 1) * width] = 255
    return image
