"""Import of Caffe SSDs: network definition (.prototxt) and weights (.caffemodel).

The families are the two published ones: VGG16 of weiliu89 (BGR minus 104, 117, 123) and MobileNet
of chuanqi305 (BGR minus 127.5, times 0.007843). Default boxes, variances and limits of the
non-maximum suppression come from the definition.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import Activation, InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.importers import class_names
from realtime_ssd_training.importers.caffe_anchors import common_variances, join_prior_boxes
from realtime_ssd_training.importers.caffe_definition import layer_error, parse_definition
from realtime_ssd_training.importers.caffe_graph import Blob, GraphBuilder
from realtime_ssd_training.importers.caffe_layers import CONVERTERS
from realtime_ssd_training.importers.import_options import ImportOptions, ImportResult
from realtime_ssd_training.importers.label_choice import choose_labels
from realtime_ssd_training.importers.onnx_graph import extract, rename
from realtime_ssd_training.importers.onnx_writer import write_model
from realtime_ssd_training.importers.spec_overrides import apply_overrides
from realtime_ssd_training.weights.caffe_schema import Message, enum_name
from realtime_ssd_training.weights.caffe_weights import read_weights

__all__ = ["families", "import_model"]

# Mean and scale (BGR) of each family.
_INPUTS = {
    "caffe-vgg": ((104.0, 117.0, 123.0), 1.0),
    "caffe-mobilenet": ((127.5, 127.5, 127.5), 0.007843),
}
_LABELS = {
    21: class_names.VOC_21,
    81: class_names.COCO_80,
    91: class_names.COCO_91,
}
POST_PROCESSING = "DetectionOutput"


def import_model(path: Path, output: Path, options: ImportOptions) -> ImportResult:
    """Import a .caffemodel with its definition; see `realtime_ssd_training.importers`."""
    definition = _read_definition(path, options)
    layers = _inference_layers(definition)
    graph = GraphBuilder(read_weights(path))
    image = _add_input(graph, definition, layers)
    end = _convert_layers(graph, layers)
    _check_all_weights_used(graph, path)
    scores, offsets, priors = _heads(graph, end)
    family = options.family or _recognize(layers)
    spec = _describe(family, definition, end, image, scores, priors)
    labels, origin = choose_labels(path, spec, options)
    spec = apply_overrides(replace(spec, labels=labels), options)
    model = graph.build([image], [scores, offsets])
    rename(model, image.name, spec.input.name)
    rename(model, scores.name, spec.scores_output)
    rename(model, offsets.name, spec.offsets_output)
    heads = {spec.scores_output: scores.shape, spec.offsets_output: offsets.shape}
    dynamic_batch = write_model(extract(model, {}, heads), spec, output)
    return ImportResult(spec, output, family, dynamic_batch, origin)


def families() -> tuple[str, ...]:
    """Return the values of `family` for Caffe models."""
    return tuple(_INPUTS)


def _read_definition(path: Path, options: ImportOptions) -> Message:
    prototxt = options.prototxt
    if prototxt is None:
        raise UsageError(
            f"'{path}' contains weights only; set `prototxt` to its network definition (.prototxt)"
        )
    try:
        return parse_definition(prototxt.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the definition '{prototxt}' cannot be read: {error}") from error


def _inference_layers(definition: Message) -> list[Message]:
    """List the layers of the network outside training."""
    layers = [
        layer
        for layer in definition.layer
        if not any(
            rule.HasField("phase") and enum_name(rule, "phase") == "TRAIN" for rule in layer.include
        )
    ]
    if not any(layer.type == POST_PROCESSING for layer in layers):
        types = ", ".join(sorted({layer.type for layer in layers})) or "no layers at all"
        raise ModelError(
            f"the definition has no {POST_PROCESSING} layer, only {types}; use the SSD's "
            "deploy.prototxt"
        )
    return layers


def _recognize(layers: list[Message]) -> str:
    """Return the family: only VGG has Normalize, only MobileNet has grouped convolutions."""
    if any(layer.type == "Normalize" for layer in layers):
        return "caffe-vgg"
    if any(layer.convolution_param.group > 1 for layer in layers):
        return "caffe-mobilenet"
    return ""


def _add_input(graph: GraphBuilder, definition: Message, layers: list[Message]) -> Blob:
    """Add the network's input, which is a field of the definition or a layer."""
    names, shapes = definition.input, definition.input_shape
    for layer in layers:
        if layer.type == "Input":
            names, shapes = layer.top, layer.input_param.shape
    sizes = list(shapes[0].dim if shapes else definition.input_dim)
    if len(sizes) != 4 or sizes[1] != 3 or min(sizes) < 1:
        raise ModelError(f"the definition's input has the shape {sizes}, not 1×3×height×width")
    image = Blob("image", (1, 3, sizes[2], sizes[3]))
    graph.blobs[names[0] if names else ""] = image
    return image


def _convert_layers(graph: GraphBuilder, layers: list[Message]) -> Message:
    """Add every layer before the post-processing to the graph; return the post-processing."""
    for layer in layers:
        if layer.type == POST_PROCESSING:
            return layer
        if layer.type == "Input":
            continue
        if layer.type not in CONVERTERS:
            raise layer_error(
                layer,
                f"has a type that is not supported ({', '.join(sorted(CONVERTERS))} are); use the "
                "deploy.prototxt of an SSD",
            )
        bottoms = [graph.bottom(layer, name) for name in layer.bottom]
        try:
            result = CONVERTERS[layer.type](graph, layer, bottoms)
        except (IndexError, ValueError, ZeroDivisionError) as error:
            raise layer_error(
                layer, f"has parameters that do not fit its {len(bottoms)} inputs"
            ) from error
        results = result if isinstance(result, list) else [result] * len(layer.top)
        graph.blobs.update(zip(layer.top, results, strict=True))
    raise ModelError(f"the definition has no {POST_PROCESSING} layer")


def _check_all_weights_used(graph: GraphBuilder, path: Path) -> None:
    """Reject weights that the definition does not use, since the results would be wrong."""
    unused = [name for name in graph.weights if name not in graph.used_layers]
    if unused:
        raise ModelError(
            f"'{path}' has weights for {', '.join(unused[:5])}{' and more' * (len(unused) > 5)}, "
            "which the definition does not use; use the definition of these weights"
        )


def _heads(graph: GraphBuilder, end: Message) -> tuple[Blob, Blob, Blob]:
    """Return scores (1 × P × C), offsets (1 × P × 4) and default boxes."""
    if len(end.bottom) < 3:
        raise layer_error(
            end, f"has the inputs {list(end.bottom)}, not offsets, scores and default boxes"
        )
    offsets, scores, priors = (graph.bottom(end, name) for name in end.bottom[:3])
    classes = end.detection_output_param.num_classes
    return _to_rows(graph, end, scores, classes), _to_rows(graph, end, offsets, 4), priors


def _to_rows(graph: GraphBuilder, end: Message, head: Blob, columns: int) -> Blob:
    """Reshape a head to 1 × P × columns."""
    count = int(np.prod(head.shape[1:]))
    if not columns or count % columns:
        raise layer_error(end, f"has {count} values, which are not divisible by {columns} columns")
    shape = graph.constant(np.array([0, -1, columns], np.int64))
    name = graph.add("Reshape", [head.name, shape])
    return head.copy(name=name, shape=(1, count // columns, columns))


def _describe(
    family: str, definition: Message, end: Message, image: Blob, scores: Blob, priors: Blob
) -> ModelSpec:
    """Derive the specification from the definition."""
    if family not in _INPUTS:
        raise UsageError(
            f"the family {repr(family) if family else 'of this Caffe model'} is unknown; set "
            f"`family`, which decides mean and scale of the input, to {' or '.join(_INPUTS)}"
        )
    parameters = end.detection_output_param
    coding = enum_name(parameters, "code_type")
    if coding != "CENTER_SIZE" or not parameters.share_location:
        raise layer_error(
            end, f"codes boxes as {coding}; only shared CENTER_SIZE boxes are supported"
        )
    if not priors.prior_boxes:
        raise layer_error(end, "has default boxes that do not come from PriorBox layers")
    encoded = parameters.variance_encoded_in_target
    mean, scale = _INPUTS[family]
    height, width = image.shape[2:]
    classes = scores.shape[2]
    return ModelSpec(
        name=definition.name or family,
        input=InputSpec(width, height, "BGR", mean, (scale,) * 3),
        boxes=join_prior_boxes(priors.prior_boxes),
        labels=_LABELS.get(classes) or class_names.numbered_labels(classes),
        variances=(1.0,) * 4 if encoded else common_variances(priors.prior_boxes),
        activation=cast(Activation, scores.activation),
        background=parameters.background_label_id,
        thresholds=_thresholds(parameters),
        description=f"SSD{width} converted from Caffe ({family}, {classes} score columns)",
    )


def _thresholds(parameters: Message) -> Thresholds:
    """Read thresholds and limits; a lower score than the default clutters crowded pictures."""
    defaults, nms = Thresholds(), parameters.nms_param
    thresholds = replace(
        defaults,
        score_threshold=max(parameters.confidence_threshold, defaults.score_threshold),
        iou_threshold=(
            nms.nms_threshold if nms.HasField("nms_threshold") else defaults.iou_threshold
        ),
    )
    limits = {"pre_nms_top_k": nms.top_k, "max_detections": parameters.keep_top_k}
    return replace(thresholds, **{key: value for key, value in limits.items() if value > 0})
