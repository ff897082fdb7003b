"""Import of SSDs of TensorFlow's Object Detection API: frozen graphs and SavedModels.

Default boxes, scales of the offsets, input and thresholds are read out of the graph; the part
between the resized image and the raw heads is converted. OpenCV's face detector has its default
boxes in a description beside the graph.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import Thresholds
from realtime_ssd_training.importers import tensorflow_opencv
from realtime_ssd_training.importers.import_options import ImportOptions, ImportResult
from realtime_ssd_training.importers.nhwc_graph import Value
from realtime_ssd_training.importers.tensorflow_file import (
    Graph,
    Node,
    before_reshape,
    data_inputs,
    read_graph,
)
from realtime_ssd_training.importers.tensorflow_graph import GraphConverter
from realtime_ssd_training.importers.tensorflow_heads import Heads, write_heads
from realtime_ssd_training.importers.tensorflow_image import find_image
from realtime_ssd_training.importers.tensorflow_layers import CONVERTERS

__all__ = ["FAMILIES", "import_model"]

FAMILIES = ("tensorflow", "opencv-face")
_DECODER = "Postprocessor/Decode"
_ANCHORS = f"{_DECODER}/get_center_coordinates_and_sizes/transpose"
_TFLITE = "TFLite_Detection_PostProcess"
_NMS = ("NonMaxSuppressionV2", "NonMaxSuppressionV3", "NonMaxSuppressionV4", "NonMaxSuppressionV5")
_LOWEST_DISPLAY_SCORE = 0.5
_DEFAULT_LIMITS = Thresholds(0.5, 0.6, 100, 100)


def import_model(path: Path, output: Path, options: ImportOptions) -> ImportResult:
    """Import a TensorFlow graph; see `realtime_ssd_training.importers`."""
    if options.family not in (None, *FAMILIES):
        raise UsageError(
            f"`family` '{options.family}' is unknown for TensorFlow graphs; choose from "
            f"{', '.join(FAMILIES)}"
        )
    graph = read_graph(path)
    if tensorflow_opencv.matches(graph):
        return tensorflow_opencv.import_model(graph, path, output, options)
    converter = GraphConverter(graph=graph, converters=CONVERTERS)
    outputs = _find_outputs(graph, path)
    image = find_image(graph, outputs[1], converter)
    spec = image.spec
    if not image.is_scaled:
        spec = replace(spec, mean=(127.5,) * 3, scale=(1 / 127.5,) * 3)
    pixels = Value((1, spec.height, spec.width, 3), "image", channels_first=True)
    converter.values[image.node] = [pixels]
    heads = _read_heads(converter, outputs)
    return write_heads(converter, pixels, heads, spec, path, output, options)


def _find_outputs(graph: Graph, path: Path) -> tuple[str, str]:
    """Return the tensors of raw offsets and of scores.

    Raises:
        ModelError: If the graph is not one of the Object Detection API.
    """
    for node in graph.nodes.values():
        if node.op == _TFLITE:
            return data_inputs(node)[0], data_inputs(node)[1]
    scores = [
        node
        for node in graph.nodes.values()
        if node.op in ("Sigmoid", "Softmax") and node.name.startswith("Postprocessor/")
    ]
    decoder = graph.nodes.get(f"{_DECODER}/transpose")
    if decoder is None or len(scores) != 1:
        outputs = ", ".join(sorted({name.partition("/")[0] for name in graph.nodes})[:8])
        raise ModelError(
            f"'{path}' is not an SSD of TensorFlow's Object Detection API: it has no "
            f"{_DECODER} and Postprocessor/convert_scores, but {outputs}"
        )
    return before_reshape(graph, data_inputs(decoder)[0]), data_inputs(scores[0])[0]


def _read_heads(converter: GraphConverter, outputs: tuple[str, str]) -> Heads:
    graph = converter.graph
    end = next((node for node in graph.nodes.values() if node.op == _TFLITE), None)
    if end is not None:
        return _tflite_heads(converter, end, outputs)
    anchors = converter.constant_of(data_inputs(graph.node(_ANCHORS))[0]).reshape(-1, 4)
    low, high = anchors[:, :2].astype(np.float64), anchors[:, 2:].astype(np.float64)
    boxes = np.concatenate([(low + high) / 2, high - low], axis=1)[:, [1, 0, 3, 2]]
    activation = next(
        node.op.lower()
        for node in graph.nodes.values()
        if node.op in ("Sigmoid", "Softmax") and node.name.startswith("Postprocessor/")
    )
    y, x, h, w = _scales(converter)
    return Heads(
        *outputs,
        activation,
        AnchorSpec.from_array(boxes.astype(np.float32)),
        (1 / x, 1 / y, 1 / w, 1 / h),
        _background(converter),
        _thresholds(converter),
    )


def _scales(converter: GraphConverter) -> list[float]:
    """Return the divisors of the offsets of y, x, h and w."""
    scales = [1.0] * 4
    for node in converter.graph.nodes.values():
        inputs = data_inputs(node)
        source, _, number = inputs[0].partition(":") if inputs else ("", "", "")
        if source == f"{_DECODER}/unstack" and node.op in ("RealDiv", "Mul") and len(inputs) == 2:
            value = float(converter.constant_of(inputs[1]))
            scales[int(number or 0)] = value if node.op == "RealDiv" else 1 / value
    return scales


def _background(converter: GraphConverter) -> int | None:
    """Return the column of the background, which the post-processing cuts off."""
    for node in converter.graph.nodes.values():
        if node.op == "Slice" and node.name.startswith("Postprocessor/Slice"):
            begin = converter.constant_of(data_inputs(node)[1])
            return 0 if int(begin[-1]) == 1 else None
        if node.op == "StridedSlice" and node.name == "Postprocessor/strided_slice_2":
            return 0
    return 0


def _thresholds(converter: GraphConverter) -> Thresholds:
    """Read the limits of the non-maximum suppression, as far as they are constants."""
    limits = _DEFAULT_LIMITS
    node = next((n for n in converter.graph.nodes.values() if n.op in _NMS), None)
    if node is None:
        return limits
    values = [_number(converter, item) for item in data_inputs(node)[2:5]]
    score = values[2] if len(values) > 2 else None
    return replace(
        limits,
        iou_threshold=round(values[1], 6) if values[1] else limits.iou_threshold,
        score_threshold=(
            score if score and score >= _LOWEST_DISPLAY_SCORE else limits.score_threshold
        ),
        pre_nms_top_k=int(values[0]) if values[0] else limits.pre_nms_top_k,
    )


def _number(converter: GraphConverter, reference: str) -> float | None:
    """Return a constant inside a loop, whose inputs pass through Enter nodes."""
    node: Node = converter.graph.node(reference)
    while node.op in ("Enter", "Identity"):
        node = converter.graph.node(data_inputs(node)[0])
    if node.op == "Minimum":  # of the limit and the number of boxes
        numbers = [_number(converter, item) for item in data_inputs(node)]
        return next((number for number in numbers if number is not None), None)
    if node.op != "Const":
        return None
    return float(converter.constant_of(node.name))


def _tflite_heads(converter: GraphConverter, end: Node, outputs: tuple[str, str]) -> Heads:
    """Read the post-processing of a graph that was made for TFLite."""
    boxes = converter.constant_of(data_inputs(end)[2]).reshape(-1, 4)[:, [1, 0, 3, 2]]
    x, y, w, h = (float(end.attr[f"{name}_scale"].f) for name in "xywh")
    score = float(end.attr["nms_score_threshold"].f)
    limits = replace(
        _DEFAULT_LIMITS,
        iou_threshold=round(float(end.attr["nms_iou_threshold"].f), 6),
        score_threshold=(
            score if score >= _LOWEST_DISPLAY_SCORE else _DEFAULT_LIMITS.score_threshold
        ),
    )
    scores = converter.graph.node(outputs[1])
    activation = "sigmoid" if scores.op == "Sigmoid" else "none"
    raw = data_inputs(scores)[0] if activation == "sigmoid" else outputs[1]
    variances = (1 / x, 1 / y, 1 / w, 1 / h)
    array = AnchorSpec.from_array(np.asarray(boxes, np.float32))
    return Heads(outputs[0], raw, activation, array, variances, 0, limits)
