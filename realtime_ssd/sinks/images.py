"""Annotated photos into a folder, each under its own name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.files import make_folder
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink

__all__ = ["ImageSink"]


class ImageSink(BaseSink):
    """Writes each annotated frame as an image.

    Args:
        folder: Where to; it is made if need be.
        names: File name of each photo below the folder, by the number of its frame; the frames'
            own names by default.
        overwrite: Whether existing files may be replaced.

    Raises:
        UsageError: If the folder cannot be made.
    """

    def __init__(self, folder: Path, names: Sequence[str] = (), *, overwrite: bool = False) -> None:
        self._folder, self._names, self._overwrite = folder, names, overwrite
        make_folder(folder)

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`."""
        frame = result.frame
        own = frame.name or f"{frame.index:06d}.jpg"
        path = self._folder / (self._names[frame.index] if self._names else own)
        if path.exists() and not self._overwrite:
            raise UsageError(f"'{path}' exists; set `overwrite` to replace it")
        if path.parent != self._folder:
            make_folder(path.parent)
        try:
            good, data = cv2.imencode(path.suffix, result.annotated_image())
        except cv2.error:
            good = False
        if not good:
            raise UsageError(f"'{path}' cannot be written: OpenCV knows no format '{path.suffix}'")
        try:
            path.write_bytes(data.tobytes())
        except OSError as error:
            raise RealtimeSSDError(f"'{path}' cannot be written: {error.strerror}") from None
