"""Options and result of an import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from realtime_ssd.core.spec import ModelSpec

__all__ = ["ImportOptions", "ImportResult"]


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the file of a model does not contain; None for what need not be specified.

    Attributes:
        prototxt: Network definition of a Caffe model.
        family: Kind of model, if its file is ambiguous.
        labels: Text file of class names, one per line.
        anchors: Default boxes (.npy or .json, P × 4, fractions of the image), in the order of
            the model's offsets.
        spec: JSON file with fields of `ModelSpec` that override the recognized ones.
        overwrite: Whether to replace an existing output.
        keep_quantized: Whether a quantized TFLite network computes with its 8-bit integers (Q/DQ
            nodes) instead of FP32.
        trust_model: Whether to run an ONNX graph with operators or sizes that SSDs do not need.
    """

    prototxt: Path | None = None
    family: str | None = None
    labels: Path | None = None
    anchors: Path | None = None
    spec: Path | None = None
    overwrite: bool = False
    keep_quantized: bool = False
    trust_model: bool = False


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The file that an import wrote.

    Attributes:
        spec: The specification in the file.
        path: The file.
        family: The recognized kind of model.
        dynamic_batch: Whether the file accepts any batch size; otherwise only 1.
        labels_origin: Where the class names come from; empty if the kind of model implies them.
    """

    spec: ModelSpec
    path: Path
    family: str
    dynamic_batch: bool
    labels_origin: str = ""
