"""A sheet of augmented samples with their matched default boxes: look before you train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from realtime_ssd.annotators.boxes import color_of
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Image
from realtime_ssd_training.data.joined import build_augmentation
from realtime_ssd_training.data.sample import Dataset
from realtime_ssd_training.engine.loader import Loader, LoaderOptions, Target
from realtime_ssd_training.engine.matching import corners, match
from realtime_ssd_training.models import SSD
from realtime_ssd_training.recipe import Recipe

__all__ = ["COLUMNS", "ROWS", "write_preview"]

COLUMNS, ROWS = 4, 3
TILE = 480
"""Least width of a tile in pixels; smaller inputs are drawn larger."""

HEAD, GAP = 26, 8
_GROUND, _INK, _IGNORED = (32, 32, 32), (235, 235, 235), (150, 150, 150)
_FONT = cv2.FONT_HERSHEY_SIMPLEX

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class _Example:
    """One image as the network will see it, with what it is asked to find."""

    name: str
    image: Image
    target: Target


def write_preview(sheet: Path, model: SSD, recipe: Recipe, train: Dataset) -> None:
    """Draw the first samples of a run: what the network will see and what it is asked to find.

    Objects are drawn thick in the colour of their class, the default boxes that have to find them
    thin in the same colour, objects that count for nothing in grey.

    Args:
        sheet: Image to write.
        model: Gives the default boxes and the input size.
        recipe: Gives augmentation, matching and seed.
        train: Training set.

    Raises:
        UsageError: If the sheet cannot be written.
        RealtimeSSDError: If no image can be read.
    """
    tiles = [_tile(example, model, recipe) for example in _examples(model, recipe, train)]
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    whole = np.vstack([_legend(rows[0].shape[1], model, train), *rows])
    try:
        good = cv2.imwrite(str(sheet), whole)
    except cv2.error:
        good = False
    if not good:
        raise UsageError(f"'{sheet}' cannot be written; give a PNG or JPEG in an existing folder")


def _examples(model: SSD, recipe: Recipe, train: Dataset) -> Iterator[_Example]:
    """Give the first samples in the order of training, of as many epochs as it takes."""
    augment = build_augmentation(model.spec.input, recipe.augment)
    options = LoaderOptions(COLUMNS * ROWS, seed=recipe.run.seed, drop_last=False)
    loader = Loader(train, model.spec.input, options, augment)
    batches = (batch for epoch in count() for batch in loader.epoch(epoch))
    if recipe.data.difficult == "use":
        batches = (batch.with_difficult_used() for batch in batches)
    every = (
        _Example(name, image.numpy(), target)
        for batch in batches
        for name, image, target in zip(batch.names, batch.images, batch.targets, strict=True)
    )
    return islice(every, COLUMNS * ROWS)


def _tile(example: _Example, model: SSD, recipe: Recipe) -> Image:
    """Draw one sample below a line of text."""
    height, width = example.image.shape[:2]
    scale = max(1.0, TILE / width)
    wide, high = round(width * scale), round(height * scale)
    canvas: Image = cv2.resize(example.image, (wide, high), interpolation=cv2.INTER_LINEAR)
    target, size = example.target, np.array([wide, high] * 2, np.float32)
    part = recipe.loss
    matches = match(
        model.default_boxes,
        target.boxes,
        target.labels,
        part.iou_threshold,
        ignored=target.ignored,
        first=part.first,
    )
    rows = torch.nonzero(matches.matched).flatten()
    for box, label in zip(corners(model.default_boxes[rows]), matches.labels[rows], strict=True):
        _rectangle(canvas, box.numpy() * size, color_of(int(label)), 1)
    _objects(canvas, target, size, model.spec.labels)
    unused = int(target.ignored.sum())
    text = f"{example.name}: {len(target.labels) - unused} objects, {len(rows)} default boxes"
    return _framed(canvas, text + (f", {unused} ignored" if unused else ""))


def _objects(
    canvas: Image, target: Target, size: NDArray[np.float32], labels: tuple[str, ...]
) -> None:
    """Draw the objects, those that count last, and then their names, which nothing shall cover."""
    order = torch.argsort(target.ignored.int(), descending=True, stable=True).tolist()
    colors = [
        _IGNORED if ignored else color_of(int(label))
        for label, ignored in zip(target.labels, target.ignored, strict=True)
    ]
    for k in order:
        _rectangle(canvas, target.boxes[k].numpy() * size, colors[k], 2)
    for k in order:
        x, y = (target.boxes[k, :2].numpy() * size[:2]).round().astype(int).tolist()
        _name(canvas, labels[int(target.labels[k])], (x, y), colors[k])


def _rectangle(canvas: Image, box: NDArray[np.floating[Any]], color: Color, line: int) -> None:
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), color, line)


def _name(canvas: Image, text: str, corner: tuple[int, int], color: Color) -> None:
    """Write a name on a plate of the class's colour, above its box where there is room."""
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.38, 1)
    left = min(max(corner[0], 0), max(0, canvas.shape[1] - width - 4))
    top = corner[1] - height - 5 if corner[1] >= height + 5 else max(0, corner[1])
    cv2.rectangle(canvas, (left, top), (left + width + 4, top + height + 5), color, cv2.FILLED)
    bright = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 130
    ink = (0, 0, 0) if bright else (255, 255, 255)
    at = (left + 2, top + height + 2)
    cv2.putText(canvas, text, at, _FONT, 0.38, ink, 1, cv2.LINE_AA)


def _framed(canvas: Image, text: str) -> Image:
    """Put a line of text above a tile and a gap around it."""
    height, width = canvas.shape[:2]
    tile = np.full((height + HEAD + GAP, width + GAP, 3), _GROUND, np.uint8)
    tile[HEAD : HEAD + height, GAP // 2 : GAP // 2 + width] = canvas
    _write(tile, text, width)
    return tile


def _legend(width: int, model: SSD, train: Dataset) -> Image:
    """Say what the sheet shows."""
    line = np.full((HEAD + GAP, width, 3), _GROUND, np.uint8)
    text = (
        f"{model.spec.name} on {train.name}: thick = object, thin = default box that has to find "
        "it, grey = ignored"
    )
    _write(line, text, width - GAP)
    return line


def _write(tile: Image, text: str, width: int) -> None:
    """Write a line at the upper edge; where it is too long, its end counts."""
    while cv2.getTextSize(text, _FONT, 0.42, 1)[0][0] > width and len(text) > 4:
        text = "..." + text[4:]
    at = (GAP // 2, HEAD - 8)
    cv2.putText(tile, text, at, _FONT, 0.42, _INK, 1, cv2.LINE_AA)
