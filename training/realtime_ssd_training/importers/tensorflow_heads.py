"""Conversion of a TensorFlow graph up to its heads, and the file that is written from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import Coding, InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.importers.class_names import COCO_91, numbered_labels
from realtime_ssd_training.importers.import_options import ImportOptions, ImportResult
from realtime_ssd_training.importers.nhwc_graph import Value
from realtime_ssd_training.importers.onnx_graph import extract, rename
from realtime_ssd_training.importers.onnx_writer import write_model
from realtime_ssd_training.importers.spec_overrides import apply_overrides
from realtime_ssd_training.importers.tensorflow_graph import GraphConverter
from realtime_ssd_training.importers.tensorflow_labels import find_label_map

__all__ = ["Heads", "write_heads"]


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """Where a graph has what post-processing needs.

    Attributes:
        offsets: Tensor of raw offsets.
        scores: Tensor of scores.
        activation: "sigmoid", "softmax" or "none".
        boxes: Default boxes.
        variances: Factors of the offsets of cx, cy, w, h.
        background: Column of the background, None if there is none.
        thresholds: Limits of the graph's own post-processing.
        coding: Order of the four offsets.
        family: Kind of model.
    """

    offsets: str
    scores: str
    activation: str
    boxes: AnchorSpec
    variances: tuple[float, float, float, float]
    background: int | None
    thresholds: Thresholds
    coding: Coding = "yxhw"
    family: str = "tensorflow"


def write_heads(
    converter: GraphConverter,
    pixels: Value,
    heads: Heads,
    image: InputSpec,
    path: Path,
    output: Path,
    options: ImportOptions,
) -> ImportResult:
    """Convert the network up to its heads and write it with its specification."""
    offsets, scores = converter.convert(heads.offsets), converter.convert(heads.scores)
    offsets = _as_rows(converter, offsets, heads.boxes.count)
    scores = _as_rows(converter, scores, heads.boxes.count)
    columns = scores.shape[2]
    labels, origin = _labels(path, columns, heads, options)
    spec = ModelSpec(
        name=output.stem,
        input=image,
        boxes=heads.boxes,
        labels=labels,
        variances=heads.variances,
        coding=heads.coding,
        activation=heads.activation,  # type: ignore[arg-type]
        background=heads.background,
        thresholds=heads.thresholds,
        description=f"SSD {image.width}x{image.height} converted from TensorFlow",
    )
    spec = apply_overrides(spec, options)
    model = converter.build(pixels, [scores, offsets])
    rename(model, pixels.name, spec.input.name)
    rename(model, scores.name, spec.scores_output)
    rename(model, offsets.name, spec.offsets_output)
    shapes = {spec.scores_output: scores.shape, spec.offsets_output: offsets.shape}
    dynamic_batch = write_model(extract(model, {}, shapes), spec, output)
    return ImportResult(spec, output, heads.family, dynamic_batch, origin)


def _as_rows(converter: GraphConverter, value: Value, rows: int) -> Value:
    """Reshape a head to 1 × P × columns."""
    columns, rest = divmod(int(np.prod(value.shape)), rows)
    if rest:
        raise ModelError(
            f"the heads of the TensorFlow graph have {int(np.prod(value.shape))} values, which do "
            f"not fit its {rows} default boxes"
        )
    shape = (1, rows, columns)
    target = converter.constant(np.array(shape, np.int64))
    return Value(shape, converter.add("Reshape", [converter.same_order(value), target]))


def _labels(
    path: Path, columns: int, heads: Heads, options: ImportOptions
) -> tuple[tuple[str, ...], str]:
    """Return the labels, and where they come from."""
    background = heads.background
    if options.labels is not None:
        return numbered_labels(columns, background=background is not None), str(options.labels)
    file = find_label_map(path, columns, background)
    if file is not None:
        return file
    if heads.family == "opencv-face":
        return ("background", "face"), ""
    if columns == len(COCO_91):
        return COCO_91, "the COCO classes, assumed from the 91 score columns"
    labels = numbered_labels(columns, background=background is not None)
    return labels, "numbered, since no label map was found"
