"""Rendering of text in any script, with OpenCV 4 and 5.

OpenCV 5 has fonts for all scripts. OpenCV 4 draws ASCII only; other text is drawn by Pillow with a
font of the system, where both are present.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

__all__ = ["TextMask", "render"]

_log = logging.getLogger(__name__)

Mask = NDArray[np.uint8]
_WEIGHT = 500  # between regular and semibold, which stays readable at 10 pixels
_HERSHEY = cv2.FONT_HERSHEY_SIMPLEX
_HERSHEY_EM = 30.0  # size in pixels whose capital letters are as high as those of scale 1
_FONT_FACE_RATIO = 0.95  # the same for OpenCV 5, relative to its own measure of size
_MAX_FONTS = 3000  # files of the system that are considered
_PREFERRED = (
    "notosanscjk",
    "sourcehansans",
    "notosans-regular",
    "dejavusans.",
    "droidsansfallback",
)
_MISSING_GLYPH = "\U0010ffff"
_lock = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class TextMask:
    """One line of text, cropped to its ink.

    Attributes:
        mask: Opacity of each pixel from 0 to 255, H × W, read-only; 0 × 0 if there is no ink.
        ascent: Rows of the mask that are above the baseline.
    """

    mask: NDArray[np.uint8]
    ascent: int


def render(text: str, size: int) -> TextMask:
    """Return one line of text.

    Args:
        text: Any text; control characters are drawn as spaces.
        size: Size of the font in pixels.
    """
    return _render(_one_line(text), size)


def _one_line(text: str) -> str:
    """Return a text without control characters and without halves of characters."""
    if text.isascii() and text.isprintable():
        return text
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(" " if unicodedata.category(one) in ("Cc", "Zl", "Zp") else one for one in text)


@lru_cache(maxsize=1024)
def _render(text: str, size: int) -> TextMask:
    with _lock:  # fonts are not made for several threads
        if hasattr(cv2, "FontFace"):
            mask, baseline = _render_with_font_face(text, size)
        elif text.isascii():
            mask, baseline = _render_with_hershey(text, size)
        else:
            mask, baseline = _render_with_pillow(text, size)
    left, top, width, height = cv2.boundingRect(mask)
    mask = mask[top : top + height, left : left + width].copy()
    mask.flags.writeable = False
    return TextMask(mask, baseline - top if height else 0)


@cache
def _font_face() -> Any:
    return cv2.FontFace("sans")


def _render_with_font_face(text: str, size: int) -> tuple[Mask, int]:
    """Return a mask with margins, and the row of the baseline; also of the next functions."""
    height = max(1, round(size * _FONT_FACE_RATIO))
    # Wider than any text of this length, because OpenCV wraps text at the edge of the image.
    mask = np.zeros((4 * size, 2 * size * (len(text) + 2)), np.uint8)
    cv2.putText(mask, text, (size, 2 * size), (255, 255, 255), _font_face(), height, weight=_WEIGHT)
    return mask, 2 * size


def _render_with_hershey(text: str, size: int) -> tuple[Mask, int]:
    scale = size / _HERSHEY_EM
    thickness = max(1, round(scale * 1.6))
    (width, height), below = cv2.getTextSize(text, _HERSHEY, scale, thickness)
    mask = np.zeros((height + 2 * below + 2 * size, width + 2 * size), np.uint8)
    origin = (size, size + height)
    cv2.putText(mask, text, origin, _HERSHEY, scale, 255, thickness, cv2.LINE_AA)
    return mask, size + height


def _render_with_pillow(text: str, size: int) -> tuple[Mask, int]:
    try:
        font = _system_font(frozenset(text), size)
    except ImportError:
        font = None
    if font is None:
        _warn()
        return _render_with_hershey(_to_ascii(text), size)
    from PIL import Image, ImageDraw

    left, top, right, bottom = (round(value) for value in font.getbbox(text, anchor="ls"))
    canvas = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), text, fill=255, font=font, anchor="ls")
    return np.array(canvas, np.uint8), 2 - top


@lru_cache(maxsize=256)
def _system_font(characters: frozenset[str], size: int) -> FreeTypeFont | None:
    """Return a font of the system that has all characters, or None.

    Raises:
        ImportError: If Pillow is not installed.
    """
    from PIL import ImageFont

    path = _font_with("".join(sorted(characters)))
    return None if path is None else ImageFont.truetype(path, size)


@cache
def _font_with(characters: str) -> str | None:
    """Return the file of the first font that has all characters, or None."""
    from PIL import ImageFont

    for path in _font_files():
        try:
            font = ImageFont.truetype(path, 16)
            missing = bytes(font.getmask(_MISSING_GLYPH))
            glyphs = [bytes(font.getmask(one)) for one in characters if not one.isspace()]
        except (OSError, ValueError):
            continue
        if missing not in glyphs:
            return path
    return None


@cache
def _font_files() -> tuple[str, ...]:
    """Return the font files of the system, those that cover many scripts first."""
    found = list(islice(_walk_fonts(), _MAX_FONTS))

    def rank(path: str) -> tuple[int, str]:
        name = Path(path).name.lower()
        ranks = (number for number, start in enumerate(_PREFERRED) if name.startswith(start))
        return next(ranks, len(_PREFERRED)), path

    return tuple(sorted(found, key=rank))


def _walk_fonts() -> Iterator[str]:
    for folder in _font_folders():
        for root, _, files in os.walk(folder):
            for file in files:
                if file.lower().endswith((".ttf", ".ttc", ".otf")):
                    yield os.path.join(root, file)


def _font_folders() -> list[Path]:
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA", home)) / "Microsoft/Windows/Fonts"
        return [Path(os.environ.get("WINDIR", "C:\\Windows")) / "Fonts", local]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    shared = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts")]
    return [*shared, home / ".local/share/fonts", home / ".fonts"]


def _to_ascii(text: str) -> str:
    """Return a text without accents, and with a question mark for every other character."""
    plain = unicodedata.normalize("NFKD", text)
    letters = "".join(one for one in plain if not unicodedata.combining(one))
    return letters.encode("ascii", "replace").decode("ascii")


@cache
def _warn() -> None:
    """Log once that some text cannot be drawn as it is."""
    _log.warning(
        "labels outside ASCII cannot be drawn: OpenCV %s has no letters for them, and Pillow or a "
        "font of the system is missing; run pip install 'opencv-python>=5'",
        cv2.__version__,
    )
