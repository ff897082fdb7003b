"""Import of SSDs that are ONNX already: contract by family, by the graph itself or by file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError
from realtime_ssd.core.spec import METADATA_KEY, InputSpec, ModelSpec
from realtime_ssd_training.importers import graph, tensorflow, ultralight
from realtime_ssd_training.importers.decoding import Decoding, check_corners, find_decoding
from realtime_ssd_training.importers.graph import Model
from realtime_ssd_training.importers.head_search import Heads, find_heads, found
from realtime_ssd_training.importers.labels import numbered
from realtime_ssd_training.importers.options import Imported, ImportOptions
from realtime_ssd_training.importers.overrides import apply, read_fields
from realtime_ssd_training.importers.saving import noise, save

__all__ = ["families", "import_model", "recognise"]

QUANTISED_LEVELS = 256
TENSORFLOW_ROUNDING = 0.00645306
SAME_BOXES = 1e-5
OWN = "spec"


def import_model(path: Path, output: Path, options: ImportOptions) -> Imported:
    """Import an ONNX file; see `realtime_ssd_training.importers.import_model`."""
    model = graph.load(path)
    heads = find_heads(model, path)
    decoding = find_decoding(model, heads.offsets, heads.boxes, heads.width, heads.height)
    family = options.family or recognise(heads) or (OWN if options.spec else "")
    spec = _describe(family, heads, model, path, options)
    spec = apply(_with_decoding(spec, decoding) if decoding else spec, options)
    if spec.coding == "corners":
        _check_decoded(model, heads, spec)
    cut = _raw(model, heads, decoding, spec)
    dynamic = save(cut, spec, output)
    return Imported(spec, output, family, dynamic)


def _raw(model: Model, heads: Heads, decoding: Decoding | None, spec: ModelSpec) -> Model:
    """Cut a graph down to its heads, named as the specification says."""
    offsets = decoding.offsets if decoding else heads.offsets
    cut = graph.extract(
        model,
        {},
        {heads.scores: (1, heads.boxes, heads.classes), offsets: (1, heads.boxes, 4)},
    )
    graph.rename(cut, heads.scores, spec.scores_output)
    graph.rename(cut, offsets, spec.offsets_output)
    graph.rename(cut, heads.image.name, spec.input.name)
    return cut


def families() -> tuple[str, ...]:
    """List the families an ONNX file may be said to be of."""
    return tuple(_FAMILIES)


def recognise(heads: Heads) -> str:
    """Name the family of a graph; empty if none is known.

    TensorFlow's detector is known by its sizes and by its names, because other detectors have
    1917 default boxes as well.
    """
    size = (heads.width, heads.height, heads.boxes, heads.classes)
    if size == (300, 300, 1917, 91) and "encoding" in heads.offsets:
        return "tensorflow"
    faces = ultralight.face_boxes(heads.width, heads.height).count
    if (heads.boxes, heads.classes) == (faces, 2):
        return "ultralight"
    return ""


def _describe(
    family: str, heads: Heads, model: Model, path: Path, options: ImportOptions
) -> ModelSpec:
    """Give the contract of a family for these heads."""
    if family in _FAMILIES:
        return _FAMILIES[family](heads, model)
    if family == OWN:
        return _own(heads, path, options)
    if family:
        known = ", ".join(_FAMILIES)
        raise UsageError(f"there is no family '{family}' for ONNX files; choose from {known}")
    raise _unknown(heads, model, path)


def _unknown(heads: Heads, model: Model, path: Path) -> RealtimeSSDError:
    if any(item.key == METADATA_KEY for item in model.metadata_props):
        return UsageError(f"'{path}' needs no import: give it to --model as it is")
    return ModelError(
        f"{found(model, path)}, heads of {heads.boxes} default boxes and {heads.classes} classes "
        f"of no known family; name it with --family ({', '.join(_FAMILIES)}), or describe it with "
        "--spec FILE.json ('input' with channels, mean and scale) and, for raw offsets, "
        "--anchors FILE"
    )


def _own(heads: Heads, path: Path, options: ImportOptions) -> ModelSpec:
    """Start the contract of a model whose specification file says the rest."""
    given = read_fields(options.spec).get("input", {}) if options.spec else {}
    if not {"channels", "mean", "scale"} <= set(given):
        raise UsageError(
            f"the specification file '{options.spec}' must say in 'input' the channels ('RGB' or "
            "'BGR'), the mean and the scale (three numbers each) that the model was trained with"
        )
    return ModelSpec(
        name=path.stem,
        input=InputSpec(heads.width, heads.height),
        boxes=AnchorSpec(),
        labels=numbered(heads.classes),
        coding="corners",
        activation="none" if heads.activation_inside else "softmax",
    )


def _with_decoding(spec: ModelSpec, decoding: Decoding) -> ModelSpec:
    """Take boxes and variances from the graph; a recipe that gives the same boxes stays."""
    boxes = AnchorSpec.from_array(decoding.default_boxes)
    if spec.num_boxes == boxes.count:
        apart = np.abs(spec.boxes.boxes() - decoding.default_boxes).max()
        boxes = spec.boxes if apart < SAME_BOXES else boxes
    return replace(spec, boxes=boxes, variances=decoding.variances, coding=decoding.coding)


def _check_decoded(model: Model, heads: Heads, spec: ModelSpec) -> None:
    """Refuse to take raw offsets for boxes."""
    images = noise(spec.input, 1)
    (boxes,) = graph.run(model, {heads.image.name: images}, [heads.offsets])
    check_corners(boxes[0], heads.offsets)


def _tensorflow(heads: Heads, model: Model) -> ModelSpec:
    """Describe TensorFlow's detector; weights of few values tell that it was quantised."""
    rounding = TENSORFLOW_ROUNDING if _was_quantised(model) else 0.0
    return tensorflow.mobilenet_spec(heads.activation_inside, rounding)


def _was_quantised(model: Model) -> bool:
    """Tell whether no large weight tensor has more values than eight bits can tell apart."""
    large = [graph.values(item) for item in model.graph.initializer if np.prod(item.dims) > 10_000]
    return bool(large) and all(len(np.unique(item)) <= QUANTISED_LEVELS for item in large)


def _ultralight(heads: Heads, _: Model) -> ModelSpec:
    return ultralight.face_spec(heads.width, heads.height, heads.activation_inside)


_FAMILIES: dict[str, Callable[[Heads, Model], ModelSpec]] = {
    "tensorflow": _tensorflow,
    "ultralight": _ultralight,
}
