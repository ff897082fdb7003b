"""Import of SSDs in ONNX: the specification comes from the family, the graph or a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError
from realtime_ssd.core.spec import METADATA_KEY, InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.importers import onnx_graph, tensorflow_spec, ultralight_spec
from realtime_ssd_training.importers.class_names import numbered_labels
from realtime_ssd_training.importers.import_options import ImportOptions, ImportResult
from realtime_ssd_training.importers.label_choice import choose_labels
from realtime_ssd_training.importers.onnx_decoding import Decoding, check_corners, find_decoding
from realtime_ssd_training.importers.onnx_graph import Model
from realtime_ssd_training.importers.onnx_heads import Heads, describe_interface, find_heads
from realtime_ssd_training.importers.onnx_pipeline import Network, extract_network, has_pipeline
from realtime_ssd_training.importers.onnx_writer import random_images, write_model
from realtime_ssd_training.importers.spec_overrides import (
    apply_overrides,
    check_anchors,
    read_fields,
)

__all__ = ["families", "import_model", "recognize"]

QUANTIZED_LEVELS = 256
TENSORFLOW_ROUNDING = 0.00645306
BOX_TOLERANCE = 1e-5
VGG_BOXES = 8732
SPEC_FILE = "spec"  # family of a model that a specification file describes


def import_model(path: Path, output: Path, options: ImportOptions) -> ImportResult:
    """Import an ONNX file; see `realtime_ssd_training.importers`."""
    model = onnx_graph.load(path, trust_model=options.trust_model, unchecked=True)
    network = extract_network(model, path) if has_pipeline(model) else None
    if network is not None:
        model = network.model
    elif not options.trust_model:
        onnx_graph.check(model, path)
    heads = find_heads(model, path)
    decoding = find_decoding(model, heads.offsets, heads.num_boxes, heads.width, heads.height)
    scaled = network if network is not None and network.is_scaled else None
    family = options.family or recognize(heads, decoding, scaled)
    family = family or (SPEC_FILE if options.spec else "")
    spec = _describe(family, heads, model, path, options)
    if scaled is not None:
        spec = replace(spec, input=scaled.input_spec(heads.width, heads.height))
    labels, origin = choose_labels(path, spec, options)
    spec = replace(spec, labels=labels)
    if decoding is not None:
        spec = _with_decoding(spec, decoding)
        check_anchors(options, spec)
    spec = apply_overrides(spec, options)
    if spec.coding == "corners":
        _check_decoded(model, heads, spec)
    raw_model = _extract_heads(model, heads, decoding, spec)
    dynamic_batch = write_model(raw_model, spec, output)
    return ImportResult(spec, output, family, dynamic_batch, origin)


def _extract_heads(model: Model, heads: Heads, decoding: Decoding | None, spec: ModelSpec) -> Model:
    """Reduce a graph to its raw heads, with the names in the specification."""
    offsets = decoding.offsets if decoding else heads.offsets
    part = onnx_graph.extract(
        model,
        {},
        {heads.scores: (1, heads.num_boxes, heads.num_classes), offsets: (1, heads.num_boxes, 4)},
    )
    onnx_graph.rename(part, heads.scores, spec.scores_output)
    onnx_graph.rename(part, offsets, spec.offsets_output)
    onnx_graph.rename(part, heads.image.name, spec.input.name)
    return part


def families() -> tuple[str, ...]:
    """Return the values of `family` for ONNX files."""
    return tuple(_FAMILIES)


def recognize(
    heads: Heads, decoding: Decoding | None = None, network: Network | None = None
) -> str:
    """Return the family of a graph; empty if none is known.

    TensorFlow's detector is recognized by its sizes and names, because other detectors have 1917
    default boxes too; that of jetson-inference by its names and the default boxes inside.

    Args:
        heads: Heads of the graph.
        decoding: The decoding inside the graph.
        network: The larger graph that scales the images itself.
    """
    if network is not None and decoding is not None and decoding.coding == "yxhw":
        return "tensorflow"
    if (heads.width, heads.height, heads.num_boxes) == (300, 300, 1917) and (
        "encoding" in heads.offsets
    ):
        return "tensorflow"
    face_boxes = ultralight_spec.face_boxes(heads.width, heads.height).count
    if (heads.num_boxes, heads.num_classes) == (face_boxes, 2):
        return "ultralight"
    names = {heads.image.name, heads.scores, heads.offsets}
    if decoding is not None and names == {"input_0", "scores", "boxes"}:
        return "jetson"
    return ""


def _describe(
    family: str, heads: Heads, model: Model, path: Path, options: ImportOptions
) -> ModelSpec:
    """Return the specification of a family for these heads."""
    if family in _FAMILIES:
        return _FAMILIES[family](heads, model)
    if family == SPEC_FILE:
        return _described_by_file(heads, path, options)
    if family:
        known = ", ".join(_FAMILIES)
        raise UsageError(f"`family` '{family}' is unknown for ONNX files; choose from {known}")
    raise _unknown_family(heads, model, path)


def _unknown_family(heads: Heads, model: Model, path: Path) -> RealtimeSSDError:
    if any(item.key == METADATA_KEY for item in model.metadata_props):
        return UsageError(f"'{path}' needs no import: use it as `model` directly")
    return ModelError(
        f"{describe_interface(model, path)}, heads of {heads.num_boxes} default boxes and "
        f"{heads.num_classes} classes of an unknown family; set `family` "
        f"({', '.join(_FAMILIES)}), or describe the model in a JSON file as `spec` ('input' with "
        "channels, mean and scale) and, for raw offsets, in a file as `anchors`"
    )


def _described_by_file(heads: Heads, path: Path, options: ImportOptions) -> ModelSpec:
    """Return the initial specification of a model that a specification file completes."""
    fields = read_fields(options.spec).get("input") if options.spec else None
    if not isinstance(fields, dict) or not {"channels", "mean", "scale"} <= fields.keys():
        raise UsageError(
            f"the `spec` file '{options.spec}' must contain, in 'input', the channels ('RGB' or "
            "'BGR'), the mean and the scale (three numbers each) that the model was trained with"
        )
    return ModelSpec(
        name=path.stem,
        input=InputSpec(heads.width, heads.height),
        boxes=AnchorSpec(),
        labels=numbered_labels(heads.num_classes),
        coding="corners",
        activation="none" if heads.has_activation else "softmax",
    )


def _with_decoding(spec: ModelSpec, decoding: Decoding) -> ModelSpec:
    """Use boxes and variances of the graph; an equal anchor specification is kept."""
    boxes = AnchorSpec.from_array(decoding.default_boxes)
    if spec.num_boxes == boxes.count:
        difference = np.abs(spec.boxes.boxes() - decoding.default_boxes).max()
        boxes = spec.boxes if difference < BOX_TOLERANCE else boxes
    return replace(spec, boxes=boxes, variances=decoding.variances, coding=decoding.coding)


def _check_decoded(model: Model, heads: Heads, spec: ModelSpec) -> None:
    """Reject raw offsets where boxes are expected."""
    images = random_images(spec.input, 1)
    (boxes,) = onnx_graph.run(model, {heads.image.name: images}, [heads.offsets])
    check_corners(boxes[0], heads.offsets)


def _tensorflow(heads: Heads, model: Model) -> ModelSpec:
    """Describe TensorFlow's detector, whose anchors are rounded if it was quantized."""
    rounding = TENSORFLOW_ROUNDING if _was_quantized(model) else 0.0
    spec = tensorflow_spec.mobilenet_spec(heads.has_activation, rounding)
    if heads.num_classes == spec.num_classes:
        return spec
    return replace(
        spec,
        name="ssd_mobilenet_v1_tensorflow",
        labels=numbered_labels(heads.num_classes),
        description=f"SSD of TensorFlow's object-detection models, {heads.num_classes - 1} classes",
    )


def _jetson(heads: Heads, _: Model) -> ModelSpec:
    """Describe a detector that jetson-inference exported, which has its default boxes inside."""
    vgg = heads.num_boxes == VGG_BOXES
    mean, scale = ((123.0, 117.0, 104.0), 1.0) if vgg else ((127.0,) * 3, 1 / 128)
    return ModelSpec(
        name="ssd_jetson",
        input=InputSpec(heads.width, heads.height, "RGB", mean, (scale,) * 3),
        boxes=AnchorSpec(),
        labels=numbered_labels(heads.num_classes),
        coding="corners",
        activation="none" if heads.has_activation else "softmax",
        thresholds=Thresholds(pre_nms_top_k=200, max_detections=200),
        description="SSD trained with jetson-inference",
    )


def _was_quantized(model: Model) -> bool:
    """Return whether every large weight tensor has at most 256 distinct values."""
    large = [
        onnx_graph.to_array(item) for item in model.graph.initializer if np.prod(item.dims) > 10_000
    ]
    return bool(large) and all(len(np.unique(item)) <= QUANTIZED_LEVELS for item in large)


def _ultralight(heads: Heads, _: Model) -> ModelSpec:
    return ultralight_spec.face_spec(heads.width, heads.height, heads.has_activation)


_FAMILIES: dict[str, Callable[[Heads, Model], ModelSpec]] = {
    "jetson": _jetson,
    "tensorflow": _tensorflow,
    "ultralight": _ultralight,
}
