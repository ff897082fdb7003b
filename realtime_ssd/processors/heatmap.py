"""`HeatMap`: where objects were, as one picture at the end."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.files import write_output
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.results import FrameResult
from realtime_ssd.processors.base import BaseProcessor
from realtime_ssd.processors.zone_shapes import anchor_points

__all__ = ["HeatMap"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

_SIDE = 480
"""Cells along the longer side of the frame."""


class HeatMap(BaseProcessor):
    """Adds up the seconds that objects stand at each place; written over the last frame.

    Args:
        path: Picture, written by `close`; nothing is written without a frame.

    Raises:
        UsageError: If its suffix is none of `SUFFIXES`.
    """

    name = "heat_map"

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"`heatmap` must be a picture ({', '.join(SUFFIXES)}), not '{path}'")
        self._path: Path | None = path
        self._seconds: NDArray[np.float32] | None = None
        self._scale = 1.0
        self._last_time: float | None = None
        self._frame: Frame | None = None

    def process(self, result: FrameResult) -> FrameResult:
        """Count the objects of the result, which is not changed."""
        frame = result.frame
        if self._seconds is None:
            self._scale = _SIDE / max(frame.width, frame.height)
            rows, columns = round(frame.height * self._scale), round(frame.width * self._scale)
            self._seconds = np.zeros((max(1, rows), max(1, columns)), np.float32)
        step = 1 / 30 if self._last_time is None else min(1.0, frame.time - self._last_time)
        self._last_time, self._frame = frame.time, frame
        rows, columns = self._seconds.shape
        for x, y in anchor_points(result.detections.boxes, "bottom_center") * self._scale:
            self._seconds[min(rows - 1, max(0, int(y))), min(columns - 1, max(0, int(x)))] += step
        return result

    def reset(self) -> None:
        """See `Processor.reset`."""
        self._last_time = None

    def picture(self) -> Image | None:
        """Return the heat map over the last frame, H × W × 3 uint8 BGR; None without a frame."""
        if self._seconds is None or self._frame is None:
            return None
        spread = cv2.GaussianBlur(self._seconds, (0, 0), _SIDE / 80)
        peak = float(spread.max())
        level = np.sqrt(spread / peak) if peak > 0 else spread
        image = self._frame.image
        height, width = image.shape[:2]
        level = cv2.resize(level, (width, height), interpolation=cv2.INTER_LINEAR)
        colors = cv2.applyColorMap(np.uint8(level * 255), cv2.COLORMAP_TURBO)
        weight = (0.65 * np.minimum(1, level * 2))[..., None]
        mixed = image * (1 - weight) + colors * weight
        picture: Image = np.clip(mixed, 0, 255).astype(np.uint8)
        return picture

    def close(self) -> None:
        """Write the picture; once."""
        path, self._path = self._path, None
        picture = None if path is None else self.picture()
        if path is not None and picture is not None:
            write_output(path, cv2.imencode(path.suffix.lower(), picture)[1].tobytes())
