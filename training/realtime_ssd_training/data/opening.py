"""One text names a data set: `open_dataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.classes import Selection
from realtime_ssd_training.data.coco import open_coco
from realtime_ssd_training.data.demo import open_demo
from realtime_ssd_training.data.sample import Dataset
from realtime_ssd_training.data.table import open_table
from realtime_ssd_training.data.voc import open_voc
from realtime_ssd_training.data.yolo import open_yolo

__all__ = ["open_dataset"]

_FORMS = (
    "coco:ANNOTATIONS.json:IMAGES, voc:ROOT[:SPLIT], yolo:DIR[:SPLIT], csv:FILE[:IMAGES] or "
    "demo[:FIRST-LAST[:WIDTHxHEIGHT]]"
)


def open_dataset(
    text: str,
    labels: Sequence[str] | None = None,
    remap: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
) -> Dataset:
    """Open the data set that a text names.

    Args:
        text: "coco:ANNOTATIONS.json:IMAGES", "voc:ROOT[:SPLIT]", "yolo:DIR[:SPLIT]",
            "csv:FILE[:IMAGES]" or "demo[:FIRST-LAST[:WIDTHxHEIGHT]]"; see `open_coco`, `open_voc`,
            `open_yolo`, `open_table` and `open_demo` for what each reads. Of coco and csv the
            images lie beside the file if no folder is named; voc and yolo without split take all
            images.
        labels: Class names, "background" first; objects of other classes are skipped and
            reported. None takes the classes of the data set.
        remap: New names of classes, applied first.
        only: Names of the classes to keep; None keeps all.

    Raises:
        UsageError: If the text, a file or a class does not fit.

    Example:
        >>> data = open_dataset("voc:VOCdevkit/VOC2007:trainval", only=["car", "person"])
        >>> data.labels
        ('background', 'car', 'person')
    """
    selection = Selection(labels, remap or {}, only)
    kind, *parts = _split(text)
    first, second = (*parts, "", "")[:2]
    if kind == "demo" and len(parts) <= 2:
        return open_demo(text, first, second, selection)
    if first and len(parts) <= 2:
        path = Path(first)
        if kind == "coco":
            return open_coco(text, path, Path(second) if second else path.parent, selection)
        if kind == "csv":
            return open_table(text, path, Path(second) if second else path.parent, selection)
        if kind == "voc":
            return open_voc(text, path, second, selection)
        if kind == "yolo":
            return open_yolo(text, path, second, selection)
    raise UsageError(f"'{text}' names no data set; write {_FORMS}")


def _split(text: str) -> list[str]:
    r"""Split at colons, but keep drive letters: "coco:C:\a.json:D:\images" has three parts."""
    parts: list[str] = []
    for piece in text.split(":"):
        drive = len(parts) > 1 and len(parts[-1]) == 1 and parts[-1].isalpha()
        if drive and piece[:1] in ("/", "\\"):
            parts[-1] += f":{piece}"
        else:
            parts.append(piece)
    return parts
