"""Label files of YOLO data sets: one row an object, all values fractions of the image."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from realtime_ssd_training.data.files import RawObject, distinct

__all__ = ["label_file", "read_labels"]

_MOST = 1.5
"""Largest value that may still be a fraction, of a box that reaches far outside its image."""


def label_file(image: Path) -> Path | None:
    """Find the label file of an image: in the parallel tree `labels`, or beside the image.

    Args:
        image: Image file.

    Returns:
        The file, or None if there is none.
    """
    beside = image.with_suffix(".txt")
    parts = beside.parts
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        apart = Path(*parts[:last], "labels", *parts[last + 1 :])
        if apart.is_file():
            return apart
    return beside if beside.is_file() else None


def read_labels(
    path: Path, names: Mapping[int, str], pose: bool = False
) -> tuple[list[RawObject], list[str]]:
    """Read a label file.

    Args:
        path: The file.
        names: Class names by number; a number without a name is "class NUMBER".
        pose: Whether rows go on with key points after the box.

    Returns:
        The objects, boxes as fractions of the image, and what was skipped.

    Raises:
        ValueError: If the file is no text.
    """
    try:
        rows = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ValueError("the label file cannot be read as text") from None
    objects: list[RawObject] = []
    faults: dict[str, list[int]] = {}
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        try:
            objects.append(_object(row.split(), names, pose))
        except ValueError as error:
            faults.setdefault(str(error), []).append(number)
    kept, twice = distinct(objects)
    told = [f"{len(at)} rows {text}, first line {at[0]}; skipped" for text, at in faults.items()]
    return kept, told + ([f"{twice} rows given twice were skipped"] if twice else [])


def _object(words: list[str], names: Mapping[int, str], pose: bool) -> RawObject:
    polygon = len(words) >= 7 and len(words) % 2 == 1 and not pose
    if len(words) != 5 and not polygon and not (pose and len(words) > 5):
        raise ValueError("are neither 'class cx cy width height' nor a polygon")
    try:
        kind, *values = (float(word) for word in words)
    except ValueError:
        raise ValueError("hold words that are no numbers") from None
    if not all(isfinite(value) for value in (kind, *values)):
        raise ValueError("hold words that are no numbers")
    if not kind.is_integer() or kind < 0:
        raise ValueError("begin with no class number")
    values = values if polygon else values[:4]
    if any(value > _MOST for value in values):
        raise ValueError("hold values far above 1, though boxes are fractions and not pixels")
    label = names.get(int(kind), f"class {int(kind)}")
    return RawObject(label, _around(values) if polygon else _corners(values))


def _corners(values: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = values
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _around(values: list[float]) -> tuple[float, float, float, float]:
    xs, ys = values[::2], values[1::2]
    return min(xs), min(ys), max(xs), max(ys)
