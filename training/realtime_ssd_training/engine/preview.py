"""A contact sheet of augmented training samples with their matched default boxes."""

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

from realtime_ssd.annotators.palette import color_of
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.files import make_folder
from realtime_ssd.core.frames import Image
from realtime_ssd_training.data.augment import build_augmentation
from realtime_ssd_training.data.sample import Dataset
from realtime_ssd_training.engine.loader import Loader, LoaderOptions, Target
from realtime_ssd_training.engine.matching import corners, match
from realtime_ssd_training.models import SSD
from realtime_ssd_training.recipe import Recipe

__all__ = ["COLUMNS", "ROWS", "write_preview"]

COLUMNS, ROWS = 4, 3
TILE_WIDTH = 480
"""Minimum width of a tile in pixels; smaller inputs are enlarged."""

CAPTION_HEIGHT, GAP = 26, 8
_BACKGROUND, _TEXT, _IGNORED = (32, 32, 32), (235, 235, 235), (150, 150, 150)
_FONT = cv2.FONT_HERSHEY_SIMPLEX

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class _Example:
    """An augmented image and its training target."""

    name: str
    image: Image
    target: Target


def write_preview(path: Path, model: SSD, recipe: Recipe, train: Dataset) -> None:
    """Draw the first training samples of a run with their targets.

    Objects are drawn with thick lines in the color of their class, the default boxes matched to
    them with thin lines in the same color, and ignored objects in gray.

    Args:
        path: Image file to write; its folder is created.
        model: Source of the default boxes and the input size.
        recipe: Source of augmentation, matching and seed.
        train: Training set.

    Raises:
        UsageError: If the file cannot be written.
        RealtimeSSDError: If no image can be read.
    """
    tiles = [_tile(example, model, recipe) for example in _examples(model, recipe, train)]
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    sheet = np.vstack([_legend(rows[0].shape[1], model, train), *rows])
    make_folder(path.absolute().parent)
    try:
        written = cv2.imwrite(str(path), sheet)
    except cv2.error:
        written = False
    if not written:
        raise UsageError(f"'{path}' cannot be written; use a PNG or JPEG file")


def _examples(model: SSD, recipe: Recipe, train: Dataset) -> Iterator[_Example]:
    """Yield the first samples in training order, from as many epochs as needed."""
    augment = build_augmentation(model.spec.input, recipe.augment)
    options = LoaderOptions(COLUMNS * ROWS, seed=recipe.run.seed, drop_last=False)
    loader = Loader(train, model.spec.input, options, augment)
    batches = (batch for epoch in count() for batch in loader.epoch(epoch))
    if recipe.data.difficult == "use":
        batches = (batch.with_difficult_used() for batch in batches)
    examples = (
        _Example(name, image.numpy(), target)
        for batch in batches
        for name, image, target in zip(batch.names, batch.images, batch.targets, strict=True)
    )
    return islice(examples, COLUMNS * ROWS)


def _tile(example: _Example, model: SSD, recipe: Recipe) -> Image:
    """Draw one sample below its caption."""
    input_height, input_width = example.image.shape[:2]
    scale = max(1.0, TILE_WIDTH / input_width)
    width, height = round(input_width * scale), round(input_height * scale)
    canvas: Image = cv2.resize(example.image, (width, height), interpolation=cv2.INTER_LINEAR)
    target, size = example.target, np.array([width, height] * 2, np.float32)
    matches = match(
        model.default_boxes,
        target.boxes,
        target.labels,
        recipe.loss.iou_threshold,
        ignored=target.ignored,
        first=recipe.loss.first,
    )
    rows = torch.nonzero(matches.matched).flatten()
    for box, label in zip(corners(model.default_boxes[rows]), matches.labels[rows], strict=True):
        _draw_rectangle(canvas, box.numpy() * size, color_of(int(label)), 1)
    _draw_objects(canvas, target, size, model.spec.labels)
    ignored = int(target.ignored.sum())
    text = f"{example.name}: {len(target.labels) - ignored} objects, {len(rows)} default boxes"
    return _add_caption(canvas, text + (f", {ignored} ignored" if ignored else ""))


def _draw_objects(
    canvas: Image, target: Target, size: NDArray[np.float32], labels: tuple[str, ...]
) -> None:
    """Draw the objects, ignored ones first, and then all names, so that no box covers a name."""
    order = torch.argsort(target.ignored.int(), descending=True, stable=True).tolist()
    colors = [
        _IGNORED if ignored else color_of(int(label))
        for label, ignored in zip(target.labels, target.ignored, strict=True)
    ]
    for k in order:
        _draw_rectangle(canvas, target.boxes[k].numpy() * size, colors[k], 2)
    for k in order:
        x, y = (target.boxes[k, :2].numpy() * size[:2]).round().astype(int).tolist()
        _draw_name(canvas, labels[int(target.labels[k])], (x, y), colors[k])


def _draw_rectangle(
    canvas: Image, box: NDArray[np.floating[Any]], color: Color, thickness: int
) -> None:
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), color, thickness)


def _draw_name(canvas: Image, text: str, corner: tuple[int, int], color: Color) -> None:
    """Draw a name on a rectangle of the class color, above its box if it fits."""
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.38, 1)
    left = min(max(corner[0], 0), max(0, canvas.shape[1] - width - 4))
    top = corner[1] - height - 5 if corner[1] >= height + 5 else max(0, corner[1])
    cv2.rectangle(canvas, (left, top), (left + width + 4, top + height + 5), color, cv2.FILLED)
    bright = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 130
    text_color = (0, 0, 0) if bright else (255, 255, 255)
    origin = (left + 2, top + height + 2)
    cv2.putText(canvas, text, origin, _FONT, 0.38, text_color, 1, cv2.LINE_AA)


def _add_caption(canvas: Image, text: str) -> Image:
    """Add a caption above a tile and a gap around it."""
    height, width = canvas.shape[:2]
    tile = np.full((height + CAPTION_HEIGHT + GAP, width + GAP, 3), _BACKGROUND, np.uint8)
    tile[CAPTION_HEIGHT : CAPTION_HEIGHT + height, GAP // 2 : GAP // 2 + width] = canvas
    _draw_caption(tile, text, width)
    return tile


def _legend(width: int, model: SSD, train: Dataset) -> Image:
    line = np.full((CAPTION_HEIGHT + GAP, width, 3), _BACKGROUND, np.uint8)
    text = (
        f"{model.spec.name} on {train.name}: thick = object, thin = matched default box, "
        "gray = ignored"
    )
    _draw_caption(line, text, width - GAP)
    return line


def _draw_caption(tile: Image, text: str, width: int) -> None:
    """Draw text at the upper edge; long text is abbreviated at its start."""
    while cv2.getTextSize(text, _FONT, 0.42, 1)[0][0] > width and len(text) > 4:
        text = "..." + text[4:]
    origin = (GAP // 2, CAPTION_HEIGHT - 8)
    cv2.putText(tile, text, origin, _FONT, 0.42, _TEXT, 1, cv2.LINE_AA)
