"""`open_dataset`: one text specifies the format and the location of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.extras import require
from realtime_ssd_training.data.classes import ClassSelection
from realtime_ssd_training.data.coco import read_coco
from realtime_ssd_training.data.csv_table import read_csv
from realtime_ssd_training.data.demo import DemoScenes, read_demo
from realtime_ssd_training.data.file_dataset import build_dataset
from realtime_ssd_training.data.raw_dataset import RawDataset
from realtime_ssd_training.data.sample import Dataset
from realtime_ssd_training.data.voc import read_voc
from realtime_ssd_training.data.yolo import has_yaml, read_yolo

__all__ = ["AnnotationSource", "build", "open_dataset", "read_annotations", "required_packages"]

AnnotationSource = RawDataset | DemoScenes
"""Annotations of a dataset before its images are opened."""

_FORMS = (
    "coco:ANNOTATIONS.json:IMAGES, voc:ROOT[:SPLIT], yolo:DIR[:SPLIT], csv:FILE[:IMAGES[:SPLIT]] "
    "or demo[:FIRST-LAST[:WIDTHxHEIGHT]]"
)
_PACKAGES: dict[str, tuple[str, ...]] = {
    "coco": ("PIL",),
    "csv": ("PIL",),
    "voc": ("PIL", "defusedxml"),
    "yolo": ("PIL",),
}


def required_packages(text: str) -> tuple[str, ...]:
    """Return the import names of the packages that opening a dataset requires.

    Args:
        text: Specification of the dataset; see `open_dataset`.
    """
    kind, *parts = _split(text)
    packages = _PACKAGES.get(kind, ())
    if kind == "yolo" and parts and has_yaml(Path(parts[0])):
        packages += ("yaml",)
    return packages


def open_dataset(
    text: str,
    labels: Sequence[str] | None = None,
    remap: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Open a dataset.

    Args:
        text: "coco:ANNOTATIONS.json:IMAGES", "voc:ROOT[:SPLIT]", "yolo:DIR[:SPLIT]",
            "csv:FILE[:IMAGES[:SPLIT]]" or "demo[:FIRST-LAST[:WIDTHxHEIGHT]]"; `read_coco`,
            `read_voc`, `read_yolo`, `read_csv` and `read_demo` describe the formats. The image
            folder of coco and csv defaults to the folder of the file; voc, yolo and csv without a
            split read all images.
        labels: Class names, "background" first; objects of other classes are skipped and
            reported. None uses the classes of the dataset.
        remap: New names of classes, applied first.
        classes: Names of the classes to keep; None keeps all.

    Raises:
        UsageError: If the text, a file or a class is invalid.
        RealtimeSSDError: If a package of the extra `train` is missing.

    Example:
        >>> data = open_dataset("voc:VOCdevkit/VOC2007:trainval", classes=["car", "person"])
        >>> data.labels
        ('background', 'car', 'person')
    """
    return build(read_annotations(text), ClassSelection(labels, remap or {}, classes))


def build(source: AnnotationSource, selection: ClassSelection) -> Dataset:
    """Open the images of a dataset whose annotations have been read.

    Raises:
        UsageError: If a selected class does not exist or no image is usable.
    """
    if isinstance(source, DemoScenes):
        return source.build(selection)
    return build_dataset(source, selection)


def read_annotations(text: str) -> AnnotationSource:
    """Read the annotations of a dataset without opening its images; see `open_dataset`.

    Raises:
        UsageError: If the text or a file is invalid.
        RealtimeSSDError: If a package of the extra `train` is missing.
    """
    try:
        return _read_annotations(text)
    except OSError as error:  # a name in an annotation file that the system refuses
        raise UsageError(f"dataset '{text}' cannot be read: {error.strerror}") from None


def _read_annotations(text: str) -> AnnotationSource:
    kind, *parts = _split(text)
    first, second, third = (*parts, "", "", "")[:3]
    if kind == "demo" and len(parts) <= 2:
        return read_demo(text, first, second)
    if first and len(parts) <= (3 if kind == "csv" else 2):
        require("train", *required_packages(text), purpose=f"reading '{text}'")
        path = Path(first)
        if kind == "coco":
            return read_coco(text, path, Path(second) if second else path.parent)
        if kind == "csv":
            return read_csv(text, path, Path(second) if second else path.parent, third)
        if kind == "voc":
            return read_voc(text, path, second)
        if kind == "yolo":
            return read_yolo(text, path, second)
    raise UsageError(f"'{text}' does not specify a dataset; write {_FORMS}")


def _split(text: str) -> list[str]:
    r"""Split at colons, except after drive letters: "coco:C:\a.json:D:\images" has three parts."""
    parts: list[str] = []
    for piece in text.split(":"):
        drive = len(parts) > 1 and len(parts[-1]) == 1 and parts[-1].isalpha()
        if drive and piece[:1] in ("/", "\\"):
            parts[-1] += f":{piece}"
        else:
            parts.append(piece)
    return parts
