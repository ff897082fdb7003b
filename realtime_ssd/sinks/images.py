"""Annotated photos into a folder, each under its own name."""

from __future__ import annotations

from pathlib import Path

import cv2

from realtime_ssd.errors import RealtimeSSDError, UsageError
from realtime_ssd.sinks.base import BaseSink, Result

__all__ = ["ImageSink"]


class ImageSink(BaseSink):
    """Writes each annotated frame as an image.

    Args:
        folder: Where to; it is made if need be.
        single: File name to use instead of the frame's, for a single photo.
        overwrite: Whether existing files may be replaced.

    Raises:
        UsageError: If the folder cannot be made.
    """

    def __init__(self, folder: Path, single: str = "", *, overwrite: bool = False) -> None:
        self._folder, self._single, self._overwrite = folder, single, overwrite
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"folder '{folder}' cannot be made: {error.strerror}") from None

    def write(self, result: Result) -> None:
        """See `Sink.write`."""
        frame = result.frame
        path = self._folder / (self._single or frame.name or f"{frame.index:06d}.jpg")
        if path.exists() and not self._overwrite:
            raise UsageError(f"'{path}' exists; add --overwrite to replace it")
        try:
            good, data = cv2.imencode(path.suffix, result.annotated())
        except cv2.error:
            good = False
        if not good:
            raise UsageError(f"'{path}' cannot be written: OpenCV knows no format '{path.suffix}'")
        try:
            path.write_bytes(data.tobytes())
        except OSError as error:
            raise RealtimeSSDError(f"'{path}' cannot be written: {error.strerror}") from None
