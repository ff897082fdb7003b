"""Image files: validated headers and decoded pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.frames import Image

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

__all__ = ["EXTENSIONS", "Header", "list_images", "read_header", "read_image"]

EXTENSIONS = frozenset({".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes of image files."""

_ORIENTATION = 0x0112
_WIDTH, _HEIGHT = 0x0100, 0x0101
_END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 4096
_MAX_PIXELS = 1 << 30
"""Pixels above which OpenCV refuses to decode an image."""


@dataclass(frozen=True, slots=True)
class Header:
    """Size and orientation of an image file.

    Attributes:
        stored: Width and height of the stored pixels; for TIFF, whose orientation every decoder
            applies, those of the oriented image.
        rotated: Whether EXIF asks to rotate or mirror the stored pixels.
        transposed: Whether that exchanges width and height.
    """

    stored: tuple[int, int]
    rotated: bool = False
    transposed: bool = False

    @property
    def displayed(self) -> tuple[int, int]:
        """Width and height of the image as a viewer displays it."""
        return (self.stored[1], self.stored[0]) if self.transposed else self.stored


def read_header(path: Path) -> Header:
    """Read size and orientation of an image, and check that the file is not truncated.

    Damage in the middle of a JPEG is not detected, because its decoder conceals it.

    Args:
        path: Image file.

    Raises:
        ValueError: If the image is not usable; the message says why.
    """
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        with warnings.catch_warnings(), _without_size_limit():
            # Pillow warns about unusual EXIF data.
            warnings.simplefilter("ignore")
            with Pillow.open(path) as image:
                header = _header(image)
                _check_pixels(image.size)
                if not _has_end(path, image.format or ""):
                    _check_decodable(path, image)
    except FileNotFoundError:
        raise ValueError("the image file does not exist") from None
    except UnidentifiedImageError:
        empty = path.is_file() and not path.stat().st_size
        raise ValueError("the file is " + ("empty" if empty else "not a readable image")) from None
    except (OSError, SyntaxError, TypeError) as error:
        raise ValueError(f"the image cannot be read ({error})") from None
    return header


@contextmanager
def _without_size_limit() -> Iterator[None]:
    """Lift Pillow's limit of 179 megapixels: aerial photos and slides are larger."""
    from PIL import Image as Pillow

    limit = Pillow.MAX_IMAGE_PIXELS
    Pillow.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Pillow.MAX_IMAGE_PIXELS = limit


def _check_pixels(size: tuple[int, int]) -> None:
    if size[0] * size[1] > _MAX_PIXELS:
        raise ValueError(
            f"the image has {size[0]}x{size[1]} pixels, more than the {_MAX_PIXELS // 10**6} "
            "million that can be decoded; cut it into smaller ones"
        )


def _header(image: PillowImage) -> Header:
    tags = image.getexif()
    orientation = int(tags.get(_ORIENTATION, 1))
    transposed = orientation in (5, 6, 7, 8)
    if image.format != "TIFF":
        return Header(image.size, orientation not in (0, 1), transposed)
    # Whether `image.size` is already transposed depends on the version of Pillow.
    width, height = int(tags[_WIDTH]), int(tags[_HEIGHT])
    return Header((height, width) if transposed else (width, height))


def _has_end(path: Path, kind: str) -> bool:
    """Return whether a file has an end marker; decoders fill truncated images with gray."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if kind == "WEBP":
            file.seek(4)
            return size >= 8 + int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - _TAIL))
        return kind in _END_MARKERS and _END_MARKERS[kind] in file.read()


def _check_decodable(path: Path, image: PillowImage) -> None:
    """Decode an image whose end marker is missing or unknown."""
    try:
        image.load()
        read_image(path)
    except (OSError, RealtimeSSDError):
        raise ValueError("the image file is truncated, damaged or of an unusual kind") from None


def read_image(path: Path, apply_exif: bool = True) -> Image:
    """Decode an image file.

    Args:
        path: Image file; its name may contain any character.
        apply_exif: Whether to rotate and mirror the image as its EXIF orientation requires.

    Returns:
        H × W × 3 uint8, BGR; gray and transparent images are converted.

    Raises:
        RealtimeSSDError: If the file does not exist or cannot be decoded.
    """
    import cv2

    flags = cv2.IMREAD_COLOR if apply_exif else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, flags) if data.size else None
    except OSError as error:
        raise RealtimeSSDError(
            f"image '{path}' cannot be read ({error.strerror}); restore it or open the dataset "
            "again"
        ) from error
    except cv2.error:
        image = None
    if image is None:
        raise RealtimeSSDError(f"image '{path}' cannot be decoded; replace or remove it")
    return np.asarray(image, np.uint8)


def list_images(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
