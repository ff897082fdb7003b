"""Small datasets that tests write, and their content in comparable form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from realtime_ssd_training.data import Dataset

Box = tuple[float, float, float, float]


def write_image(path: Path, width: int = 40, height: int = 30, seed: int = 0) -> Path:
    """Write an image of noise, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, noise)[1].tobytes())
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a text file, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_coco(folder: Path, annotations: Sequence[dict[str, Any]], **changes: Any) -> str:
    """Write one image of 40 x 30 pixels with COCO annotations of the categories 3 and 7."""
    write_image(folder / "images" / "a.png")
    content = {
        "images": [{"id": 5, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [{"image_id": 5, **item} for item in annotations],
        **changes,
    }
    write_text(folder / "a.json", json.dumps(content))
    return f"coco:{folder / 'a.json'}:{folder / 'images'}"


def write_voc(folder: Path, name: str, objects: str, width: int = 40, height: int = 30) -> str:
    """Write one image with its Pascal VOC annotation."""
    write_image(folder / "JPEGImages" / f"{name}.png", width, height)
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    text = f"<annotation><filename>{name}.png</filename>{size}{objects}</annotation>"
    write_text(folder / "Annotations" / f"{name}.xml", text)
    return f"voc:{folder}"


def voc_object(name: str, box: Box, difficult: int = 0) -> str:
    """Return the XML of an object."""
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{corners}</bndbox></object>"
    )


def problem_texts(data: Dataset) -> list[str]:
    """Return the problems of a dataset without the folders of their files."""
    return [f"{Path(item.file).name}: {item.text}" for item in data.problems]


def labeled_boxes(data: Dataset, index: int = 0) -> list[tuple[str, list[float]]]:
    """Return label and box of every object of an image, rounded to a thousandth of a pixel."""
    truth = data.annotation(index)
    return [
        (data.labels[int(label)], [round(float(side), 3) for side in box])
        for label, box in zip(truth.labels, truth.boxes, strict=True)
    ]
