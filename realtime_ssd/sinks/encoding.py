"""Preparation of images for an encoder, and the thread that encodes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import cast

import cv2  # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
import numpy as np

from realtime_ssd.core.frames import Image

__all__ = ["EncoderThread", "fit_image", "to_yuv420p"]

_MAX_QUEUED = 2  # frames that may wait for the encoder


class EncoderThread:
    """Processes frames in a thread of its own.

    Args:
        process: Called with each frame.
    """

    def __init__(self, process: Callable[[av.VideoFrame], None]) -> None:
        self._process = process
        self._frames: queue.Queue[av.VideoFrame | None] = queue.Queue(_MAX_QUEUED)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)

    def put(self, frame: av.VideoFrame) -> None:
        """Queue a frame, waiting while the queue is full; raise the error of an earlier frame."""
        if self._thread.ident is None:
            self._thread.start()
        self._frames.put(frame)
        self._check()

    def finish(self) -> None:
        """Wait until all frames are processed; raise the error of an earlier frame."""
        if self._thread.ident is not None:
            self._frames.put(None)
            self._thread.join()
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (frame := self._frames.get()) is not None:
            if self._error is None:
                try:
                    self._process(frame)
                except Exception as error:
                    self._error = error


def fit_image(image: Image, size: tuple[int, int]) -> Image:
    """Return an image of the given even width and height, scaled with black bars if needed.

    An odd size is made even by repeating the last column or row.
    """
    height, width = image.shape[:2]
    if size != (width + width % 2, height + height % 2):
        scale = min(size[0] / width, size[1] / height)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    right, below = size[0] - width, size[1] - height
    if max(right, below) > 1:
        bars = (below // 2, below - below // 2, right // 2, right - right // 2)
        image = np.asarray(cv2.copyMakeBorder(image, *bars, cv2.BORDER_CONSTANT))
    elif right or below:
        image = np.asarray(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE))
    return image


def to_yuv420p(image: Image) -> av.VideoFrame:
    """Convert a BGR image of even width and height into a frame.

    The planes are copied one by one because `VideoFrame.from_numpy_buffer`, which would share the
    memory, shifts the chroma planes unless the height is a multiple of 4.
    """
    height, width = image.shape[:2]
    data = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)).reshape(-1)
    frame = av.VideoFrame(width, height, "yuv420p")
    start = 0
    for plane in frame.planes:
        end = start + plane.height * plane.width
        rows = np.frombuffer(cast("memoryview", plane), np.uint8).reshape(
            plane.height, plane.line_size
        )
        rows[:, : plane.width] = data[start:end].reshape(plane.height, plane.width)
        start = end
    return frame
