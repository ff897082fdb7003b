"""Import of SSDs in TFLite with the built-in post-processing `TFLite_Detection_PostProcess`.

Quantized weights are dequantized, and the graph computes in float32. Default boxes, scales and
limits come from the post-processing, the pre-processing from the quantization of the input or the
metadata of the file. Neither PyTorch nor TensorFlow is needed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.importers import tensorflow_spec
from realtime_ssd_training.importers.class_names import (
    complete_labels,
    numbered_labels,
    read_label_lines,
)
from realtime_ssd_training.importers.import_options import ImportOptions, ImportResult
from realtime_ssd_training.importers.nhwc_graph import Value
from realtime_ssd_training.importers.onnx_graph import extract, rename
from realtime_ssd_training.importers.onnx_writer import write_model
from realtime_ssd_training.importers.spec_overrides import apply_overrides, read_fields
from realtime_ssd_training.importers.tflite_graph import GraphBuilder, operator_error
from realtime_ssd_training.importers.tflite_layers import CONVERTERS
from realtime_ssd_training.importers.tflite_metadata import (
    embedded_labels,
    normalization,
)
from realtime_ssd_training.weights.text_files import labels_beside
from realtime_ssd_training.weights.tflite_file import (
    Operator,
    Tensor,
    TfliteFile,
    pixel_scaling,
    read_tflite,
)

__all__ = ["FAMILY", "POST_PROCESSING", "import_model"]

FAMILY = "tflite"
POST_PROCESSING = "TFLite_Detection_PostProcess"
_ARITHMETIC = ("ADD", "MUL", "SUB")
_BOX_TOLERANCE = 1e-5
_DEFAULT_LIMITS = Thresholds(0.5, 0.6, 200, 100)
"""Limits of TensorFlow's SSDs; the score is one for display."""


def import_model(path: Path, output: Path, options: ImportOptions) -> ImportResult:
    """Import a TFLite file; see `realtime_ssd_training.importers`."""
    if options.family not in (None, FAMILY):
        raise UsageError(f"`family` '{options.family}' is unknown for TFLite files; omit it")
    file = read_tflite(path)
    end = _post_processing(file, path)
    graph = GraphBuilder(file.tensors, options.keep_quantized)
    image = _add_input(graph, file)
    _convert_operators(graph, file, end, path)
    offsets, scores = _head(graph, end, 0), _head(graph, end, 1)
    background = _background(end, scores.shape[2])
    spec = ModelSpec(
        name=output.stem,
        input=_input_spec(file, image, options),
        boxes=_default_boxes(graph, end),
        labels=numbered_labels(scores.shape[2], background=background is not None),
        variances=_variances(end),
        coding="yxhw",
        activation="none",
        background=background,
        thresholds=_thresholds(end),
        description=f"SSD {image.shape[2]}x{image.shape[1]} converted from TFLite",
    )
    labels, origin = _labels(path, spec, options)
    spec = apply_overrides(replace(spec, labels=labels), replace(options, labels=None))
    model = graph.build(image, [scores, offsets])
    rename(model, image.name, spec.input.name)
    rename(model, scores.name, spec.scores_output)
    rename(model, offsets.name, spec.offsets_output)
    heads = {spec.scores_output: scores.shape, spec.offsets_output: offsets.shape}
    dynamic_batch = write_model(extract(model, {}, heads), spec, output)
    return ImportResult(spec, output, FAMILY, dynamic_batch, origin)


def _post_processing(file: TfliteFile, path: Path) -> Operator:
    found = [operator for operator in file.operators if operator.name == POST_PROCESSING]
    if len(found) != 1:
        raise ModelError(
            f"'{path}' has no operator {POST_PROCESSING}; only SSDs that were exported with it can "
            "be imported"
        )
    return found[0]


def _add_input(graph: GraphBuilder, file: TfliteFile) -> Value:
    """Add the image, which must be the only input."""
    shape = file.tensors[file.inputs[0]].shape if len(file.inputs) == 1 else ()
    if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or min(shape) < 1:
        raise ModelError(
            f"the TFLite model has {len(file.inputs)} inputs, the first of shape {list(shape)}; "
            "one image of the shape 1×height×width×3 is expected"
        )
    image = Value(shape, "image", channels_first=True)
    rounded = graph.rounded(image.name, file.tensors[file.inputs[0]])
    graph.values[file.inputs[0]] = replace(image, name=rounded)
    return image


def _convert_operators(graph: GraphBuilder, file: TfliteFile, end: Operator, path: Path) -> None:
    """Add every operator before the post-processing to the graph."""
    needed = file.operators[: file.operators.index(end)]
    unknown = sorted({item.name for item in needed if item.name not in CONVERTERS})
    if unknown:
        raise ModelError(
            f"'{path}' contains {', '.join(unknown)}, which cannot be imported; supported are "
            f"{', '.join(CONVERTERS)}"
        )
    for operator in needed:
        try:
            graph.values[operator.outputs[0]] = CONVERTERS[operator.name](graph, operator)
        except (IndexError, KeyError, ValueError, ZeroDivisionError) as error:
            raise operator_error(operator, "has inputs or options that do not fit") from error


def _head(graph: GraphBuilder, end: Operator, position: int) -> Value:
    """Return an input of the post-processing as 1 × P × columns."""
    value = graph.value(end, position)
    shape = (1, int(np.prod(value.shape[1:-1])), value.shape[-1])
    name = graph.same_order(value)
    if value.shape != shape:
        target = graph.constant(np.array(shape, np.int64))
        name = graph.add("Reshape", [name, target])
    return Value(shape, name)


def _input_spec(file: TfliteFile, image: Value, options: ImportOptions) -> InputSpec:
    """Return the pre-processing: (pixel - mean) * scale are the real values of the input."""
    mean, scale = _mean_and_scale(file, options)
    rows, columns = image.shape[1:3]
    return InputSpec(columns, rows, "RGB", mean, scale)


def _mean_and_scale(
    file: TfliteFile, options: ImportOptions
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    tensor = file.tensors[file.inputs[0]]
    scaling = pixel_scaling(tensor)
    if scaling is not None:
        return (scaling[0],) * 3, (scaling[1],) * 3
    if tensor.dtype is not np.float32:
        raise ModelError(
            f"the input '{tensor.name}' of the TFLite model is neither float32 nor quantized 8-bit"
        )
    stated = normalization(file)
    if stated is not None:
        return _three(stated[0]), _three([1 / value if value else 0.0 for value in stated[1]])
    first = next((item for item in file.operators if file.inputs[0] in item.inputs), None)
    if first is not None and first.name in _ARITHMETIC and not _describes_input(options):
        raise UsageError(
            f"the TFLite model normalizes its input itself ({first.name}); set `spec` to a JSON "
            "file with the mean and scale (three numbers each) of 'input' that it still expects"
        )
    return (127.5,) * 3, (1 / 127.5,) * 3


def _describes_input(options: ImportOptions) -> bool:
    fields = read_fields(options.spec).get("input") if options.spec else None
    return isinstance(fields, dict) and {"mean", "scale"} <= fields.keys()


def _three(values: list[float]) -> tuple[float, float, float]:
    if len(values) not in (1, 3) or not all(np.isfinite(values)):
        raise ModelError(f"the metadata of the TFLite model normalizes by {values}")
    first, second, third = values * 3 if len(values) == 1 else values
    return first, second, third


def _default_boxes(graph: GraphBuilder, end: Operator) -> AnchorSpec:
    """Return the default boxes; those of TensorFlow's SSD MobileNet as a short rule."""
    anchors = graph.weights(end, 2, 2)
    if anchors.shape[1] != 4 or not np.isfinite(anchors).all():
        raise operator_error(end, f"has default boxes of the shape {list(anchors.shape)}")
    boxes = anchors[:, [1, 0, 3, 2]]
    rule = tensorflow_spec.mobilenet_boxes(_rounding(graph.tensors[end.inputs[2]]))
    if rule.count == len(boxes) and np.abs(rule.boxes() - boxes).max() < _BOX_TOLERANCE:
        return rule
    return AnchorSpec.from_array(boxes)


def _rounding(tensor: Tensor) -> float:
    return float(tensor.scale[0]) if len(tensor.scale) == 1 else 0.0


def _variances(end: Operator) -> tuple[float, float, float, float]:
    """Return the factors of the offsets: the inverse of the scales."""
    x, y, w, h = (_number(end, f"{name}_scale") for name in "xywh")
    if min(x, y, w, h) <= 0:
        raise operator_error(end, f"has the scales {[x, y, w, h]}, which are not positive")
    return 1 / x, 1 / y, 1 / w, 1 / h


def _number(end: Operator, key: str) -> float:
    value: Any = end.options.get(key)
    if not isinstance(value, int | float) or not np.isfinite(value):
        raise operator_error(end, f"has no option '{key}'")
    return float(value)


def _background(end: Operator, columns: int) -> int | None:
    """Return the column of the background, which `num_classes` does not count."""
    classes = int(_number(end, "num_classes"))
    if columns - classes not in (0, 1):
        raise operator_error(end, f"has {columns} score columns for {classes} classes")
    return 0 if columns > classes else None


def _thresholds(end: Operator) -> Thresholds:
    """Return the limits; those for evaluation have too low a score, and ten boxes are too few."""
    most = int(end.options.get("max_detections", 0))
    return replace(
        _DEFAULT_LIMITS,
        score_threshold=max(
            round(_number(end, "nms_score_threshold"), 6), _DEFAULT_LIMITS.score_threshold
        ),
        iou_threshold=round(_number(end, "nms_iou_threshold"), 6),
        max_detections=max(most, _DEFAULT_LIMITS.max_detections),
    )


def _labels(path: Path, spec: ModelSpec, options: ImportOptions) -> tuple[tuple[str, ...], str]:
    """Return the labels, and where they come from."""
    embedded = None if options.labels else embedded_labels(path)
    if embedded is not None:
        name, lines = embedded
        origin = f"{name} in {path.name}"
    else:
        file = options.labels or labels_beside(path)
        if file is None:
            return spec.labels, "numbered, since no label file was found"
        lines, origin = read_label_lines(file), str(file)
    labels = complete_labels(
        lines, spec.num_classes, origin, background=spec.background is not None
    )
    return labels, origin
