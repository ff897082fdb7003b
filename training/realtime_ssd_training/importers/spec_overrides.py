"""Overrides of a recognized specification: fields, default boxes and labels from files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.errors import ModelError, UsageError, first_line
from realtime_ssd.core.spec import ModelSpec, spec_from_json, spec_to_json
from realtime_ssd.core.spec_decoder import MAX_BOXES, array, number, parse_json, parse_object
from realtime_ssd_training.importers.class_names import read_labels
from realtime_ssd_training.importers.import_options import ImportOptions

_JSON_BOXES = array(array(number(-100, 100), 4, 4), 1, MAX_BOXES)

__all__ = ["apply_overrides", "check_anchors", "read_anchors", "read_fields"]

ANCHOR_TOLERANCE = 1e-3


def apply_overrides(spec: ModelSpec, options: ImportOptions) -> ModelSpec:
    """Return a specification with the fields, anchors and labels of the user's files.

    Raises:
        UsageError: If a file cannot be read or does not fit the model.
    """
    fields = read_fields(options.spec) if options.spec is not None else {}
    if options.anchors is not None:
        coding = fields.get("coding", spec.coding)
        spec = _with_anchors(spec, read_anchors(options.anchors), str(coding))
    if options.spec is not None:
        spec = _merge(spec, fields, options.spec)
    if options.labels is not None:
        background = spec.background is not None
        labels = read_labels(options.labels, spec.num_classes, background=background)
        spec = replace(spec, labels=labels)
    return spec


def _with_anchors(spec: ModelSpec, boxes: NDArray[np.float32], coding: str) -> ModelSpec:
    """Set the default boxes; with default boxes, the model's boxes are offsets, not corners."""
    if coding == "yxhw":
        boxes = boxes[:, [1, 0, 3, 2]]
        return replace(spec, boxes=AnchorSpec.from_array(boxes), coding="yxhw")
    return replace(spec, boxes=AnchorSpec.from_array(boxes), coding="xywh")


def check_anchors(options: ImportOptions, spec: ModelSpec) -> None:
    """Refuse default boxes of the user that differ from those inside a graph.

    Args:
        options: The user's options.
        spec: Specification with the default boxes of the graph.

    Raises:
        UsageError: If they differ.
    """
    if options.anchors is None:
        return
    boxes, actual = read_anchors(options.anchors), spec.boxes.boxes()
    if spec.coding == "yxhw":
        boxes = boxes[:, [1, 0, 3, 2]]
    if boxes.shape != actual.shape or np.abs(boxes - actual).max() > ANCHOR_TOLERANCE:
        raise UsageError(
            f"the `anchors` in '{options.anchors}' differ from the {len(actual)} default boxes "
            "inside the graph, which its weights were trained with; omit `anchors`"
        )


def read_anchors(path: Path) -> NDArray[np.float32]:
    """Read default boxes from a .npy or .json file.

    Returns:
        P × 4 float32 in the order of the file.

    Raises:
        UsageError: If the file cannot be read or does not contain P × 4 finite numbers.
    """
    try:
        if path.suffix.lower() == ".json":
            boxes = _boxes_of_json(path.read_text(encoding="utf-8"))
        else:
            boxes = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError, TypeError, AttributeError, EOFError, MemoryError) as error:
        raise UsageError(
            f"the `anchors` file '{path}' cannot be read: {first_line(error)}"
        ) from error
    boxes = boxes[0] if boxes.ndim == 3 and len(boxes) == 1 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise UsageError(
            f"the `anchors` file '{path}' has shape {boxes.shape}; P × 4 finite numbers are "
            "expected, center and size as fractions of the image"
        )
    return boxes


def _boxes_of_json(text: str) -> NDArray[np.float32]:
    content = parse_json(text)
    if isinstance(content, list) and len(content) == 1:  # 1 × P × 4
        content = content[0]
    return np.array(_JSON_BOXES("boxes", content), np.float32)


def read_fields(path: Path) -> dict[str, Any]:
    """Read fields of a specification from a JSON file.

    Raises:
        UsageError: If the file does not contain a JSON object.
    """
    try:
        return parse_object(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the `spec` file '{path}' cannot be read: {error}") from error


def _merge(spec: ModelSpec, fields: dict[str, Any], path: Path) -> ModelSpec:
    """Replace fields of a specification by those of a JSON file."""
    if "boxes" in fields and spec.coding == "corners":
        fields = {"coding": "xywh", **fields}
    merged = _merge_objects(json.loads(spec_to_json(spec)), fields)
    try:
        return spec_from_json(json.dumps(merged))
    except ModelError as error:
        raise UsageError(f"the `spec` file '{path}' does not fit: {error}") from error


def _merge_objects(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Merge two JSON objects recursively."""
    merged = dict(base)
    for key, value in override.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge_objects(merged[key], value) if nested else value
    return merged
