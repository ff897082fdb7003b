"""The picture that travels through the program: `Frame`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["Frame", "Image", "LazyFrame", "Surface"]

Image = NDArray[np.uint8]
"""An image: height × width × 3, uint8, blue-green-red."""


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A picture in GPU memory, as NV12, where a hardware decoder left it.

    Attributes:
        width: In pixels.
        height: In pixels.
        planes: Device addresses of luma and of interleaved chroma.
        pitches: Bytes from row to row of each plane.
        standard: Which matrix turns it into RGB.
        full_range: Whether luma goes from 0 to 255 rather than from 16 to 235.
        owner: Keeps the memory alive.
    """

    width: int
    height: int
    planes: tuple[int, int]
    pitches: tuple[int, int]
    standard: Literal["bt601", "bt709"]
    full_range: bool
    owner: object


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One captured picture with the time it belongs to.

    The image is made read-only: every stage sees the same pixels, and drawing happens on a copy.

    Attributes:
        image: Height × width × 3, uint8, BGR.
        index: Number of the frame in its source, from 0.
        source: Name of the source, without credentials.
        name: Name of a picture in its source: its file's, with folders where two would be equal.
        pts: Presentation time stamp in units of `time_base`, or None where the source has none.
        time_base: Seconds per unit of `pts`.
        captured_at: `time.monotonic()` in seconds when the picture arrived.
        surface: The same picture in GPU memory, where the decoder left it there.
    """

    image: Image
    index: int = 0
    source: str = ""
    pts: int | None = None
    time_base: Fraction = Fraction(1, 1000)
    captured_at: float = field(default_factory=time.monotonic)
    surface: Surface | None = None
    name: str = ""

    def __post_init__(self) -> None:
        image = self.image
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"a frame needs an H × W × 3 uint8 image, not {image.shape} {image.dtype}"
            )
        image.flags.writeable = False

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.image.shape[0])

    def renamed(self, source: str) -> Frame:
        """Give the same frame under another source's name."""
        return replace(self, source=source)

    @property
    def time(self) -> float:
        """Presentation time in seconds of the stream; 0.0 where the source has no time stamps."""
        return float(self.pts * self.time_base) if self.pts is not None else 0.0


class LazyFrame(Frame):
    """A frame whose image is made when it is first asked for, and kept from then on.

    Whoever needs the image first makes it, while it is warm in the cache of that core; an image
    that nobody needs is never made. A copy of any kind is a plain `Frame`.

    Args:
        paint: Gives the picture as H × W × 3 uint8 BGR; called once, by any thread.
        size: Its width and height in pixels.
        index: As in `Frame`.
        source: As in `Frame`.
        pts: As in `Frame`.
        time_base: As in `Frame`.
        captured_at: As in `Frame`; now if None.
        surface: As in `Frame`.
    """

    __slots__ = ("_lock", "_paint", "_painted", "_size")
    _lock: threading.Lock
    _paint: Callable[[], Image] | None
    _painted: Image | None
    _size: tuple[int, int]

    def __new__(cls, *args: Any, **values: Any) -> Frame:  # type: ignore[misc]
        """Make a plain frame of the fields of one, as `dataclasses.replace` asks for."""
        return Frame(**values) if "image" in values else super().__new__(cls)

    def __init__(
        self,
        paint: Callable[[], Image],
        size: tuple[int, int],
        index: int,
        source: str,
        pts: int | None,
        time_base: Fraction,
        captured_at: float | None = None,
        surface: Surface | None = None,
    ) -> None:
        values = {
            "surface": surface,
            "index": index,
            "source": source,
            "pts": pts,
            "time_base": time_base,
            "name": "",
            "captured_at": time.monotonic() if captured_at is None else captured_at,
            "_paint": paint,
            "_painted": None,
            "_lock": threading.Lock(),
            "_size": size,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def image(self) -> Image:
        """The picture in host memory, read-only."""
        with self._lock:
            if self._paint is not None:
                image = self._paint()
                image.flags.writeable = False
                object.__setattr__(self, "_painted", image)
                object.__setattr__(self, "_paint", None)  # lets go of the decoder's picture
            return cast("Image", self._painted)

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self._size[0]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self._size[1]

    def __reduce__(self) -> tuple[type[Frame], tuple[Any, ...]]:
        """Copy and pickle as a plain frame."""
        return Frame, tuple(getattr(self, field.name) for field in fields(Frame))

    def renamed(self, source: str) -> LazyFrame:
        """See `Frame.renamed`."""
        return LazyFrame(
            lambda: self.image,
            self._size,
            self.index,
            source,
            self.pts,
            self.time_base,
            self.captured_at,
            self.surface,
        )
