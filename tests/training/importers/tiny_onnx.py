"""A detector of one layer in ONNX, raw or with the box decoding of common exporters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

SIZE, BOXES, CLASSES = 16, 32, 3  # 4 × 4 cells of two boxes
Constants = dict[str, NDArray[Any]]


def anchors() -> NDArray[np.float32]:
    """Return two boxes for each of 4 × 4 cells, row by row."""
    y, x = np.divmod(np.arange(16), 4)
    centers = np.stack([x + 0.5, y + 0.5], axis=1).repeat(2, axis=0) / 4
    sizes = np.tile([[0.2, 0.3], [0.5, 0.4]], (16, 1))
    return np.concatenate([centers, sizes], axis=1).astype(np.float32)


def head_nodes(
    constants: Constants, rng: np.random.Generator, name: str, columns: int
) -> list[Any]:
    kernel = rng.normal(scale=0.2, size=(2 * columns, 3, 4, 4))
    constants[f"{name}.w"] = kernel.astype(np.float32)
    constants[f"{name}.shape"] = np.array([1, BOXES, columns])
    return [
        helper.make_node("Conv", ["in", f"{name}.w"], [f"{name}.c"], strides=[4, 4]),
        helper.make_node("Transpose", [f"{name}.c"], [f"{name}.t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", [f"{name}.t", f"{name}.shape"], [name]),
    ]


def decoding_nodes(constants: Constants, kind: str) -> list[Any]:
    """Return the SSD decoding as exporters write it: center form, then corners."""
    boxes = anchors()[:, [1, 0, 3, 2]] if kind == "tensorflow" else anchors()
    centers, sizes = ("xy.c", "wh.s") if kind == "centers" else ("low", "high")
    constants |= {
        "first": np.array([0]),
        "middle": np.array([2]),
        "end": np.array([4]),
        "axis": np.array([2]),
        "v0": np.float32(0.1) * boxes[:, 2:],
        "v1": np.array(0.2, np.float32),
        "c": boxes[:, :2],
        "s": boxes[:, 2:],
        "half": np.array(0.5, np.float32),
        "unit": np.array(SIZE if kind == "pixels" else 1, np.float32),
    }
    node = helper.make_node
    return [
        node("Slice", ["loc", "first", "middle", "axis"], ["xy"]),
        node("Slice", ["loc", "middle", "end", "axis"], ["wh"]),
        node("Mul", ["xy", "v0"], ["xy.m"]), node("Add", ["xy.m", "c"], ["xy.c"]),
        node("Mul", ["wh", "v1"], ["wh.m"]), node("Exp", ["wh.m"], ["wh.e"]),
        node("Mul", ["wh.e", "s"], ["wh.s"]), node("Mul", ["wh.s", "half"], ["wh.h"]),
        node("Sub", ["xy.c", "wh.h"], ["low"]), node("Add", ["xy.c", "wh.h"], ["high"]),
        node("Concat", [centers, sizes], ["corners"], axis=2),
        node("Mul", ["corners", "unit"], ["boxes"]),
    ]  # fmt: skip


def tiny_detector(decoding: str = "", *, activation: str = "", inputs: int = SIZE) -> ModelProto:
    """Build the detector.

    Args:
        decoding: Form of the boxes: "" for raw offsets, or "plain" (corners), "pixels",
            "tensorflow" (y first) or "centers" (center form).
        activation: Operator after the scores, if any.
        inputs: Declared rows and columns of the image.
    """
    rng, constants = np.random.default_rng(3), Constants()
    nodes = head_nodes(constants, rng, "logits", CLASSES) + head_nodes(constants, rng, "loc", 4)
    if activation:
        nodes.append(helper.make_node(activation, ["logits"], ["probabilities"]))
    if decoding:
        nodes += decoding_nodes(constants, decoding)
    names = ["boxes" if decoding else "loc", "probabilities" if activation else "logits"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, [1, 3, inputs, inputs])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, BOXES, columns])
            for name, columns in zip(names, (4, CLASSES), strict=True)
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
