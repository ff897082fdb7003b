"""Shared by the sources that decode with FFmpeg: conversion of frames, and error messages."""

from __future__ import annotations

import errno
import threading

import cv2  # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
import numpy as np
from av.video.reformatter import VideoReformatter

from realtime_ssd.core.frames import Image

__all__ = ["FrameConverter", "error_reason", "rotation_of", "upright_size"]

_ROTATIONS = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_CLOCKWISE,
}


def rotation_of(frame: av.VideoFrame) -> int:
    """Return the counter-clockwise rotation in degrees that a player applies: 0, 90, 180 or 270."""
    return round(frame.rotation / 90) * 90 % 360


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Return width and height of a decoded frame in pixels, after rotation."""
    sideways = rotation_of(frame) % 180 != 0
    return (frame.height, frame.width) if sideways else (frame.width, frame.height)


class FrameConverter:
    """Converts decoded frames into BGR images, in any thread; frames in GPU memory are downloaded.

    Each thread has a converter of its own: it is expensive to create and not safe to share.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def to_bgr(self, frame: av.VideoFrame) -> Image:
        """Return a frame as an upright image, H × W × 3 uint8 BGR."""
        reformatter: VideoReformatter | None = getattr(self._local, "reformatter", None)
        if reformatter is None:
            reformatter = self._local.reformatter = VideoReformatter()
        converted = reformatter.reformat(frame, format="bgr24", threads=1)
        image = np.asarray(converted.to_ndarray(), np.uint8)
        rotation = rotation_of(frame)
        if rotation:
            image = cv2.rotate(image, _ROTATIONS[rotation]).astype(np.uint8, copy=False)
        return image


def error_reason(error: Exception) -> str:
    """Return the meaning of an FFmpeg or system error, without the URL it may contain."""
    if isinstance(error, av.error.InvalidDataError):
        return "it is not a video, or it is damaged"
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return "the server refused the user name or password"
    if isinstance(error, av.error.ExitError):
        return "no answer in time"
    if isinstance(error, av.error.FFmpegError) and error.errno == errno.ETIMEDOUT:
        return "no answer in time"
    reason: str = getattr(error, "strerror", None) or "unknown error"
    return reason.lower() if isinstance(error, av.error.FFmpegError) else reason
