"""Default boxes, encoding and decoding of box offsets, and intersection over union.

Source: Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), section 2.2. All published
SSDs order their default boxes the same way: feature maps in order, cells row by row, the boxes of
a cell in a fixed order. Only steps and sizes differ, so a specification lists only these.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AnchorLayer",
    "AnchorSpec",
    "area",
    "cell_sizes",
    "decode",
    "encode",
    "iou",
    "to_center",
    "to_corners",
]

Boxes = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class AnchorLayer:
    """The default boxes of one feature map.

    Attributes:
        rows: Height of the feature map in cells.
        columns: Width of the feature map in cells.
        step_y: Height of a cell as a fraction of the image.
        step_x: Width of a cell as a fraction of the image.
        sizes: (width, height) of each box of a cell as fractions of the image, in the order of the
            prediction head.
        offset: Position of the center within its cell, as a fraction of the step.
    """

    rows: int
    columns: int
    step_y: float
    step_x: float
    sizes: tuple[tuple[float, float], ...]
    offset: float = 0.5

    @property
    def count(self) -> int:
        """Number of default boxes of this feature map."""
        return self.rows * self.columns * len(self.sizes)

    def boxes(self) -> NDArray[np.float64]:
        """Return `count` × 4 float64 boxes (cx, cy, w, h) as fractions of the image."""
        cy = (np.arange(self.rows) + self.offset) * self.step_y
        cx = (np.arange(self.columns) + self.offset) * self.step_x
        out = np.empty((self.rows, self.columns, len(self.sizes), 4), np.float64)
        out[..., 0] = cx[None, :, None]
        out[..., 1] = cy[:, None, None]
        out[..., 2:] = np.array(self.sizes, np.float64)
        return out.reshape(-1, 4)


@dataclass(frozen=True, slots=True)
class AnchorSpec:
    """All default boxes of a model.

    Attributes:
        layers: Feature maps in the order of the prediction heads.
        clip: Whether the corners are clipped to the image.
        clamp: Whether center and size are each limited to 0 … 1. This moves centers outside the
            image to its border and does not limit the corners.
        rounding: Step to which a quantized model rounded its boxes; 0 for no rounding.
        explicit: The boxes themselves (float32, cx, cy, w, h, base64), if they follow no rule.
    """

    layers: tuple[AnchorLayer, ...] = ()
    clip: bool = False
    clamp: bool = False
    rounding: float = 0.0
    explicit: str = ""

    @classmethod
    def from_array(cls, boxes: NDArray[np.floating]) -> AnchorSpec:
        """Return a specification that lists the boxes themselves.

        Args:
            boxes: N × 4, cx, cy, w, h, as fractions of the image; stored as float32.
        """
        data = np.ascontiguousarray(boxes, dtype="<f4").tobytes()
        return cls(explicit=base64.b64encode(data).decode("ascii"))

    @property
    def count(self) -> int:
        """Number of default boxes."""
        if self.explicit:
            return len(base64.b64decode(self.explicit)) // 16
        return sum(layer.count for layer in self.layers)

    def boxes(self) -> Boxes:
        """Return all default boxes, P × 4 float32 (cx, cy, w, h), as fractions of the image."""
        if self.explicit:
            data = np.frombuffer(base64.b64decode(self.explicit), dtype="<f4")
            return data.reshape(-1, 4).astype(np.float32)
        boxes = np.concatenate([layer.boxes() for layer in self.layers])
        if self.rounding:
            boxes = np.round(boxes / self.rounding) * self.rounding
        if self.clamp:
            boxes = np.clip(boxes, 0.0, 1.0)
        if self.clip:
            boxes = to_center(np.clip(to_corners(boxes), 0.0, 1.0))
        return boxes.astype(np.float32)


def cell_sizes(
    smallest: float, largest: float | None, ratios: Sequence[float]
) -> tuple[tuple[float, float], ...]:
    """Return the box sizes of a cell in Caffe's order: min, sqrt(min·max), ratios with inverses.

    Args:
        smallest: Side of the first square box, as a fraction of the image ("min_size").
        largest: The second square box has a side of sqrt(`smallest` · `largest`) ("max_size");
            None for no second box.
        ratios: Aspect ratios above 1.

    Returns:
        (width, height) of each box.
    """
    sizes = [(smallest, smallest)]
    if largest is not None:
        sizes.append((sqrt(smallest * largest),) * 2)
    for ratio in ratios:
        sizes.append((smallest * sqrt(ratio), smallest / sqrt(ratio)))
        sizes.append((smallest / sqrt(ratio), smallest * sqrt(ratio)))
    return tuple(sizes)


def to_corners(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Convert … × 4 boxes from (cx, cy, w, h) to (x1, y1, x2, y2)."""
    centers, sizes = boxes[..., :2], boxes[..., 2:]
    half = sizes * boxes.dtype.type(0.5)
    return np.concatenate([centers - half, centers + half], axis=-1)


def to_center(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Convert … × 4 boxes from (x1, y1, x2, y2) to (cx, cy, w, h)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(low + high) * boxes.dtype.type(0.5), high - low], axis=-1)


def encode(
    boxes: NDArray[np.floating],
    default_boxes: NDArray[np.floating],
    variances: tuple[float, float, float, float],
) -> NDArray[np.floating]:
    """Return the offsets of boxes from default boxes (paper, section 2.2, "Training objective").

    Args:
        boxes: N × 4, x1, y1, x2, y2.
        default_boxes: N × 4, cx, cy, w, h, in the same unit.
        variances: Divisors of the offsets of cx, cy, w and h.

    Returns:
        N × 4 offsets (cx, cy, w, h).
    """
    center = to_center(boxes)
    shifts = (center[..., :2] - default_boxes[..., :2]) / default_boxes[..., 2:]
    scales = np.log(center[..., 2:] / default_boxes[..., 2:])
    unscaled = np.concatenate([shifts, scales], axis=-1)
    offsets: NDArray[np.floating] = unscaled / np.asarray(variances, unscaled.dtype)
    return offsets


def decode(
    offsets: NDArray[np.floating],
    default_boxes: NDArray[np.floating],
    variances: tuple[float, float, float, float],
) -> NDArray[np.floating]:
    """Return boxes from their offsets: the inverse of `encode`.

    Args:
        offsets: N × 4 (cx, cy, w, h).
        default_boxes: N × 4, cx, cy, w, h.
        variances: Factors of the offsets.

    Returns:
        N × 4, x1, y1, x2, y2, in the unit of the default boxes and the type of `offsets`.
    """
    scaled = offsets * np.asarray(variances, offsets.dtype)
    centers = scaled[..., :2] * default_boxes[..., 2:] + default_boxes[..., :2]
    sizes = np.exp(scaled[..., 2:]) * default_boxes[..., 2:]
    return to_corners(np.concatenate([centers, sizes], axis=-1))


def iou(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the intersection over union of every pair of boxes.

    Args:
        first: N × 4, x1, y1, x2, y2.
        second: M × 4 in the same unit.

    Returns:
        N × M from 0 to 1; 0 if both boxes are empty.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.maximum(high - low, 0)
    overlap = sides[..., 0] * sides[..., 1]
    union = area(first)[:, None] + area(second)[None, :] - overlap
    ratio: NDArray[np.floating] = np.divide(
        overlap, union, out=np.zeros_like(overlap), where=union > 0
    )
    return ratio


def area(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the area of each box (… × 4, x1, y1, x2, y2); 0 if x2 < x1 or y2 < y1."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    result: NDArray[np.floating] = sides[..., 0] * sides[..., 1]
    return result
