"""COCO annotations: one JSON file and a folder of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.classes import ClassSelection
from realtime_ssd_training.data.file_dataset import (
    FileDataset,
    RawImage,
    RawObject,
    build_file_dataset,
)
from realtime_ssd_training.data.sample import Problem

__all__ = ["open_coco"]


def open_coco(name: str, path: Path, folder: Path, selection: ClassSelection) -> FileDataset:
    """Open a COCO detection file (`images`, `annotations`, `categories`).

    Args:
        name: Specification the dataset is opened with.
        path: The JSON file.
        folder: Folder that its `file_name` entries are relative to.
        selection: Classes to read; categories are ordered by id.

    Raises:
        UsageError: If a file is missing or the JSON is not a COCO detection file.
    """
    if not folder.is_dir():
        raise UsageError(f"the image folder '{folder}' does not exist; use coco:ANNOTATIONS:IMAGES")
    content = _load(path)
    try:
        categories = sorted((int(item["id"]), str(item["name"])) for item in content["categories"])
        problems: list[Problem] = []
        images = _images_by_id(content, path, problems)
        objects = _objects_by_image(content, dict(categories), set(images), path, problems)
        raw_images = [
            _raw_image(item, folder, objects.get(image_id, [])) for image_id, item in images.items()
        ]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UsageError(
            f"'{path}' is not a COCO detection file ({_reason(error)}); it needs images with id "
            "and file_name, annotations with image_id, category_id and bbox, and categories"
        ) from error
    classes = selection.map_classes(
        [label for _, label in categories], [number for number, _ in categories]
    )
    return build_file_dataset(name, raw_images, classes, problems)


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


def _images_by_id(
    content: dict[str, Any], path: Path, problems: list[Problem]
) -> dict[int, dict[str, Any]]:
    images: dict[int, dict[str, Any]] = {}
    for item in content["images"]:
        if images.setdefault(int(item["id"]), item) is not item:
            text = f"image id {item['id']} is not unique; '{item['file_name']}' was skipped"
            problems.append(Problem(str(path), text))
    return images


def _objects_by_image(
    content: dict[str, Any],
    names: dict[int, str],
    images: set[int],
    path: Path,
    problems: list[Problem],
) -> dict[int, list[RawObject]]:
    objects: dict[int, list[RawObject]] = {}
    for item in content["annotations"]:
        label = names.get(int(item["category_id"]), f"category {item['category_id']}")
        image = int(item["image_id"])
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
        crowd, area = bool(item.get("iscrowd", 0)), item.get("area")
        box = (x, y, x + width, y + height)
        objects.setdefault(image, []).append(
            RawObject(label, box, crowd=crowd, area=None if area is None else float(area))
        )
    return objects


def _raw_image(item: dict[str, Any], folder: Path, objects: list[RawObject]) -> RawImage:
    size = (int(item.get("width") or 0), int(item.get("height") or 0))
    name = str(item["file_name"])
    return RawImage(folder / name, name, objects, size, int(item["id"]))
