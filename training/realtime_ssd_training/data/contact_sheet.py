"""Contact sheets: images in a grid, each with its boxes below a caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.annotators.palette import Color
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.files import make_folder
from realtime_ssd.core.frames import Image

__all__ = [
    "CAPTION_HEIGHT",
    "COLUMNS",
    "GAP",
    "IGNORED_COLOR",
    "add_caption",
    "draw_name",
    "draw_rectangle",
    "title_line",
    "write_sheet",
]

COLUMNS = 4
CAPTION_HEIGHT, GAP = 26, 8
IGNORED_COLOR: Color = (150, 150, 150)
_BACKGROUND, _TEXT = (32, 32, 32), (235, 235, 235)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_sheet(path: Path, title: Image, tiles: Sequence[Image]) -> None:
    """Write tiles of equal size in rows of `COLUMNS` below a title.

    Args:
        path: Image file to write; its folder is created.
        title: From `title_line`.
        tiles: At least one tile, from `add_caption`.

    Raises:
        UsageError: If the file cannot be written.
    """
    blank = np.full_like(tiles[0], _BACKGROUND)
    missing = -len(tiles) % COLUMNS if len(tiles) > COLUMNS else 0
    grid = [*tiles, *[blank] * missing]
    rows = [np.hstack(grid[start : start + COLUMNS]) for start in range(0, len(grid), COLUMNS)]
    make_folder(path.absolute().parent)
    try:
        written = cv2.imwrite(str(path), np.vstack([_fit(title, rows[0].shape[1]), *rows]))
    except cv2.error:
        written = False
    if not written:
        raise UsageError(f"'{path}' cannot be written; use a PNG or JPEG file")


def _fit(title: Image, width: int) -> Image:
    """Cut or extend a title to a width."""
    line = np.full((title.shape[0], width, 3), _BACKGROUND, np.uint8)
    line[:, : title.shape[1]] = title[:, :width]
    return line


def draw_rectangle(
    canvas: Image, box: NDArray[np.floating[Any]], color: Color, thickness: int
) -> None:
    """Draw a box given by x1, y1, x2, y2 in pixels."""
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), color, thickness)


def draw_name(canvas: Image, text: str, corner: tuple[int, int], color: Color) -> None:
    """Draw a name on a rectangle of the class color, above its box if it fits."""
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.38, 1)
    left = min(max(corner[0], 0), max(0, canvas.shape[1] - width - 4))
    top = corner[1] - height - 5 if corner[1] >= height + 5 else max(0, corner[1])
    cv2.rectangle(canvas, (left, top), (left + width + 4, top + height + 5), color, cv2.FILLED)
    bright = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 130
    text_color = (0, 0, 0) if bright else (255, 255, 255)
    origin = (left + 2, top + height + 2)
    cv2.putText(canvas, text, origin, _FONT, 0.38, text_color, 1, cv2.LINE_AA)


def add_caption(canvas: Image, text: str) -> Image:
    """Return an image with a caption above and a gap around it."""
    height, width = canvas.shape[:2]
    tile = np.full((height + CAPTION_HEIGHT + GAP, width + GAP, 3), _BACKGROUND, np.uint8)
    tile[CAPTION_HEIGHT : CAPTION_HEIGHT + height, GAP // 2 : GAP // 2 + width] = canvas
    _draw_caption(tile, text, width)
    return tile


def title_line(width: int, text: str) -> Image:
    """Return the title of a sheet, `width` pixels wide."""
    line = np.full((CAPTION_HEIGHT + GAP, width, 3), _BACKGROUND, np.uint8)
    _draw_caption(line, text, width - GAP)
    return line


def _draw_caption(tile: Image, text: str, width: int) -> None:
    """Draw text at the upper edge; long text is abbreviated at its start."""
    while cv2.getTextSize(text, _FONT, 0.42, 1)[0][0] > width and len(text) > 4:
        text = "..." + text[4:]
    origin = (GAP // 2, CAPTION_HEIGHT - 8)
    cv2.putText(tile, text, origin, _FONT, 0.42, _TEXT, 1, cv2.LINE_AA)
