"""`Frame`: one captured image with its time stamp, passed from sources to sinks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Frame", "Image", "LazyImage", "Surface"]

Image = NDArray[np.uint8]
"""An image: height × width × 3, uint8, BGR."""


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """An NV12 image in GPU memory, where a hardware decoder left it.

    Attributes:
        width: In pixels.
        height: In pixels.
        planes: Device addresses of the luma plane and of the interleaved chroma plane.
        pitches: Bytes from one row to the next, of each plane.
        standard: Matrix for the conversion to RGB.
        full_range: Whether luma spans 0 to 255 rather than 16 to 235.
        owner: Keeps the memory alive.
    """

    width: int
    height: int
    planes: tuple[int, int]
    pitches: tuple[int, int]
    standard: Literal["bt601", "bt709"]
    full_range: bool
    owner: object


class LazyImage:
    """An image that the first reader converts, in its own thread, and that is kept afterwards.

    The pixels are then warm in the cache of the core that needs them, and an image that is never
    read is never converted.

    Args:
        convert: Returns the image, H × W × 3 uint8 BGR. Called until it succeeds once, by any
            thread, and dropped after that.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """

    __slots__ = ("_content", "_lock", "shape")

    def __init__(self, convert: Callable[[], Image], width: int, height: int) -> None:
        self.shape = (height, width, 3)
        self._content: Callable[[], Image] | Image = convert
        self._lock = threading.Lock()

    def get(self) -> Image:
        """Return the image, read-only.

        Raises:
            ValueError: If the converted image has another size or type than announced.
            Exception: Whatever the conversion raises; the next call converts again.
        """
        with self._lock:
            content = self._content
            if not isinstance(content, np.ndarray):
                content = _read_only(content())
                if content.shape != self.shape:
                    raise ValueError(f"expected an image of {self.shape}, got {content.shape}")
                self._content = content  # releases the decoded frame that `convert` holds
            return content


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One captured image with its time stamp.

    The pixels are read-only: every stage sees the same image, and annotators draw on a copy.
    `dataclasses.replace` shares the pixels and leaves a lazy image unconverted; a copy or a pickle
    holds the converted image, without the surface.

    Attributes:
        pixels: The image, H × W × 3 uint8 BGR, which is made read-only; or a `LazyImage`.
        index: Number of the frame in its source, from 0.
        source: Name of the source, without credentials.
        pts: Presentation time stamp in units of `time_base`, or None if the source has none.
        time_base: Seconds per unit of `pts`.
        captured_at: `time.monotonic()` in seconds when the frame arrived.
        surface: The same image in GPU memory, if the decoder left it there.
        name: Name of a still image within its source: the file name, preceded by folders where
            file names repeat.
        discontinuity: Whether this is the first frame after the source was lost and reopened, or
            jumped in time.
        pixel_aspect: Displayed width of a pixel divided by its displayed height.

    Raises:
        ValueError: If the image is not H × W × 3 uint8.

    Example:
        >>> frame = Frame(np.zeros((36, 64, 3), np.uint8), pts=50, time_base=Fraction(1, 25))
        >>> frame.width, frame.height, frame.time
        (64, 36, 2.0)
    """

    pixels: Image | LazyImage
    index: int = 0
    source: str = ""
    pts: int | None = None
    time_base: Fraction = Fraction(1, 1000)
    captured_at: float = field(default_factory=time.monotonic)
    surface: Surface | None = None
    name: str = ""
    discontinuity: bool = False
    pixel_aspect: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, LazyImage):
            _read_only(self.pixels)

    @property
    def image(self) -> Image:
        """The image in host memory, H × W × 3 uint8 BGR, read-only."""
        pixels = self.pixels
        return pixels.get() if isinstance(pixels, LazyImage) else pixels

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    @property
    def time(self) -> float:
        """Presentation time in seconds of the stream; 0.0 if the source has no time stamps."""
        return float(self.pts * self.time_base) if self.pts is not None else 0.0

    def __reduce__(self) -> tuple[type[Frame], tuple[Any, ...]]:
        """Copy and pickle the image in host memory."""
        values = (self.index, self.source, self.pts, self.time_base, self.captured_at)
        return Frame, (
            *(self.image, *values, None),
            *(self.name, self.discontinuity, self.pixel_aspect),
        )


def _read_only(image: Image) -> Image:
    """Make an image read-only and return it, after checking its shape and type."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"a frame needs an H × W × 3 uint8 image, not {image.shape} {image.dtype}")
    image.flags.writeable = False
    return image
