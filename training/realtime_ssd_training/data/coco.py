"""COCO annotations: one JSON file and a folder of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.classes import Selection
from realtime_ssd_training.data.files import FileDataset, RawImage, RawObject, build
from realtime_ssd_training.data.sample import Problem

__all__ = ["open_coco"]


def open_coco(name: str, path: Path, folder: Path, selection: Selection) -> FileDataset:
    """Open a COCO detection file (`images`, `annotations`, `categories`).

    Args:
        name: The text the data set is opened with.
        path: The JSON file.
        folder: Folder that its `file_name` entries start from.
        selection: Wanted classes; categories keep the order of their ids.

    Raises:
        UsageError: If a file is missing or the JSON is no COCO detection file.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder of images '{folder}'; give coco:ANNOTATIONS:IMAGES")
    content = _load(path)
    try:
        found = sorted((int(item["id"]), str(item["name"])) for item in content["categories"])
        problems: list[Problem] = []
        images = _images(content, path, problems)
        objects = _objects(content, dict(found), set(images), path, problems)
        raws = [_image(item, folder, objects.get(key, [])) for key, item in images.items()]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UsageError(
            f"'{path}' is no COCO detection file ({_reason(error)}); it needs images with id and "
            "file_name, annotations with image_id, category_id and bbox, and categories"
        ) from error
    classes = selection.classes([text for _, text in found], [number for number, _ in found])
    return build(name, raws, classes, problems)


def _reason(error: Exception) -> str:
    return f"the entry {error} is missing" if isinstance(error, KeyError) else str(error)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError:
        raise UsageError(
            f"the annotation file '{path}' cannot be read; give coco:ANNOTATIONS:IMAGES"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"'{path}' is no valid JSON ({error}); download or export it again"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"'{path}' is no COCO detection file: it must hold a JSON object")
    return content


def _images(
    content: dict[str, Any], path: Path, problems: list[Problem]
) -> dict[int, dict[str, Any]]:
    images: dict[int, dict[str, Any]] = {}
    for item in content["images"]:
        if images.setdefault(int(item["id"]), item) is not item:
            text = f"image {item['id']} is given twice; '{item['file_name']}' was skipped"
            problems.append(Problem(str(path), text))
    return images


def _objects(
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


def _image(item: dict[str, Any], folder: Path, objects: list[RawObject]) -> RawImage:
    size = (int(item.get("width") or 0), int(item.get("height") or 0))
    name = str(item["file_name"])
    return RawImage(folder / name, name, objects, size, int(item["id"]))
