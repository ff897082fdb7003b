"""Annotated images in a folder, each under the name of its source image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.files import (
    check_folder_not_deleted,
    check_output,
    make_folder,
    write_output,
)
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sources.formats import HEIF_SUFFIXES, IMAGE_SUFFIXES

__all__ = ["ImageSink", "written_name"]


def written_name(name: str) -> str:
    """Return the file name of an annotated photo: JPEG if OpenCV does not write its format.

    Example:
        >>> written_name("a.png"), written_name("IMG_1.HEIC")
        ('a.png', 'IMG_1.HEIC.jpg')
    """
    suffix = Path(name).suffix.lower()
    written = suffix in IMAGE_SUFFIXES and suffix not in HEIF_SUFFIXES
    return name if written else f"{name}.jpg"


class ImageSink(BaseSink):
    """Writes each annotated frame as an image.

    Args:
        folder: Folder for the images; created if it does not exist.
        names: File names below the folder, by frame index. By default each image has the name of
            its frame, or the frame index if that has none.
        overwrite: Whether existing files may be replaced.

    Raises:
        UsageError: If the folder cannot be created.
    """

    def __init__(self, folder: Path, names: Sequence[str] = (), *, overwrite: bool = False) -> None:
        self._folder, self._names, self._overwrite = folder, names, overwrite
        make_folder(folder)

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`."""
        check_folder_not_deleted(self._folder)
        frame = result.frame
        default = written_name(frame.name or f"{frame.index:06d}.jpg")
        path = self._folder / (self._names[frame.index] if self._names else default)
        check_output(path, overwrite=self._overwrite)
        try:
            success, data = cv2.imencode(path.suffix, result.annotated_image())
        except cv2.error:
            success = False
        if not success:
            raise UsageError(f"'{path}' cannot be written: OpenCV has no format '{path.suffix}'")
        write_output(path, data.tobytes())
