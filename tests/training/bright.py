"""A COCO dataset for the detector of bright squares (`tests.tiny`), with known errors."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import cv2

from tests.tiny import bright_cell

WIDTH, HEIGHT = 160, 120
CELL = (40, 30)

CASES: list[tuple[tuple[int, int], list[tuple[str, int, int, int, int]]]] = [
    # bright cell (row, column), then the annotated objects: class, x, y, width, height
    ((0, 0), [("bright", 0, 0, 40, 30)]),  # true positive
    ((1, 2), [("bright", 80, 30, 40, 40)]),  # true positive, IoU 0.75
    ((3, 3), []),  # background
    ((2, 1), [("dark", 40, 60, 40, 30)]),  # wrong class
    ((0, 3), [("bright", 100, 0, 40, 30)]),  # poor localization, IoU 1/3
    ((2, 2), [("bright", 80, 60, 40, 30), ("bright", 0, 90, 40, 30)]),  # one of two detected
]


def write_bright_set(
    folder: Path, labels: tuple[str, ...] = ("bright", "dark"), skip: Collection[int] = ()
) -> str:
    """Write the images and a COCO file.

    Args:
        folder: Folder to create.
        labels: Categories of the file.
        skip: Numbers of images, from 1, to leave out.

    Returns:
        "ANNOTATIONS:IMAGES".
    """
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (cell, objects) in enumerate(CASES, start=1):
        if number in skip:
            continue
        name = f"{number}.png"
        cv2.imwrite(str(folder / name), bright_cell(cell, (HEIGHT, WIDTH)))
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for label, *bbox in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": labels.index(label) + 1 if label in labels else 1,
                    "bbox": bbox,
                    "area": bbox[2] * bbox[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": k, "name": name} for k, name in enumerate(labels, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return f"{path}:{folder}"
