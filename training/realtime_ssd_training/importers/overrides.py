"""What the user says about a model, laid over what was recognised."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import ModelSpec, spec_from_json, spec_to_json
from realtime_ssd_training.importers.labels import read_labels
from realtime_ssd_training.importers.options import ImportOptions

__all__ = ["apply", "read_anchors", "read_fields"]


def apply(spec: ModelSpec, options: ImportOptions) -> ModelSpec:
    """Replace what the user gave by file: fields of the specification, anchors and labels.

    Raises:
        UsageError: If a file cannot be read or does not fit the model.
    """
    if options.spec is not None:
        spec = _merge(spec, options.spec)
    if options.anchors is not None:
        spec = _with_anchors(spec, read_anchors(options.anchors))
    if options.labels is not None:
        spec = replace(spec, labels=read_labels(options.labels, spec.num_classes))
    return spec


def _with_anchors(spec: ModelSpec, boxes: NDArray[np.float32]) -> ModelSpec:
    """Put default boxes into a contract; having some, the model's boxes are offsets."""
    if spec.coding == "yxhw":
        boxes = boxes[:, [1, 0, 3, 2]]
    coding = "xywh" if spec.coding == "corners" else spec.coding
    return replace(spec, boxes=AnchorSpec.from_array(boxes), coding=coding)


def read_anchors(path: Path) -> NDArray[np.float32]:
    """Read default boxes from a .npy or .json file.

    Returns:
        P × 4 float32 in the file's order.

    Raises:
        UsageError: If the file cannot be read or holds anything but P × 4 finite numbers.
    """
    try:
        if path.suffix.lower() == ".json":
            boxes = np.array(json.loads(path.read_text(encoding="utf-8")), np.float32)
        else:
            boxes = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"the anchors file '{path}' cannot be read: {error}") from error
    boxes = boxes.reshape(boxes.shape[-2:]) if boxes.ndim == 3 and len(boxes) == 1 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise UsageError(
            f"the anchors file '{path}' has shape {boxes.shape}; give P × 4 finite numbers, centre "
            "and size as fractions of the image"
        )
    return boxes


def read_fields(path: Path) -> dict[str, Any]:
    """Read the fields of a specification from a JSON file.

    Raises:
        UsageError: If the file holds no JSON object.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the specification file '{path}' cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise UsageError(f"the specification file '{path}' must hold a JSON object")
    return given


def _merge(spec: ModelSpec, path: Path) -> ModelSpec:
    """Replace the fields of a specification that a JSON file names."""
    given = read_fields(path)
    if "boxes" in given and spec.coding == "corners":
        given.setdefault("coding", "xywh")
    merged = _overlay(json.loads(spec_to_json(spec)), given)
    try:
        return spec_from_json(json.dumps(merged))
    except ModelError as error:
        raise UsageError(f"the specification file '{path}' does not fit: {error}") from error


def _overlay(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Lay one JSON object over another, objects inside objects too."""
    result = dict(base)
    for key, value in given.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _overlay(result[key], value) if nested else value
    return result
