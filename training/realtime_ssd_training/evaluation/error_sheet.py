"""A sheet of a model's worst mistakes: crops of the images with boxes, scores and overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.frames import Image
from realtime_ssd_training.data.sample import Dataset
from realtime_ssd_training.evaluation.mistakes import KINDS, Mistake, Mistakes, Thing
from realtime_ssd_training.evaluation.plots import new_figure, save

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

__all__ = ["write_error_sheet"]

COLUMNS = 6
WIDTH, HEIGHT = 300, 220
_WRONG, _RIGHT = (40, 60, 235), (60, 190, 60)  # BGR
_GROUND = 235
_MARGIN = 0.35  # of the longer side, around the boxes
_LEAST = 40  # pixels of the image that a crop shows at least


def write_error_sheet(path: Path, mistakes: Mistakes, data: Dataset, title: str) -> None:
    """Draw the worst mistakes of every kind, a row each.

    Detections are red, objects green; further objects of the image are thin and green.

    Args:
        path: PNG file to write.
        mistakes: What went wrong.
        data: The images.
        title: What the sheet is about.

    Raises:
        UsageError: If the file cannot be written.
    """
    counts = mistakes.counts
    rows = [kind for kind in KINDS if counts[kind]] or ["missed"]
    figure = new_figure(15.4, 0.7 + 2.75 * len(rows))
    figure.suptitle(_heading(mistakes, title), fontsize=11, parse_math=False)
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, kind in zip(parts, rows, strict=True):
        heading = f"{kind}: {counts[kind]}   ({KINDS[kind]})"
        part.suptitle(heading, x=0.01, ha="left", fontsize=11, weight="bold")
        _row(part, mistakes.of(kind, COLUMNS), data)
    save(figure, path)


def _heading(mistakes: Mistakes, title: str) -> str:
    return (
        f"{title}\n{mistakes.hits} of {mistakes.objects} objects found by detections of score "
        f"{mistakes.score:.2f} and more, where F1 is best. Red: detection. Green: object."
    )


def _row(part: SubFigure, shown: Sequence[Mistake], data: Dataset) -> None:
    axes = part.subplots(1, COLUMNS)
    for one, item in zip(axes, [*shown, *[None] * (COLUMNS - len(shown))], strict=True):
        one.set_axis_off()
        if item is None:
            continue
        one.imshow(_tile(item, data)[:, :, ::-1])
        text = f"{describe(item, data.labels)}\n{_short(item.name, 40)}"
        one.set_title(text, fontsize=8, parse_math=False)


def describe(mistake: Mistake, labels: Sequence[str]) -> str:
    """Say in two short lines what is wrong.

    Example:
        >>> describe(mistake, data.labels).splitlines()
        ['dog 0.91', 'is cat, IoU 0.84']
    """
    found = "" if mistake.found is None else _short(labels[mistake.found.class_id])
    truth = "" if mistake.truth is None else _short(labels[mistake.truth.class_id])
    guess = f"{found} {mistake.score:.2f}"
    near = f"IoU {mistake.overlap:.2f}"
    if mistake.kind == "missed":
        return f"{truth}\nnearest: {guess}, {near}" if found else f"{truth}\nnothing near"
    if mistake.truth is None:
        return guess
    return f"{guess}\nis {truth}, {near}" if mistake.kind == "wrong class" else f"{guess}\n{near}"


def _short(text: str, most: int = 18) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _tile(mistake: Mistake, data: Dataset) -> Image:
    """Cut out what a mistake is about, enlarged, with its boxes."""
    try:
        sample = data[mistake.image]
    except RealtimeSSDError:
        return np.full((HEIGHT, WIDTH, 3), _GROUND, np.uint8)
    height, width = sample.image.shape[:2]
    left, top, scale = _view(mistake, width, height)
    move = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    tile = cv2.warpAffine(
        np.ascontiguousarray(sample.image),
        move,
        (WIDTH, HEIGHT),
        flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
        borderValue=(_GROUND,) * 3,
    )
    for box in sample.boxes:
        _draw(tile, box, move, _RIGHT, 1)
    for thing, color in ((mistake.truth, _RIGHT), (mistake.found, _WRONG)):
        if thing is not None:
            _draw(tile, np.array(thing.box), move, color, 2)
    return np.asarray(tile, np.uint8)


def _view(mistake: Mistake, width: int, height: int) -> tuple[float, float, float]:
    """Choose a part of an image of `width` × `height` in the shape of a tile.

    Returns:
        Its left and upper edge in pixels of the image, and pixels of the tile for each of these.
    """
    things: list[Thing] = [item for item in (mistake.found, mistake.truth) if item is not None]
    boxes = np.array([item.box for item in things])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    sides = high - low
    sides = np.maximum(sides + 2 * _MARGIN * sides.max(), _LEAST)
    tile, whole = np.array([WIDTH, HEIGHT]), np.array([width, height])
    # No smaller than the whole image would be, and moved into it where it is large enough.
    scale = max(float((tile / sides).min()), float((tile / whole).min()))
    part = tile / scale
    corner = np.clip((low + high - part) / 2, 0, np.maximum(whole - part, 0))
    left, top = np.where(part > whole, (whole - part) / 2, corner)
    return float(left), float(top), scale


def _draw(
    tile: Image,
    box: NDArray[np.floating[Any]],
    move: NDArray[np.float64],
    color: tuple[int, int, int],
    line: int,
) -> None:
    corners = np.asarray(box, np.float64).reshape(2, 2) * move[0, 0] + move[:, 2]
    first, second = (tuple(int(v) for v in corner) for corner in np.rint(corners))
    if line > 1:
        cv2.rectangle(tile, first, second, (255, 255, 255), line + 2, cv2.LINE_AA)
    cv2.rectangle(tile, first, second, color, line, cv2.LINE_AA)
