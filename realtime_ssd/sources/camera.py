"""Local cameras, read through OpenCV."""

from __future__ import annotations

import sys
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.sources.base import BaseSource, SourceInfo

__all__ = ["Camera", "list_cameras"]

_DEVICES = Path("/dev")


def list_cameras() -> list[str]:
    """Return the paths of the video devices; an empty list on systems without `/dev`."""
    return sorted(str(path) for path in _DEVICES.glob("video[0-9]*"))


class Camera(BaseSource):
    """Camera of this machine; the driver buffers a single frame, so that each read is recent.

    Args:
        number: Camera number of the operating system, from 0.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._capture: cv2.VideoCapture | None = None
        self._index = 0
        self._start = time.monotonic()
        self.info = SourceInfo(f"camera {number}", live=True)

    def open(self) -> None:
        """See `Source.open`."""
        self.close()
        linux = sys.platform.startswith("linux")
        if linux and not (_DEVICES / f"video{self._number}").exists():
            available = ", ".join(list_cameras()) or "no camera"
            raise UsageError(f"camera {self._number} does not exist; this machine has {available}")
        capture = cv2.VideoCapture(self._number, cv2.CAP_V4L2 if linux else cv2.CAP_ANY)
        if not capture.isOpened():
            capture.release()
            raise SourceError(
                f"camera {self._number} cannot be opened; another program may be using it, or "
                "this user may lack permission (group 'video')"
            )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._capture = capture
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.info = SourceInfo(
            self.info.name,
            int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            live=True,
            rate=Fraction(rate).limit_denominator(1001) if rate > 0 else None,
        )

    def read(self) -> Frame | None:
        """See `Source.read`."""
        if self._capture is None:
            return None
        success, image = self._capture.read()
        if not success:
            raise SourceError(f"camera {self._number} returned no frame; is it still connected?")
        now = time.monotonic()
        frame = Frame(
            np.ascontiguousarray(image, np.uint8),
            self._index,
            self.info.name,
            pts=round((now - self._start) * 1000),
            captured_at=now,
        )
        self._index += 1
        return frame

    def close(self) -> None:
        """See `Source.close`."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()
