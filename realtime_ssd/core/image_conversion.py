"""Conversion of arrays and PIL images to BGR."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Image

__all__ = ["to_bgr"]


def to_bgr(image: Any) -> Image:
    """Return an image as BGR, without its alpha channel.

    Args:
        image: Array, uint8: H × W × 3 BGR, H × W or H × W × 1 gray, or H × W × 4 BGRA; or a PIL
            image of 8 bits per channel. It is not changed.

    Returns:
        H × W × 3 uint8 BGR; a view of an array that is BGR already.

    Raises:
        UsageError: If the image has another type or shape, or is empty.
    """
    if _is_pil(image):
        return _from_pil(image)
    if not isinstance(image, np.ndarray):
        raise UsageError(
            "`image` must be an array, a PIL image or the path of an image file, "
            f"not {type(image).__name__}"
        )
    channels = 1 if image.ndim == 2 else image.shape[-1] if image.ndim == 3 else 0
    if channels not in (1, 3, 4) or image.dtype != np.uint8 or not image.size:
        raise UsageError(
            "`image` must be H × W × 3 uint8 (BGR), H × W (gray) or H × W × 4 (BGRA), "
            f"not {image.shape} {image.dtype}"
        )
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return image.view() if channels == 3 else np.ascontiguousarray(image[..., :3])


def _is_pil(image: object) -> bool:
    module = sys.modules.get("PIL.Image")  # loaded if there is a PIL image
    return module is not None and isinstance(image, module.Image)


def _from_pil(image: Any) -> Image:
    if image.mode == "F" or image.mode.startswith("I") or not (image.width and image.height):
        raise UsageError(
            f"`image` must have 8 bits per channel, not PIL mode '{image.mode}' of "
            f"{image.width} × {image.height} pixels"
        )
    rgb = np.asarray(image.convert("RGB"), np.uint8)
    return np.ascontiguousarray(rgb[..., ::-1])
