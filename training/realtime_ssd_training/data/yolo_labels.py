"""YOLO label files: one row per object, all values as fractions of the image."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from urllib.parse import unquote

from realtime_ssd_training.data.image_finder import plain_name
from realtime_ssd_training.data.raw_dataset import Box, RawObject, drop_duplicates, parse_number

__all__ = ["LabelFinder", "read_labels"]

_MAX_FRACTION = 1.5
"""Largest value accepted as a fraction; boxes may extend far outside their image."""

_NO_NUMBERS = "with values that are not numbers"
_NO_CLASS = "without a class number at the start"


class LabelFinder:
    """Locates label files: in the parallel tree `labels`, or next to the image.

    Names may be percent-encoded, as Label Studio writes them.
    """

    def __init__(self) -> None:
        self._decoded: dict[Path, dict[str, Path]] = {}

    def find(self, image: Path) -> Path | None:
        """Return the label file of an image, or None if there is none."""
        sibling = image.with_suffix(".txt")
        parts = sibling.parts
        candidates = [sibling]
        if "images" in parts[:-1]:
            last = len(parts) - 2 - parts[-2::-1].index("images")
            candidates.insert(0, Path(*parts[:last], "labels", *parts[last + 1 :]))
        for path in candidates:
            if path.is_file():
                return path
        found = (self._encoded(path) for path in candidates)
        return next((path for path in found if path is not None), None)

    def _encoded(self, path: Path) -> Path | None:
        """Return a file of the same folder whose decoded name is that of a path."""
        if path.parent not in self._decoded:
            self._decoded[path.parent] = {
                plain_name(unquote(item.name)): item for item in sorted(path.parent.glob("*.txt"))
            }
        names = self._decoded[path.parent]
        return names.get(plain_name(path.name)) or names.get(plain_name(unquote(path.name)))


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
            objects.append(_parse_row(_split_row(row), names, pose))
        except ValueError as error:
            defects.setdefault(str(error), []).append(number)
    kept, dropped = drop_duplicates(objects)
    problems = [
        f"{len(numbers)} rows {defect}, first in line {numbers[0]}; they were skipped"
        for defect, numbers in defects.items()
    ]
    return kept, problems + ([f"{dropped} duplicate rows were skipped"] if dropped else [])


def _split_row(row: str) -> list[str]:
    """Split a row at blanks, or at commas or semicolons where there is no blank."""
    for separator in (None, ";", ","):
        fields = [field.strip() for field in row.split(separator)]
        if len(fields) > 1:
            return fields
    return fields


def _parse_row(fields: list[str], names: Mapping[int, str], pose: bool) -> RawObject:
    polygon = len(fields) >= 7 and len(fields) % 2 == 1 and not pose
    if len(fields) != 5 and not polygon and not (pose and len(fields) > 5):
        raise ValueError("that are neither 'class cx cy width height' nor a polygon")
    try:
        values = [parse_number(field) for field in fields[1:]]
        label = _class_name(fields[0], names)
    except ValueError as error:
        raise ValueError(_NO_CLASS if error.args == (_NO_CLASS,) else _NO_NUMBERS) from None
    if not all(isfinite(value) for value in values):
        raise ValueError(_NO_NUMBERS)
    values = values if polygon else values[:4]
    if any(value > _MAX_FRACTION for value in values):
        raise ValueError("with values far above 1, although boxes are fractions and not pixels")
    return RawObject(label, _bounding_box(values) if polygon else _corners(values))


def _class_name(field: str, names: Mapping[int, str]) -> str:
    """Return the name of a class from its number, or from its name if it is not a number."""
    try:
        number = parse_number(field)
    except ValueError:
        if field in names.values():
            return field
        raise
    if not isfinite(number) or not number.is_integer() or number < 0:
        raise ValueError(_NO_CLASS)
    return names.get(int(number), f"class {int(number)}")


def _corners(values: list[float]) -> Box:
    x, y, width, height = values
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _bounding_box(polygon: list[float]) -> Box:
    xs, ys = polygon[::2], polygon[1::2]
    return min(xs), min(ys), max(xs), max(ys)
