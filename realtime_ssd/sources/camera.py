"""Local cameras, read through OpenCV."""

from __future__ import annotations

import logging
import re
import sys
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from urllib.parse import parse_qsl

import cv2
import numpy as np

from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.sources.base import BaseSource, SourceInfo

__all__ = ["Camera", "CameraSettings", "list_cameras", "parse_camera"]

_DEVICES = Path("/dev")
_SIZE = re.compile(r"^([0-9]{1,5})[xX]([0-9]{1,5})$")
_EXAMPLE = "for example camera:0?size=1280x720&fps=30&format=MJPG"
_log = logging.getLogger(__name__)


def list_cameras() -> list[str]:
    """Return the paths of the video devices; an empty list on systems without `/dev`."""
    return sorted(str(path) for path in _DEVICES.glob("video[0-9]*"))


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """What is requested from a camera; the driver decides what it delivers.

    Attributes:
        width: In pixels; 0 for the driver's choice.
        height: In pixels; 0 for the driver's choice.
        fps: Frames per second; 0 for the driver's choice.
        format: Pixel format of four letters, such as "MJPG"; empty for MJPG if a size or rate is
            requested, since USB is too slow for most of them otherwise, else the driver's choice.
    """

    width: int = 0
    height: int = 0
    fps: float = 0.0
    format: str = ""


def parse_camera(text: str) -> tuple[int | str, CameraSettings]:
    """Return the number or device path of a camera, and its settings.

    Args:
        text: "N", "/dev/…" or "camera:N", each with settings as in "?size=1280x720&fps=30".

    Raises:
        UsageError: If the text is malformed.

    Example:
        >>> parse_camera("camera:1?size=1280x720")
        (1, CameraSettings(width=1280, height=720, fps=0.0, format=''))
    """
    device, _, query = text.removeprefix("camera:").partition("?")
    settings = _parse_settings(text, query)
    number = re.match(r"^(?:/dev/video)?([0-9]{1,9})$", device)
    if number:
        return int(number[1]), settings
    if not device.startswith("/"):
        raise UsageError(f"'{text}' is not a camera; use a number or a device, {_EXAMPLE}")
    return device, settings


def _parse_settings(text: str, query: str) -> CameraSettings:
    width = height = 0
    fps, pixel_format = 0.0, ""
    try:
        for key, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
            size = _SIZE.match(value)
            if key == "size" and size:
                width, height = int(size[1]), int(size[2])
            elif key == "fps":
                fps = float(value)
            elif key == "format" and re.match(r"^[A-Za-z0-9]{4}$", value):
                pixel_format = value.upper()
            else:
                raise ValueError(key)
        if not 0 <= fps <= 1000 or (width == 0) != (height == 0):
            raise ValueError(query)
    except ValueError:
        raise UsageError(
            f"'{text}' has settings that are not understood; use size=WIDTHxHEIGHT, fps=N and "
            f"format=FOURCC, {_EXAMPLE}"
        ) from None
    return CameraSettings(width, height, fps, pixel_format)


class Camera(BaseSource):
    """Camera of this machine; the driver buffers a single frame, so that each read is recent.

    Args:
        device: Camera number of the operating system, from 0, or the path of a device, such as
            `/dev/v4l/by-id/…`, which stays the same when cameras are plugged in another order.
        settings: What to request from it.
    """

    def __init__(self, device: int | str, settings: CameraSettings | None = None) -> None:
        self._device, self._settings = device, settings or CameraSettings()
        self._capture: cv2.VideoCapture | None = None
        self._index = 0
        self._start = time.monotonic()
        self.info = SourceInfo(f"camera {device}", live=True)

    def open(self) -> None:
        """See `Source.open`."""
        self.close()
        name = self.info.name
        linux = sys.platform.startswith("linux")
        if linux and not self._path().exists():
            available = ", ".join(list_cameras()) or "no camera"
            raise UsageError(f"{name} does not exist; this machine has {available}")
        capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2 if linux else cv2.CAP_ANY)
        if not capture.isOpened():
            capture.release()
            raise SourceError(
                f"{name} cannot be opened; another program may be using it, or this user may lack "
                "permission (group 'video')"
            )
        self._capture = capture
        self._request(capture)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.info = SourceInfo(
            name,
            int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            live=True,
            rate=Fraction(rate).limit_denominator(1001) if rate > 0 else None,
        )
        if self._settings != CameraSettings():
            self._report(_fourcc_name(capture.get(cv2.CAP_PROP_FOURCC)))

    def _path(self) -> Path:
        if isinstance(self._device, str):
            return Path(self._device)
        return _DEVICES / f"video{self._device}"

    def _request(self, capture: cv2.VideoCapture) -> None:
        """Request the settings; V4L2 has other sizes and rates for each pixel format."""
        settings = self._settings
        pixel_format = settings.format or ("MJPG" if settings != CameraSettings() else "")
        if pixel_format:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*pixel_format))
        if settings.width:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height)
        if settings.fps:
            capture.set(cv2.CAP_PROP_FPS, settings.fps)

    def _report(self, pixel_format: str) -> None:
        """Print what the camera delivers, which may differ from what was requested."""
        info, settings = self.info, self._settings
        rate = float(info.rate or 0)
        differs = (
            (settings.width and (settings.width, settings.height) != (info.width, info.height))
            or (settings.fps and abs(rate - settings.fps) > 0.5)
            or (settings.format and pixel_format and settings.format != pixel_format)
        )
        _log.warning(
            "%s delivers %dx%d at %g FPS%s%s",
            *(info.name, info.width, info.height, round(rate, 2)),
            f" as {pixel_format}" if pixel_format else "",
            ", not what was requested; 'v4l2-ctl --list-formats-ext' lists its modes"
            if differs
            else "",
        )

    def read(self) -> Frame | None:
        """See `Source.read`."""
        if self._capture is None:
            return None
        success, image = self._capture.read()
        if not success:
            raise SourceError(f"{self.info.name} returned no frame; is it still connected?")
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


def _fourcc_name(value: float) -> str:
    """Return the four letters of a pixel format; an empty string if it is unknown."""
    letters = int(value).to_bytes(4, "little", signed=True) if abs(value) < 2**31 else b""
    return letters.decode("ascii", "ignore") if all(32 < code < 127 for code in letters) else ""
