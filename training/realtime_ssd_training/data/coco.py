"""COCO annotations: one JSON file and a folder of images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.image_finder import ImageFinder
from realtime_ssd_training.data.raw_dataset import RawDataset, RawImage, RawObject
from realtime_ssd_training.data.sample import Problem
from realtime_ssd_training.data.via import is_via, read_via_json

__all__ = ["read_coco"]

_Id = int | str
_TRUE = frozenset({"1", "1.0", "true", "yes"})


def read_coco(name: str, path: Path, folder: Path) -> RawDataset:
    """Read a COCO detection file (`images`, `annotations`, `categories`) or a VIA project.

    Ids may be numbers or texts. A category without annotations that is the supercategory of all
    others is not a class: Roboflow writes one.

    Args:
        name: Specification the dataset is opened with.
        path: The JSON file.
        folder: Folder that its `file_name` entries are relative to; `ImageFinder` describes how
            images are located.

    Raises:
        UsageError: If a file is missing or the JSON is not a COCO detection file.
    """
    if not folder.is_dir():
        raise UsageError(f"the image folder '{folder}' does not exist; use coco:ANNOTATIONS:IMAGES")
    content = _load(path)
    finder = ImageFinder(folder, path.stem.replace("-", "_").split("_"))
    if is_via(content):
        return read_via_json(name, path, content, finder)
    problems: list[Problem] = []
    try:
        names = {_parse_id(item["id"]): str(item["name"]).strip() for item in content["categories"]}
        images = _images_by_id(content, path, problems)
        objects = _objects_by_image(content, names, images, path, problems)
        raw_images = [
            _raw_image(item, image_id, finder, objects.get(image_id, []), problems)
            for image_id, item in images.items()
        ]
        unused = _unused_root(content, {_parse_id(item["category_id"]) for item in _rows(content)})
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UsageError(
            f"'{path}' is not a COCO detection file ({_reason(error)}); it needs images with id "
            "and file_name, annotations with image_id, category_id and bbox, and categories"
        ) from error
    ids = sorted(names.keys() - unused, key=lambda item: (isinstance(item, str), item))
    numbers = [item if isinstance(item, int) else k for k, item in enumerate(ids, start=1)]
    found = [image for image in raw_images if image is not None]
    classes = tuple(names[item] for item in ids)
    return RawDataset(name, found, classes, tuple(numbers), tuple(problems))


def _reason(error: Exception) -> str:
    return f"the entry {error} is missing" if isinstance(error, KeyError) else str(error)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError:
        raise UsageError(
            f"the annotation file '{path}' cannot be read; use coco:ANNOTATIONS:IMAGES"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"'{path}' is not valid JSON ({error}); download or export it again"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"'{path}' is not a COCO detection file: it must contain a JSON object")
    return content


def _rows(content: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Return the annotations; files without any, as for test images, may omit the list."""
    rows: Sequence[dict[str, Any]] = content["annotations"]
    return rows


def _parse_id(value: Any) -> _Id:
    """Return an id as a number if it is one: 7, 7.0, "7" and "007" are the same."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.isascii() and text.isdigit() else text
    return int(value)


def _unused_root(content: Mapping[str, Any], used: set[_Id]) -> set[_Id]:
    """Return the ids of categories that only group all others."""
    categories = content["categories"]
    parents = {
        item["name"]
        for item in categories
        if len(categories) > 1
        and all(other.get("supercategory") == item["name"] for other in categories if other != item)
    }
    return {_parse_id(item["id"]) for item in categories if item["name"] in parents} - used


def _images_by_id(
    content: Mapping[str, Any], path: Path, problems: list[Problem]
) -> dict[_Id, dict[str, Any]]:
    images: dict[_Id, dict[str, Any]] = {}
    for item in content["images"]:
        if images.setdefault(_parse_id(item["id"]), item) is not item:
            text = f"image id {item['id']} is not unique; '{item['file_name']}' was skipped"
            problems.append(Problem(str(path), text))
    return images


def _objects_by_image(
    content: Mapping[str, Any],
    names: Mapping[_Id, str],
    images: Mapping[_Id, object],
    path: Path,
    problems: list[Problem],
) -> dict[_Id, list[RawObject]]:
    objects: dict[_Id, list[RawObject]] = {}
    for item in _rows(content):
        label = names.get(_parse_id(item["category_id"]), f"category {item['category_id']}")
        image = _parse_id(item["image_id"])
        if image not in images:
            problems.append(
                Problem(str(path), f"a '{label}' of the unknown image {image} was skipped")
            )
            continue
        try:
            x, y, width, height = (float(value) for value in item["bbox"])
        except (KeyError, TypeError, ValueError):
            text = f"annotation {item.get('id', '')} of image {image} has no bbox of four numbers"
            problems.append(Problem(str(path), f"{text}; it was skipped"))
            continue
        crowd, difficult = (
            str(item.get(key, 0)).strip().lower() in _TRUE for key in ("iscrowd", "difficult")
        )
        box = (x, y, x + width, y + height)
        objects.setdefault(image, []).append(
            RawObject(label, box, difficult, crowd, area=_number(item.get("area")))
        )
    return objects


def _number(value: Any) -> float | None:
    """Return a number, or None for anything else; some exports leave areas and sizes empty."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) else None


def _raw_image(
    item: Mapping[str, Any],
    image_id: _Id,
    finder: ImageFinder,
    objects: list[RawObject],
    problems: list[Problem],
) -> RawImage | None:
    name = str(item["file_name"])
    try:
        path = finder.find(name)
    except ValueError as error:
        problems.append(Problem(name, f"{error}; it was skipped"))
        return None
    width, height = (int(_number(item.get(side)) or 0) for side in ("width", "height"))
    number = image_id if isinstance(image_id, int) else None
    return RawImage(path, name, objects, (width, height), number)
