"""A contact sheet of a dataset: images with the boxes of their annotations."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from realtime_ssd.annotators.palette import color_of
from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.frames import Image
from realtime_ssd_training.data.contact_sheet import (
    COLUMNS,
    IGNORED_COLOR,
    add_caption,
    draw_name,
    draw_rectangle,
    title_line,
    write_sheet,
)
from realtime_ssd_training.data.sample import Dataset, Sample

__all__ = ["choose_images", "write_dataset_sheet"]

_IMAGES = 16
_TILE_WIDTH, _TILE_HEIGHT = 480, 360


def write_dataset_sheet(path: Path, data: Dataset) -> None:
    """Draw images of a dataset with their objects, at least one image of every class if they fit.

    Difficult objects and crowds are gray.

    Args:
        path: Image file to write; its folder is created.
        data: The dataset.

    Raises:
        UsageError: If the file cannot be written.
        RealtimeSSDError: If none of the images can be read.
    """
    tiles: list[Image] = []
    error: RealtimeSSDError | None = None
    for index in choose_images(data, _IMAGES):
        try:
            tiles.append(_tile(data[index], data.labels))
        except RealtimeSSDError as caught:
            error = caught
    if not tiles and error is not None:
        raise error
    title = title_line(
        COLUMNS * tiles[0].shape[1], f"{data.name}: {len(data)} images; gray = difficult or crowd"
    )
    write_sheet(path, title, tiles)


def choose_images(data: Dataset, count: int) -> list[int]:
    """Choose images to look at: of every class, rare ones first, then evenly over the dataset.

    Args:
        data: The dataset.
        count: Maximum number of images.

    Returns:
        Indices in ascending order.
    """
    present = [set(data.annotation(index).labels.tolist()) for index in range(len(data))]
    frequency = Counter(label for labels in present for label in labels)
    chosen: dict[int, None] = {}
    covered: set[int] = set()
    for label, _ in reversed(frequency.most_common()):
        if len(chosen) == count:
            break
        if label not in covered:
            candidates = [index for index, labels in enumerate(present) if label in labels]
            best = max(candidates, key=lambda index: len(present[index] - covered))
            chosen[best] = None
            covered |= present[best]
    for index in np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int).tolist():
        if len(chosen) < count:
            chosen[index] = None
    return sorted(chosen)


def _tile(sample: Sample, labels: tuple[str, ...]) -> Image:
    """Draw one image, scaled to fit a tile, below its caption."""
    height, width = sample.image.shape[:2]
    scale = min(_TILE_WIDTH / width, _TILE_HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = np.full((_TILE_HEIGHT, _TILE_WIDTH, 3), 32, np.uint8)
    image = canvas[: size[1], : size[0]]
    image[:] = cv2.resize(sample.image, size, interpolation=method)
    ignored = sample.difficult | sample.crowd
    colors = [
        IGNORED_COLOR if skip else color_of(int(label))
        for label, skip in zip(sample.labels, ignored, strict=True)
    ]
    boxes = sample.boxes * scale
    for box, color in zip(boxes, colors, strict=True):
        draw_rectangle(canvas, box, color, 2)
    for box, color, label in zip(boxes, colors, sample.labels, strict=True):
        draw_name(canvas, labels[int(label)], (round(float(box[0])), round(float(box[1]))), color)
    return add_caption(canvas, f"{sample.name}: {width} x {height}, {len(boxes)} objects")
