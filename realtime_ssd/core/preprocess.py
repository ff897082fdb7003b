"""From a BGR image to the network's input tensor: the reference every backend must equal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.frames import Image
from realtime_ssd.core.spec import InputSpec

__all__ = ["LetterboxParams", "place", "preprocess"]


@dataclass(frozen=True, slots=True)
class LetterboxParams:
    """Where the image lies inside the input tensor, in input pixels.

    Attributes:
        x: Left edge.
        y: Top edge.
        width: Width of the resized image.
        height: Height of the resized image.
    """

    x: int
    y: int
    width: int
    height: int

    def to_frame(
        self, boxes: NDArray[np.float32], spec: InputSpec, width: int, height: int
    ) -> NDArray[np.float32]:
        """Map boxes from fractions of the input tensor to pixels of the frame, clipped to it.

        Args:
            boxes: N × 4, x1, y1, x2, y2, fractions of the input tensor.
            spec: Input of the model.
            width: Width of the frame in pixels.
            height: Height of the frame in pixels.

        Returns:
            N × 4 float32 pixels of the frame.
        """
        scale = np.array([spec.width / self.width * width, spec.height / self.height * height])
        shift = np.array([self.x / self.width * width, self.y / self.height * height])
        limit = np.array([width, height, width, height], np.float32)
        pixels = boxes * np.tile(scale, 2).astype(np.float32) - np.tile(shift, 2).astype(np.float32)
        return np.clip(pixels, np.float32(0), limit)


def place(spec: InputSpec, width: int, height: int) -> LetterboxParams:
    """Decide where an image of `width` × `height` pixels goes in the input tensor."""
    if spec.resize == "warp":
        return LetterboxParams(0, 0, spec.width, spec.height)
    ratio = min(spec.width / width, spec.height / height)
    inner_width = min(spec.width, max(1, round(width * ratio)))
    inner_height = min(spec.height, max(1, round(height * ratio)))
    left, top = (spec.width - inner_width) // 2, (spec.height - inner_height) // 2
    return LetterboxParams(left, top, inner_width, inner_height)


def preprocess(
    image: Image, spec: InputSpec, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Resize (bilinear, OpenCV's pixel centres), reorder, normalise and lay out as planes.

    Args:
        image: H × W × 3 uint8 BGR.
        spec: What the network expects.
        out: 3 × height × width float32 to write into, for example a row of a batch.

    Returns:
        3 × height × width float32.
    """
    import cv2

    height, width = image.shape[:2]
    spot = place(spec, width, height)
    small = cv2.resize(image, (spot.width, spot.height), interpolation=cv2.INTER_LINEAR)
    if out is None:
        out = np.empty((3, spec.height, spec.width), np.float32)
    if spec.resize == "letterbox":
        canvas = np.full((spec.height, spec.width, 3), spec.fill, np.uint8)
        canvas[spot.y : spot.y + spot.height, spot.x : spot.x + spot.width] = small
        small = canvas
    planes = cv2.split(small)
    for plane, values in enumerate(planes[::-1] if spec.channels == "RGB" else planes):
        cv2.LUT(values, _table(spec.mean[plane], spec.scale[plane]), dst=out[plane])
    return out


@cache
def _table(mean: float, scale: float) -> NDArray[np.float32]:
    """Give (value - mean) * scale for the 256 values a pixel can have."""
    table = (np.arange(256, dtype=np.float32) - np.float32(mean)) * np.float32(scale)
    table.flags.writeable = False
    return table
