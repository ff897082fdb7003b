"""A sheet of augmented samples with their matched default boxes: look before you train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from realtime_ssd.errors import UsageError
from realtime_ssd.frames import Image
from realtime_ssd.render import color_of
from training.data.sample import Dataset, Sample
from training.matching import match
from training.models import SSD
from training.recipe import Recipe
from training.sets import build_augmentation

__all__ = ["write_preview"]

COLUMNS, ROWS = 4, 3
_MATCHED = (200, 200, 200)


def write_preview(sheet: Path, model: SSD, recipe: Recipe, train: Dataset) -> None:
    """Draw what the network will see and what it is asked to find.

    Objects are drawn thick in the colour of their class, ignored ones in grey, matched default
    boxes thin and white.

    Args:
        sheet: Image to write.
        model: Gives the default boxes and the input size.
        recipe: Gives augmentation and seed.
        train: Training set.

    Raises:
        UsageError: If the sheet cannot be written.
    """
    augment = build_augmentation(model.spec.input, recipe.augment)
    random = np.random.default_rng(recipe.run.seed)
    picked = random.choice(len(train), COLUMNS * ROWS, replace=len(train) < COLUMNS * ROWS)
    tiles = [_tile(augment(train[int(k)], random), model, recipe) for k in picked]
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    try:
        good = cv2.imwrite(str(sheet), np.vstack(rows))
    except cv2.error:
        good = False
    if not good:
        raise UsageError(f"'{sheet}' cannot be written; give a PNG or JPEG in an existing folder")


def _tile(sample: Sample, model: SSD, recipe: Recipe) -> Image:
    canvas: Image = np.ascontiguousarray(sample.image).copy()
    height, width = canvas.shape[:2]
    size = np.array([width, height, width, height], np.float32)
    ignored = sample.difficult | sample.crowd
    matches = match(
        model.default_boxes,
        torch.from_numpy(np.asarray(sample.boxes / size, np.float32)).reshape(-1, 4),
        torch.from_numpy(np.asarray(sample.labels, np.int64)),
        ignored=torch.from_numpy(np.asarray(ignored, np.bool_)),
    )
    found = model.default_boxes[matches.objects >= 0].numpy()
    corners = np.concatenate([found[:, :2] - found[:, 2:] / 2, found[:, :2] + found[:, 2:] / 2], 1)
    for box in corners * size:
        _rectangle(canvas, box, _MATCHED, 1)
    for box, label, unused in zip(sample.boxes, sample.labels, ignored, strict=True):
        color = (128, 128, 128) if unused else color_of(int(label))
        _rectangle(canvas, box, color, 2)
        corner = (int(box[0]) + 2, int(box[1]) + 10)
        cv2.putText(canvas, model.spec.labels[int(label)], corner, 0, 0.35, color, 1, cv2.LINE_AA)
    return canvas


def _rectangle(
    canvas: Image, box: NDArray[np.floating[Any]], color: tuple[int, int, int], line: int
) -> None:
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), color, line)
