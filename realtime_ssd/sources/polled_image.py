"""Images on web servers, and images that are read again and again, such as a camera's snapshot."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote, urlsplit

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.container import InputContainer

from realtime_ssd.core.errors import SourceError, redact
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.sources.base import BaseSource, InputLimits, SourceInfo
from realtime_ssd.sources.ffmpeg import (
    FrameConverter,
    error_reason,
    media_location,
    undecodable,
)
from realtime_ssd.sources.formats import IMAGE_SUFFIXES
from realtime_ssd.sources.images import load_image
from realtime_ssd.sources.media_input import open_input, pixel_problem

__all__ = ["PolledImage", "RemoteImage", "is_image", "is_image_file"]

TIMEOUT = 8.0
"""Limit in seconds for opening an image on the network and for each read from it."""

_STILL_BRANDS = ("mif1", "heic", "heix", "avif", "mif2")  # of HEIF files with single images


def is_image(container: InputContainer) -> bool:
    """Return whether a container holds one image; may read from it, so it is closed afterwards."""
    name = container.format.name
    if name.startswith("mov,"):
        return container.metadata.get("major_brand", "") in _STILL_BRANDS
    if name != "image2" and not name.endswith("_pipe"):
        return False
    packets = container.demux(video=0)
    images = 0
    while images < 2 and (packet := next(packets, None)) is not None and packet.size:
        images += 1
    return images == 1


def is_image_file(path: Path, limits: InputLimits) -> bool:
    """Return whether a local file is one JPEG, PNG or similar image, whatever its name.

    Args:
        path: An existing file.
        limits: Limits of the source.
    """
    try:
        with open_input(media_location(str(path)), limits=limits) as container:
            return not container.format.name.startswith("mov,") and is_image(container)
    except (av.error.FFmpegError, OSError, IndexError):
        return False


class RemoteImage(BaseSource):
    """One image on a web server.

    Args:
        url: Its address.
        limits: Limits of the source.
    """

    def __init__(self, url: str, limits: InputLimits | None = None) -> None:
        self._url, self._limits = url, limits or InputLimits()
        self._is_read = False
        name = unquote(urlsplit(url).path).rsplit("/", 1)[-1] or "image"
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            name += ".jpg"
        self.info = SourceInfo(
            redact(url), time_base=Fraction(1), frame_count=1, still=True, names=(name,)
        )

    def read(self) -> Frame | None:
        """See `Source.read`."""
        if self._is_read:
            return None
        self._is_read = True
        image = _load(self._url, self._limits)
        return Frame(image, 0, self.info.name, 0, Fraction(1), name=self.info.names[0])


class PolledImage(BaseSource):
    """An image that is replaced from time to time, as a live source.

    Args:
        location: File or URL.
        interval: Seconds between two readings.
        limits: Limits of the source.
    """

    def __init__(
        self, location: str | Path, interval: float, *, limits: InputLimits | None = None
    ) -> None:
        limits = limits or InputLimits()
        self._interval, self._index = interval, 0
        self._load: Callable[[], Image] = lambda: (
            _load_file(location, limits) if isinstance(location, Path) else _load(location, limits)
        )
        self._started = time.monotonic()
        self._due = self._started
        self._interrupted = threading.Event()
        rate = Fraction(1 / interval).limit_denominator(1000)
        self.info = SourceInfo(redact(str(location)), live=True, rate=rate or None)

    def open(self) -> None:
        """See `Source.open`."""
        self._interrupted.clear()
        self._due = time.monotonic()

    def read(self) -> Frame | None:
        """See `Source.read`; waits until the interval has passed."""
        if self._interrupted.wait(max(0.0, self._due - time.monotonic())):
            return None
        image = self._load()
        now = time.monotonic()
        self._due = max(self._due + self._interval, now)
        pts = round((now - self._started) * 1000)
        frame = Frame(image, self._index, self.info.name, pts, captured_at=now)
        self._index += 1
        return frame

    def interrupt(self) -> None:
        """See `Source.interrupt`."""
        self._interrupted.set()

    def close(self) -> None:
        """See `Source.close`."""
        self._interrupted.set()


def _load_file(path: Path, limits: InputLimits) -> Image:
    image, problem = load_image(path, limits)
    if image is None:
        raise SourceError(f"'{path}' {problem}")
    return image


def _load(url: str, limits: InputLimits) -> Image:
    """Download an image and return it upright as BGR."""
    name = redact(url)
    try:
        with open_input(url, limits=limits, timeout=TIMEOUT) as container:
            stream = container.streams.video[0]
            problem = undecodable(name, container, stream) or pixel_problem(name, stream, limits)
            if problem:
                raise SourceError(problem)
            frame = next(container.decode(video=0), None)
            if frame is not None:
                return FrameConverter().to_bgr(frame)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise SourceError(f"'{name}' cannot be read: {error_reason(error)}") from None
    raise SourceError(f"'{name}' contains no image")
