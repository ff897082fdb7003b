"""YOLO label files: one row per object, all values as fractions of the image."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from realtime_ssd_training.data.file_dataset import Box, RawObject, drop_duplicates

__all__ = ["label_file", "read_labels"]

_MAX_FRACTION = 1.5
"""Largest value accepted as a fraction; boxes may extend far outside their image."""


def label_file(image: Path) -> Path | None:
    """Return the label file of an image: in the parallel tree `labels`, or next to the image.

    Args:
        image: Image file.

    Returns:
        The file, or None if there is none.
    """
    sibling = image.with_suffix(".txt")
    parts = sibling.parts
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        parallel = Path(*parts[:last], "labels", *parts[last + 1 :])
        if parallel.is_file():
            return parallel
    return sibling if sibling.is_file() else None


def read_labels(
    path: Path, names: Mapping[int, str], pose: bool = False
) -> tuple[list[RawObject], list[str]]:
    """Read a label file.

    Args:
        path: The file.
        names: Class names by number; a number without a name becomes "class NUMBER".
        pose: Whether keypoints follow the box in each row.

    Returns:
        The objects, boxes as fractions of the image, and descriptions of what was skipped.

    Raises:
        ValueError: If the file is not text.
    """
    try:
        rows = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ValueError("the label file cannot be read as text") from None
    objects: list[RawObject] = []
    defects: dict[str, list[int]] = {}
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        try:
            objects.append(_parse_row(row.split(), names, pose))
        except ValueError as error:
            defects.setdefault(str(error), []).append(number)
    kept, dropped = drop_duplicates(objects)
    problems = [
        f"{len(numbers)} rows {defect}, first in line {numbers[0]}; they were skipped"
        for defect, numbers in defects.items()
    ]
    return kept, problems + ([f"{dropped} duplicate rows were skipped"] if dropped else [])


def _parse_row(fields: list[str], names: Mapping[int, str], pose: bool) -> RawObject:
    polygon = len(fields) >= 7 and len(fields) % 2 == 1 and not pose
    if len(fields) != 5 and not polygon and not (pose and len(fields) > 5):
        raise ValueError("that are neither 'class cx cy width height' nor a polygon")
    try:
        number, *values = (float(field) for field in fields)
    except ValueError:
        raise ValueError("with values that are not numbers") from None
    if not all(isfinite(value) for value in (number, *values)):
        raise ValueError("with values that are not numbers")
    if not number.is_integer() or number < 0:
        raise ValueError("without a class number at the start")
    values = values if polygon else values[:4]
    if any(value > _MAX_FRACTION for value in values):
        raise ValueError("with values far above 1, although boxes are fractions and not pixels")
    label = names.get(int(number), f"class {int(number)}")
    return RawObject(label, _bounding_box(values) if polygon else _corners(values))


def _corners(values: list[float]) -> Box:
    x, y, width, height = values
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _bounding_box(polygon: list[float]) -> Box:
    xs, ys = polygon[::2], polygon[1::2]
    return min(xs), min(ys), max(xs), max(ys)
