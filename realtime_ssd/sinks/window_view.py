"""What a window shows around pictures: a bar below them, OFFLINE on them, several in a grid."""

from __future__ import annotations

import time
from math import ceil, sqrt

import cv2
import numpy as np

from realtime_ssd.annotators.fonts import render
from realtime_ssd.annotators.text import draw_text, font_size_for, label_plate
from realtime_ssd.core.frames import Image

__all__ = ["WINDOW_SIZE", "TileGrid", "add_bar", "enlarged", "fit_size", "offline_image"]

WINDOW_SIZE = (1280, 720)
"""Width and height in pixels that fit on common screens."""

_USABLE_WIDTH, _LEAST_BAR_WIDTH = 640, 480
_WHITE, _GRAY, _ORANGE = (255, 255, 255), (170, 170, 170), (30, 150, 255)


def enlarged(image: Image) -> Image:
    """Return a small image enlarged by a whole factor to a usable size; a large one as it is."""
    height, width = image.shape[:2]
    room = min(WINDOW_SIZE[0] // width, WINDOW_SIZE[1] // height)
    factor = min(room, ceil(_USABLE_WIDTH / width))
    if factor < 2:
        return image
    size = (width * factor, height * factor)
    larger: Image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    return larger


def fit_size(image: Image) -> tuple[int, int]:
    """Return the width and height of a window in which an image fits on common screens."""
    height, width = image.shape[:2]
    scale = min(1.0, WINDOW_SIZE[0] / width, WINDOW_SIZE[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def add_bar(image: Image, text: str, mark: str = "", keys: str = "") -> Image:
    """Return an image with a bar below it, so that nothing of the image is covered.

    Args:
        image: H × W × 3, uint8, BGR; not changed.
        text: Left part of the bar.
        mark: Highlighted right part of the bar, such as "PAUSED".
        keys: Text of a second line; empty for no second line.

    Returns:
        A larger image; a narrow one is padded, so that the bar has room for its text.
    """
    height, width = image.shape[:2]
    size = max(14, font_size_for(image))
    line, lines = round(size * 1.7), 2 if keys else 1
    canvas = np.zeros((height + line * lines, max(width, _LEAST_BAR_WIDTH), 3), np.uint8)
    left = (canvas.shape[1] - width) // 2
    canvas[:height, left : left + width] = image
    _draw_line(canvas[height : height + line], text, size, _WHITE)
    if mark:
        plate = label_plate((mark,), size, _ORANGE)
        top = height + (line - plate.shape[0]) // 2
        canvas[top : top + plate.shape[0], -plate.shape[1] :] = plate[:, : canvas.shape[1]]
    if keys:
        _draw_line(canvas[height + line :], keys, size, _GRAY)
    return canvas


def _draw_line(bar: Image, text: str, size: int, color: tuple[int, int, int]) -> None:
    top = max(0, (bar.shape[0] - render(text, size).mask.shape[0]) // 2)
    draw_text(bar, text, (min(size // 2, bar.shape[1] - 1), top), size, color)


def offline_image(image: Image, since: float) -> Image:
    """Return a dimmed image with OFFLINE and since when.

    Args:
        image: The last image of the source; not changed.
        since: When the source was lost, in seconds of `time.time()`.
    """
    dimmed: Image = cv2.convertScaleAbs(image, alpha=0.3)
    size = max(12, min(image.shape[0] // 6, image.shape[1] // 8))
    lost_at = time.localtime(since)
    same_day = lost_at[:3] == time.localtime()[:3]
    moment = time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S", lost_at)
    _draw_centered(dimmed, "OFFLINE", size, image.shape[0] // 2 - size, _WHITE)
    _draw_centered(dimmed, f"since {moment}", max(10, size // 2), image.shape[0] // 2 + size // 4)
    return dimmed


def _draw_centered(
    image: Image, text: str, size: int, top: int, color: tuple[int, int, int] = _WHITE
) -> None:
    left = (image.shape[1] - render(text, size).mask.shape[1]) // 2
    draw_text(image, text, (max(0, left), max(0, top)), size, color)


class TileGrid:
    """The pictures of several sources side by side, each with its name below it.

    Args:
        names: Names of the sources, in the order of the tiles.

    Attributes:
        image: All tiles, H × W × 3, uint8, BGR.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._places = {name: number for number, name in enumerate(names)}
        self._columns = ceil(sqrt(len(names)))
        rows = ceil(len(names) / self._columns)
        self._width, self._height = WINDOW_SIZE[0] // self._columns, WINDOW_SIZE[1] // rows
        self.image = np.zeros((self._height * rows, self._width * self._columns, 3), np.uint8)

    def show(self, name: str, image: Image | None, caption: str) -> None:
        """Replace the picture of a source; None keeps its place empty."""
        row, column = divmod(self._places[name], self._columns)
        top, left = row * self._height, column * self._width
        tile = self.image[top : top + self._height, left : left + self._width]
        tile[:] = 0
        bar = min(24, self._height // 4)
        picture = tile[2 : -bar - 2, 2:-2]
        if image is not None and picture.size:
            _draw_fitted(picture, image)
        _draw_line(tile[-bar:], caption, max(10, bar * 2 // 3), _WHITE)


def _draw_fitted(target: Image, image: Image) -> None:
    """Draw an image as large as it fits into the middle of a target."""
    height, width = image.shape[:2]
    scale = min(target.shape[1] / width, target.shape[0] / height)
    size = max(1, int(width * scale)), max(1, int(height * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    left, top = (target.shape[1] - size[0]) // 2, (target.shape[0] - size[1]) // 2
    target[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=way)
