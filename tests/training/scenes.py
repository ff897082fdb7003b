"""A small dataset of drawn shapes, and a recipe that trains on it in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = ("disc", "square", "triangle")
SIDE = 128

RECIPE = """
[model]
name = "ssd_mobilenet_v1_fpn"
options = { width = 0.25, columns = 128, rows = 128 }
[augment]
zoom_out = 0.0
overlaps = ["whole", 0.7]
[optimizer]
name = "adamw"
lr = 2e-3
decay_all = false
clip = 5.0
[schedule]
kind = "cosine"
warmup = 2
[run]
epochs = 2
batch = 2
workers = 0
ema = 0.9
"""


def draw(folder: Path, count: int = 10, side: int = SIDE) -> str:
    """Draw images of discs, squares and triangles and return the dataset specification."""
    rng = np.random.default_rng(5)
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": k, "name": name} for k, name in enumerate(CLASSES, start=1)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        name = f"image{number}.png"
        image = np.full((side, side, 3), rng.integers(60, 190, 3), np.uint8)
        for quadrant in rng.permutation(4)[: 1 + number % 3]:
            half = side // 2
            size = int(rng.integers(side // 5, half - 8))
            margin = half - size
            x = int(quadrant % 2 * half + rng.integers(0, margin))
            y = int(quadrant // 2 * half + rng.integers(0, margin))
            class_index = int(rng.integers(3))
            _draw_shape(image, class_index, x, y, size)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number + 1,
                    "category_id": class_index + 1,
                    "bbox": [x, y, size, size],
                    "area": size * size,
                    "iscrowd": 0,
                }
            )
        cv2.imwrite(str(folder / name), image)
        content["images"].append(
            {"id": number + 1, "file_name": name, "width": side, "height": side}
        )
    (folder / "scenes.json").write_text(json.dumps(content))
    return f"coco:{folder / 'scenes.json'}:{folder}"


def _draw_shape(image: NDArray[np.uint8], class_index: int, x: int, y: int, size: int) -> None:
    end = size - 1
    if class_index == 0:
        cv2.ellipse(
            image, ((x + end / 2, y + end / 2), (end, end), 0.0), (40, 40, 230), -1, cv2.LINE_AA
        )
    elif class_index == 1:
        cv2.rectangle(image, (x, y), (x + end, y + end), (230, 60, 40), -1)
    else:
        points = np.array([[x, y + end], [x + end, y + end], [x + end // 2, y]], np.int32)
        cv2.fillPoly(image, [points], (40, 220, 60), cv2.LINE_AA)


def recipe(folder: Path, text: str = RECIPE, name: str = "tiny") -> Path:
    """Write a recipe and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path
