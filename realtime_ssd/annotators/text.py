"""Text on images: plates with labels, and lines in the corner."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from realtime_ssd.annotators.fonts import render
from realtime_ssd.annotators.palette import Color, contrasting
from realtime_ssd.core.frames import Image
from realtime_ssd.core.printable import printable

__all__ = ["draw_lines", "draw_text", "font_size_for", "label_plate"]

_LONGEST_TEXT = 48
_LINE_HEIGHT = 1.5
"""Distance of two lines of text, in sizes of the font."""


def font_size_for(image: Image) -> int:
    """Return a size of the font in pixels that is readable on an image."""
    height, width = image.shape[:2]
    return max(12, int(min(height, width) / 38 + 0.5))


@lru_cache(maxsize=512)
def label_plate(texts: tuple[str, ...], size: int, color: Color) -> Image:
    """Return a plate in one color with a line of text in its middle.

    Its width and height are even, so that video with 4:2:0 chroma keeps its color.

    Args:
        texts: Parts of the line, with a space between them; parts that repeat are drawn once.
            Very long ones are shortened.
        size: Size of the font in pixels.
        color: Color of the plate; the text is black or white for contrast.

    Returns:
        H × W × 3, uint8, BGR, read-only.
    """
    words = [render(word, size) for text in texts for word in _words(text)]
    ascent = max(word.ascent for word in words)
    space, padding = round(size * 0.3), max(2, round(size * 0.25))
    ink = ascent + max(word.mask.shape[0] - word.ascent for word in words)
    height = _even(max(round(size * 1.4), ink + 4))
    width = sum(word.mask.shape[1] for word in words) + space * (len(words) - 1)
    plate = np.zeros((height, _even(width + 2 * padding)), np.uint8)
    x, baseline = (plate.shape[1] - width) // 2, (height - ink) // 2 + ascent
    for word in words:
        rows, columns = word.mask.shape
        top = baseline - word.ascent
        plate[top : top + rows, x : x + columns] = word.mask
        x += columns + space
    colored: Image = cv2.applyColorMap(plate, _shades(color))
    colored.flags.writeable = False
    return colored


def _words(text: str) -> list[str]:
    """Return the words of a text if they certainly run from left to right, else all of it."""
    text = printable(text)
    if len(text) > _LONGEST_TEXT:
        text = text[: _LONGEST_TEXT - 3] + "..."
    return (text.split() if text.isascii() else []) or [text]


@lru_cache(maxsize=256)
def _shades(color: Color) -> Image:
    """Return the colors for all opacities of text on a plate, 256 × 1 × 3."""
    opacity = np.linspace(0, 1, 256)[:, None, None]
    shades = np.array(color) * (1 - opacity) + np.array(contrasting(color)) * opacity
    return np.asarray(np.round(shades), np.uint8)


def draw_text(image: Image, text: str, corner: tuple[int, int], size: int, color: Color) -> None:
    """Draw one line of text.

    Args:
        image: H × W × 3, uint8, BGR; changed in place. What does not fit into it is cut off.
        text: The text.
        corner: x and y of the upper left corner of the text in pixels, within the image.
        size: Size of the font in pixels.
        color: Color of the text.
    """
    x, y = corner
    target = image[y:, x:]
    mask = render(text, size).mask[: target.shape[0], : target.shape[1]]
    target = target[: mask.shape[0], : mask.shape[1]]
    opacity = mask[..., None].astype(np.int32)
    target[:] = ((255 - opacity) * target + opacity * np.array(color, np.int32) + 127) // 255


def draw_lines(image: Image, lines: Sequence[str]) -> None:
    """Draw lines of text in the upper left corner, on a darkened background.

    Args:
        image: H × W × 3, uint8, BGR; changed in place.
        lines: Lines from top to bottom.
    """
    lines = [printable(line) for line in lines]
    size = font_size_for(image)
    step, margin = round(size * _LINE_HEIGHT), size // 2
    widths = [render(line, size).mask.shape[1] for line in lines]
    background = image[: step * len(lines), : max(widths, default=-2 * margin) + 2 * margin]
    background[:] = (background.astype(np.uint16) * 2 // 5).astype(np.uint8)
    for number, line in enumerate(lines):
        top = step * number + (step - render(line, size).mask.shape[0]) // 2
        draw_text(image, line, (margin, top), size, (255, 255, 255))


def _even(value: int) -> int:
    """Return the value, or the next one if it is odd."""
    return value + value % 2
