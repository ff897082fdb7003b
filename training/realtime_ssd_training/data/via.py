"""Annotations of the VGG Image Annotator (VIA 1 and 2): a JSON project or a CSV export."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import cos, hypot, radians, sin
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.image_finder import ImageFinder
from realtime_ssd_training.data.raw_dataset import Box, RawDataset, RawImage, RawObject
from realtime_ssd_training.data.sample import Problem

__all__ = ["is_via", "is_via_header", "read_via_csv", "read_via_json"]

_METADATA = "_via_img_metadata"
_CLASS_ATTRIBUTES = ("class", "label", "name", "category", "type", "object", "class_name")
_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")


@dataclass(frozen=True, slots=True)
class _Region:
    file: str
    shape: Mapping[str, Any]
    attributes: Mapping[str, Any]


def is_via(content: Mapping[str, Any]) -> bool:
    """Return whether the content of a JSON file is a VIA project or its annotations."""
    items = content.get(_METADATA, content)
    return isinstance(items, dict) and any(
        isinstance(item, dict) and "filename" in item and "regions" in item
        for item in items.values()
    )


def is_via_header(header: Sequence[str]) -> bool:
    """Return whether the header of a CSV file is that of VIA."""
    return set(_COLUMNS) <= {cell.lower() for cell in header}


def read_via_json(
    name: str, path: Path, content: Mapping[str, Any], finder: ImageFinder
) -> RawDataset:
    """Read a VIA project (`_via_img_metadata`) or its exported annotations.

    Rectangles, polygons, circles and ellipses become boxes. The class is the attribute of the
    regions called class, label, name, category or type, or else the only one.

    Args:
        name: Specification the dataset is opened with.
        path: The JSON file.
        content: Its content.
        finder: Locates the images.

    Raises:
        UsageError: If it is unclear which attribute is the class.
    """
    files, regions = list[str](), list[_Region]()
    for item in content.get(_METADATA, content).values():
        if not isinstance(item, dict) or "filename" not in item:
            continue
        files.append(str(item["filename"]))
        listed = item.get("regions") or []
        for region in listed.values() if isinstance(listed, dict) else listed:
            shape, attributes = (
                _as_mapping(region.get(key) if isinstance(region, dict) else None)
                for key in ("shape_attributes", "region_attributes")
            )
            regions.append(_Region(files[-1], shape, attributes))
    return _build(name, path, files, regions, finder)


def read_via_csv(
    name: str, path: Path, rows: Iterable[Sequence[str]], finder: ImageFinder
) -> RawDataset:
    """Read the rows of a CSV file exported by VIA; see `read_via_json`.

    Args:
        name: Specification the dataset is opened with.
        path: The CSV file.
        rows: Its rows, the header first.
        finder: Locates the images.

    Raises:
        UsageError: If it is unclear which attribute is the class.
    """
    rows = list(rows)
    header = [cell.lower() for cell in rows[0]]
    columns = [header.index(column) for column in _COLUMNS]
    files, regions = list[str](), list[_Region]()
    for row in rows[1:]:
        if len(row) <= max(columns) or not row[columns[0]]:
            continue
        file, shape, attributes = (row[column] for column in columns)
        files.append(file)
        if shape.strip("{} "):
            regions.append(_Region(file, _parse(shape), _parse(attributes)))
    return _build(name, path, files, regions, finder)


def _parse(text: str) -> Mapping[str, Any]:
    try:
        return _as_mapping(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _build(
    name: str,
    path: Path,
    files: Sequence[str],
    regions: Sequence[_Region],
    finder: ImageFinder,
) -> RawDataset:
    attribute = _class_attribute(regions, path)
    problems: list[Problem] = []
    objects: dict[str, list[RawObject]] = {file: [] for file in files}
    for region in regions:
        box, label = _bounding_box(region.shape), _class_name(region.attributes.get(attribute))
        if box is None or not label:
            kind = region.shape.get("name", "unknown")
            text = f"a region without a class or of a shape without area ({kind}) was skipped"
            problems.append(Problem(region.file, text))
            continue
        objects[region.file].append(RawObject(label, box))
    images: list[RawImage] = []
    for file, items in objects.items():
        try:
            images.append(RawImage(finder.find(file), file, items))
        except ValueError as error:
            problems.append(Problem(file, f"{error}; it was skipped"))
    return RawDataset.with_sorted_classes(name, images, problems)


def _class_attribute(regions: Sequence[_Region], path: Path) -> str:
    """Return the attribute of the regions that holds their class."""
    used = {
        key: None
        for region in regions
        for key, value in region.attributes.items()
        if _class_name(value)
    }
    by_lower = {key.lower().strip(): key for key in reversed(list(used))}
    for candidate in _CLASS_ATTRIBUTES:
        if candidate in by_lower:
            return by_lower[candidate]
    if len(used) > 1:
        raise UsageError(
            f"the regions in '{path}' have the attributes {', '.join(used)}; call the one that is "
            "the class 'class'"
        )
    return next(iter(used), "class")


def _class_name(value: Any) -> str:
    """Return the text of an attribute; check boxes are mappings from the options to true."""
    if isinstance(value, dict):
        checked = [str(key) for key, state in value.items() if state]
        return checked[0].strip() if len(checked) == 1 else ""
    return str(value).strip() if isinstance(value, str | int) else ""


def _bounding_box(shape: Mapping[str, Any]) -> Box | None:
    """Return the box of a region in pixels, or None if its shape has no area or is invalid."""
    try:
        if "all_points_x" in shape:
            xs, ys = ([float(v) for v in shape[key]] for key in ("all_points_x", "all_points_y"))
            return min(xs), min(ys), max(xs), max(ys)
        if "width" in shape:
            x, y, width, height = (float(shape[key]) for key in ("x", "y", "width", "height"))
            return x, y, x + width, y + height
        x, y = float(shape["cx"]), float(shape["cy"])
        rx, ry = _radii(shape)
    except (KeyError, TypeError, ValueError):
        return None
    return x - rx, y - ry, x + rx, y + ry


def _radii(shape: Mapping[str, Any]) -> tuple[float, float]:
    """Return half the width and half the height of a circle or of a rotated ellipse."""
    if "r" in shape:
        return float(shape["r"]), float(shape["r"])
    rx, ry, angle = float(shape["rx"]), float(shape["ry"]), float(shape.get("theta") or 0)
    cosine, sine = cos(radians(angle)), sin(radians(angle))
    return hypot(rx * cosine, ry * sine), hypot(rx * sine, ry * cosine)
