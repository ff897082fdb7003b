"""Cameras of this machine, through OpenCV."""

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


def list_cameras() -> list[str]:
    """List the video devices of this machine; on systems without `/dev` the list is empty."""
    return sorted(str(path) for path in Path("/dev").glob("video[0-9]*"))


class Camera(BaseSource):
    """Reads a camera; only the newest picture counts, so its buffer is kept at one frame.

    Args:
        number: Camera number as the system counts, from 0.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._device: cv2.VideoCapture | None = None
        self._index = 0
        self._begin = time.monotonic()
        self.info = SourceInfo(f"camera {number}", live=True)

    def open(self) -> None:
        """See `Source.open`."""
        self.close()
        linux = sys.platform.startswith("linux")
        if linux and not Path(f"/dev/video{self._number}").exists():
            found = ", ".join(list_cameras()) or "no camera at all"
            raise UsageError(f"camera {self._number} is not there; this machine has {found}")
        device = cv2.VideoCapture(self._number, cv2.CAP_V4L2 if linux else cv2.CAP_ANY)
        if not device.isOpened():
            device.release()
            raise SourceError(
                f"camera {self._number} cannot be opened; another program may use it, or it may "
                "not be allowed (group 'video')"
            )
        device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._device = device
        rate = device.get(cv2.CAP_PROP_FPS)
        self.info = SourceInfo(
            self.info.name,
            int(device.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(device.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            live=True,
            rate=Fraction(rate).limit_denominator(1001) if rate > 0 else None,
        )

    def read(self) -> Frame | None:
        """See `Source.read`."""
        if self._device is None:
            return None
        good, image = self._device.read()
        if not good:
            raise SourceError(f"camera {self._number} gives no picture; is it still plugged in?")
        now = time.monotonic()
        frame = Frame(
            np.ascontiguousarray(image, np.uint8),
            self._index,
            self.info.name,
            pts=round((now - self._begin) * 1000),
            captured_at=now,
        )
        self._index += 1
        return frame

    def close(self) -> None:
        """See `Source.close`."""
        device, self._device = self._device, None
        if device is not None:
            device.release()
