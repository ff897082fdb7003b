"""What goes into an import and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from realtime_ssd.core.spec import ModelSpec

__all__ = ["ImportOptions", "Imported"]


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the user tells about a model beyond its file; None where nothing is told.

    Attributes:
        definition: Network definition (prototxt) of a Caffe model.
        family: Name of the kind of model where the file leaves it open.
        labels: Text file of class names, one a line.
        anchors: Default boxes (.npy or .json, P × 4, fractions of the image), in the order of
            the model's offsets.
        spec: JSON file with fields of `ModelSpec` that replace what was recognised.
        overwrite: Whether an existing output is replaced.
    """

    definition: Path | None = None
    family: str | None = None
    labels: Path | None = None
    anchors: Path | None = None
    spec: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """What was written.

    Attributes:
        spec: The contract inside the file.
        path: The file.
        family: The kind of model that was recognised.
        dynamic_batch: Whether the file takes any batch size; if not, it takes 1.
    """

    spec: ModelSpec
    path: Path
    family: str
    dynamic_batch: bool
