"""A contact sheet of augmented training samples with their matched default boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from realtime_ssd.annotators.palette import color_of
from realtime_ssd.core.frames import Image
from realtime_ssd_training.data.augment import build_augmentation
from realtime_ssd_training.data.contact_sheet import (
    COLUMNS,
    IGNORED_COLOR,
    add_caption,
    draw_name,
    draw_rectangle,
    title_line,
    write_sheet,
)
from realtime_ssd_training.data.sample import Dataset
from realtime_ssd_training.engine.loader import Loader, LoaderOptions, Target
from realtime_ssd_training.engine.matching import corners, match
from realtime_ssd_training.models import SSD
from realtime_ssd_training.recipe import Recipe

__all__ = ["ROWS", "write_preview"]

ROWS = 3
TILE_WIDTH = 480
"""Minimum width of a tile in pixels; smaller inputs are enlarged."""


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
    text = (
        f"{model.spec.name} on {train.name}: thick = object, thin = matched default box, "
        "gray = ignored"
    )
    write_sheet(path, title_line(COLUMNS * tiles[0].shape[1], text), tiles)


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
        draw_rectangle(canvas, box.numpy() * size, color_of(int(label)), 1)
    _draw_objects(canvas, target, size, model.spec.labels)
    ignored = int(target.ignored.sum())
    text = f"{example.name}: {len(target.labels) - ignored} objects, {len(rows)} default boxes"
    return add_caption(canvas, text + (f", {ignored} ignored" if ignored else ""))


def _draw_objects(
    canvas: Image, target: Target, size: NDArray[np.float32], labels: tuple[str, ...]
) -> None:
    """Draw the objects, ignored ones first, and then all names, so that no box covers a name."""
    order = torch.argsort(target.ignored.int(), descending=True, stable=True).tolist()
    colors = [
        IGNORED_COLOR if ignored else color_of(int(label))
        for label, ignored in zip(target.labels, target.ignored, strict=True)
    ]
    for k in order:
        draw_rectangle(canvas, target.boxes[k].numpy() * size, colors[k], 2)
    for k in order:
        x, y = (target.boxes[k, :2].numpy() * size[:2]).round().astype(int).tolist()
        draw_name(canvas, labels[int(target.labels[k])], (x, y), colors[k])
