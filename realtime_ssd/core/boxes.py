"""Default boxes from a recipe, offset encoding and decoding, and overlap.

Source: Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), section 2.2. Every published
SSD lays its default boxes out the same way: feature maps in order, cells row by row, boxes of a
cell in the order of the recipe. Only steps and sizes differ, so a recipe lists just these.
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
        sizes: (width, height) of each box of a cell as fractions of the image, in head order.
        offset: Position of the centre inside its cell, as a fraction of the step.
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
        """Give `count` × 4 boxes (cx, cy, w, h) as fractions of the image."""
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
        layers: Feature maps in the order of the heads.
        clip: Whether corners are clipped to the image before use.
        clamp: Whether centre and size are each limited to 0 … 1 before use, which moves a centre
            that lies beyond the image and leaves the rest of such a box outside.
        rounding: Step to which a quantised model rounded its boxes; 0 for none.
        explicit: The boxes themselves (float32, cx, cy, w, h, base64) where no recipe is known.
    """

    layers: tuple[AnchorLayer, ...] = ()
    clip: bool = False
    clamp: bool = False
    rounding: float = 0.0
    explicit: str = ""

    @classmethod
    def from_array(cls, boxes: NDArray[np.floating]) -> AnchorSpec:
        """Keep given boxes (N × 4; cx, cy, w, h; fractions of the image) as they are."""
        data = np.ascontiguousarray(boxes, dtype="<f4").tobytes()
        return cls(explicit=base64.b64encode(data).decode("ascii"))

    @property
    def count(self) -> int:
        """Number of default boxes."""
        if self.explicit:
            return len(base64.b64decode(self.explicit)) // 16
        return sum(layer.count for layer in self.layers)

    def boxes(self) -> Boxes:
        """Compute all default boxes.

        Returns:
            P × 4 float32 (cx, cy, w, h), fractions of the image.
        """
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
    """List the boxes of a cell in Caffe's order: min, sqrt(min·max), then ratios and inverses.

    Args:
        smallest: Side of the square box, as a fraction of the image.
        largest: Side that goes into the second square box, or None for no second box.
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
    """Turn (cx, cy, w, h) into (x1, y1, x2, y2); any leading shape."""
    centers, sizes = boxes[..., :2], boxes[..., 2:]
    half = sizes * boxes.dtype.type(0.5)
    return np.concatenate([centers - half, centers + half], axis=-1)


def to_center(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Turn (x1, y1, x2, y2) into (cx, cy, w, h); any leading shape."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(low + high) * boxes.dtype.type(0.5), high - low], axis=-1)


def encode(
    boxes: NDArray[np.floating],
    default_boxes: NDArray[np.floating],
    variances: tuple[float, float, float, float],
) -> NDArray[np.floating]:
    """Express boxes as offsets from default boxes (paper, section 2.2, "Training objective").

    Args:
        boxes: N × 4, x1, y1, x2, y2.
        default_boxes: N × 4, cx, cy, w, h, in the same unit.
        variances: Divisors of the offsets of cx, cy, w and h.

    Returns:
        N × 4 offsets (cx, cy, w, h).
    """
    center = to_center(boxes)
    moved = (center[..., :2] - default_boxes[..., :2]) / default_boxes[..., 2:]
    scaled = np.log(center[..., 2:] / default_boxes[..., 2:])
    result = np.concatenate([moved, scaled], axis=-1)
    scaled_back: NDArray[np.floating] = result / np.asarray(variances, result.dtype)
    return scaled_back


def decode(
    offsets: NDArray[np.floating],
    default_boxes: NDArray[np.floating],
    variances: tuple[float, float, float, float],
) -> NDArray[np.floating]:
    """Turn offsets back into boxes: the inverse of `encode`.

    Args:
        offsets: N × 4 (cx, cy, w, h).
        default_boxes: N × 4, cx, cy, w, h.
        variances: Factors of the offsets.

    Returns:
        N × 4, x1, y1, x2, y2, in the unit of the default boxes and in the type of `offsets`.
    """
    scaled = offsets * np.asarray(variances, offsets.dtype)
    centers = scaled[..., :2] * default_boxes[..., 2:] + default_boxes[..., :2]
    sizes = np.exp(scaled[..., 2:]) * default_boxes[..., 2:]
    return to_corners(np.concatenate([centers, sizes], axis=-1))


def iou(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.floating]:
    """Intersection over union of every pair.

    Args:
        first: N × 4, x1, y1, x2, y2.
        second: M × 4 in the same unit.

    Returns:
        N × M from 0 to 1; 0 where both boxes are empty.
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
    """Area of each box (… × 4, x1, y1, x2, y2); 0 for boxes turned inside out."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    result: NDArray[np.floating] = sides[..., 0] * sides[..., 1]
    return result
