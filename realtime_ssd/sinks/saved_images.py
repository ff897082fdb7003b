"""Images without annotations: whole frames, and crops of the detected objects."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.files import check_folder_not_deleted, write_output
from realtime_ssd.core.frames import Image
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sinks.frame_names import FrameNames, prepare_folder, safe_name

__all__ = ["CropSink", "FrameSink"]

_JPEG_QUALITY = 95


class FrameSink(BaseSink):
    """Saves frames as they were captured, without annotations.

    Args:
        folder: Folder for the images; created if it does not exist.
        which: "all" frames, or only those in which something was "detected".
        overwrite: Whether the folder may contain files already.

    Raises:
        UsageError: If the folder is not empty, or cannot be created.
    """

    def __init__(
        self, folder: Path, which: Literal["detected", "all"] = "all", *, overwrite: bool = False
    ) -> None:
        self._folder, self._which, self._names = folder, which, FrameNames()
        prepare_folder(folder, overwrite=overwrite)

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`."""
        check_folder_not_deleted(self._folder)
        name = self._names(result.frame)
        if self._which == "all" or len(result.detections):
            _save(self._folder / name, result.frame.image)


class CropSink(BaseSink):
    """Saves the part of the frame inside each box, in one folder per class.

    The file name is that of the frame, followed by the track id or else the number of the detection
    in the frame.

    Args:
        folder: Folder for the folders of the classes; created if it does not exist.
        overwrite: Whether the folder may contain files already.

    Raises:
        UsageError: If the folder is not empty, or cannot be created.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        self._folder, self._names = folder, FrameNames()
        prepare_folder(folder, overwrite=overwrite)

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`; boxes outside the frame are skipped."""
        check_folder_not_deleted(self._folder)
        name = safe_name(self._names(result.frame).rpartition(".")[0])
        for number, item in enumerate(result.detections):
            crop = _crop(result.frame.image, item.box)
            if crop.size:
                end = f"{number}" if item.track_id is None else f"track{item.track_id}"
                path = self._folder / safe_name(item.label) / f"{name}_{end}.jpg"
                _save(path, crop)


def _crop(image: Image, box: tuple[float, float, float, float]) -> Image:
    """Return the pixels that a box touches; empty if it lies outside."""
    height, width = image.shape[:2]
    x1, y1 = (max(0, int(np.floor(value))) for value in box[:2])
    x2, y2 = int(np.ceil(min(box[2], width))), int(np.ceil(min(box[3], height)))
    return image[y1 : max(y1, y2), x1 : max(x1, x2)]


def _save(path: Path, image: Image) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix == ".jpg" else []
    success, data = cv2.imencode(path.suffix, np.ascontiguousarray(image), options)
    if not success:
        raise RealtimeSSDError(f"'{path}' cannot be written: OpenCV cannot encode the image")
    write_output(path, data.tobytes())
