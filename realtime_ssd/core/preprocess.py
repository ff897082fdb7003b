"""Pre-processing of a BGR image into the input tensor: the reference for every backend."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.frames import Image
from realtime_ssd.core.spec import InputSpec

__all__ = ["LetterboxParams", "letterbox_params", "preprocess"]


@dataclass(frozen=True, slots=True)
class LetterboxParams:
    """Position and size of the resized image in the input tensor, in pixels of the tensor.

    Attributes:
        x: Left edge of the resized image.
        y: Top edge of the resized image.
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


def letterbox_params(spec: InputSpec, width: int, height: int) -> LetterboxParams:
    """Return position and size in the input tensor of an image of `width` × `height` pixels."""
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
    """Resize an image (bilinear, pixel centers as in OpenCV), normalize it and split its planes.

    Args:
        image: H × W × 3 uint8 BGR.
        spec: Input of the model.
        out: 3 × height × width float32 to write to, for example one image of a batch.

    Returns:
        3 × height × width float32.
    """
    import cv2

    height, width = image.shape[:2]
    params = letterbox_params(spec, width, height)
    resized = cv2.resize(image, (params.width, params.height), interpolation=cv2.INTER_LINEAR)
    if out is None:
        out = np.empty((3, spec.height, spec.width), np.float32)
    if spec.resize == "letterbox":
        canvas = np.full((spec.height, spec.width, 3), spec.fill, np.uint8)
        canvas[params.y : params.y + params.height, params.x : params.x + params.width] = resized
        resized = canvas
    planes = cv2.split(resized)
    for channel, values in enumerate(planes[::-1] if spec.channels == "RGB" else planes):
        cv2.LUT(values, _lookup_table(spec.mean[channel], spec.scale[channel]), dst=out[channel])
    return out


@cache
def _lookup_table(mean: float, scale: float) -> NDArray[np.float32]:
    """Return (value - mean) * scale for the 256 values of a pixel."""
    table: NDArray[np.float32] = np.arange(256, dtype=np.float32) - np.float32(mean)
    table *= np.float32(scale)
    table.flags.writeable = False
    return table
