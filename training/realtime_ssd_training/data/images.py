"""Image files: what their headers say, and their pixels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.frames import Image

if TYPE_CHECKING:
    from PIL.Image import Image as Opened

__all__ = ["EXTENSIONS", "Header", "list_images", "read_header", "read_image"]

EXTENSIONS = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Endings of the files that count as images."""

_ORIENTATION = 0x0112
_WIDTH, _HEIGHT = 0x0100, 0x0101
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 4096


@dataclass(frozen=True, slots=True)
class Header:
    """The size of an image file.

    Attributes:
        stored: Width and height of the stored pixels; of a TIFF, which every decoder turns as it
            says, those of the turned ones.
        turned: Whether EXIF asks to turn or mirror them.
        sideways: Whether turning exchanges width and height.
    """

    stored: tuple[int, int]
    turned: bool = False
    sideways: bool = False

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height of the image as a viewer shows it."""
        return (self.stored[1], self.stored[0]) if self.sideways else self.stored


def read_header(path: Path) -> Header:
    """Read size and orientation of an image, and check that the file does not stop too early.

    A hole in the middle of a JPEG is not seen: its decoder paints over it.

    Args:
        path: Image file.

    Raises:
        ValueError: With what is wrong with the file, in a few words.
    """
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Odd EXIF and great size are no fault of the pixels; decoding decides.
            warnings.simplefilter("ignore")
            with Pillow.open(path) as image:
                header = _header(image)
                if not _complete(path, image.format or ""):
                    _decode(path, image)
    except FileNotFoundError:
        raise ValueError("the image file does not exist") from None
    except UnidentifiedImageError:
        empty = path.is_file() and not path.stat().st_size
        raise ValueError("the file is " + ("empty" if empty else "no readable image")) from None
    except (OSError, SyntaxError, TypeError, Pillow.DecompressionBombError) as error:
        raise ValueError(f"the image cannot be read ({error})") from None
    return header


def _header(image: Opened) -> Header:
    orientation = int(image.getexif().get(_ORIENTATION, 1))
    sideways = orientation in (5, 6, 7, 8)
    if image.format != "TIFF":
        return Header(image.size, orientation not in (0, 1), sideways)
    # Whether Pillow has exchanged the sides already depends on its version; the tags do not.
    tags = image.getexif()
    width, height = int(tags[_WIDTH]), int(tags[_HEIGHT])
    return Header((height, width) if sideways else (width, height))


def _complete(path: Path, kind: str) -> bool:
    """Tell whether the file surely holds its end: decoders paint a cut-off image grey silently."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if kind == "WEBP":
            file.seek(4)
            return size >= 8 + int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - _TAIL))
        return kind in _ENDS and _ENDS[kind] in file.read()


def _decode(path: Path, image: Opened) -> None:
    """Decode an image whose end marker is not where it belongs, or that has none."""
    try:
        image.load()
        read_image(path)
    except (OSError, RealtimeSSDError):
        raise ValueError("the image file is cut off, damaged or of an unusual kind") from None


def read_image(path: Path, turn: bool = True) -> Image:
    """Decode an image file.

    Args:
        path: Image file; its name may hold any character.
        turn: Whether to turn it as EXIF says.

    Returns:
        H × W × 3 uint8, BGR; grey and transparent images become colour images.

    Raises:
        RealtimeSSDError: If there is no such file or it cannot be decoded.
    """
    import cv2

    flags = cv2.IMREAD_COLOR if turn else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, flags) if data.size else None
    except OSError as error:
        raise RealtimeSSDError(
            f"image '{path}' cannot be read ({error.strerror}); put it back or open the data anew"
        ) from error
    except cv2.error:
        image = None
    if image is None:
        raise RealtimeSSDError(f"image '{path}' cannot be decoded; replace or remove it")
    return np.asarray(image, np.uint8)


def list_images(folder: Path) -> list[Path]:
    """List the image files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
