"""Tiles of a large image, and the merging of what was detected in them.

Small objects vanish when a large image is resized to the input of a network. Tiles keep their
pixels; a pass over the whole image finds the objects that are larger than a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.boxes import area, iou
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.spec import InputSpec, Thresholds

__all__ = ["Tile", "TileOptions", "merge_tiles", "parse_tile", "plan_tiles"]

AUTO_FACTOR = 2.0
"""Side of an automatic tile, as a multiple of the model's input."""

MIN_EXCESS = 1.25
"""An image is cut only if it exceeds a tile by more than this factor."""

MAX_TILES = 500
"""Largest number of tiles of an image."""

BORDER = 0.01
"""Distance from an inner border, as a fraction of the tile, within which a box is cut off."""

LARGE_IN_TILE, LARGE_IN_IMAGE = 0.5, 0.1
"""Sides of a box, as fractions of those of its tile and of the image, above both of which the whole
image shows the object better. Sides are square roots of areas."""

_MIN_SIDE, _MAX_OVERLAP = 32, 0.9


@dataclass(frozen=True, slots=True)
class TileOptions:
    """How images are cut into tiles.

    Attributes:
        size: Width and height of a tile in pixels; None for twice the input of the model.
        overlap: Smallest overlap of neighboring tiles as a fraction of their side; objects up to
            that size are whole in at least one tile.

    Raises:
        UsageError: If a value is out of range.
    """

    size: tuple[int, int] | None = None
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < _MIN_SIDE:
            raise UsageError(
                f"`tile` must be at least {_MIN_SIDE}x{_MIN_SIDE} pixels, not "
                f"{self.size[0]}x{self.size[1]}"
            )
        if not 0 <= self.overlap <= _MAX_OVERLAP:
            raise UsageError(
                f"`overlap` must be between 0 and {_MAX_OVERLAP}, not {self.overlap:g}"
            )


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of an image, in pixels.

    Attributes:
        x: Left edge.
        y: Upper edge.
        width: Width.
        height: Height.
        inner: For the left, upper, right and lower edge, whether the image goes on beyond it.
    """

    x: int
    y: int
    width: int
    height: int
    inner: tuple[bool, bool, bool, bool] = (False, False, False, False)

    @property
    def region(self) -> tuple[int, int, int, int]:
        """Left edge, upper edge, width and height."""
        return self.x, self.y, self.width, self.height


def parse_tile(text: str | None, overlap: float = 0.2) -> TileOptions | None:
    """Parse the size of tiles.

    Args:
        text: "WIDTHxHEIGHT" in pixels, "auto" for twice the input of the model, or None for no
            tiles.
        overlap: See `TileOptions`.

    Raises:
        UsageError: If the text is neither.

    Example:
        >>> parse_tile("640x480").size
        (640, 480)
    """
    if text is None:
        return None
    if text == "auto":
        return TileOptions(None, overlap)
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UsageError(f"`tile` must be WIDTHxHEIGHT or auto, as in 640x640, not '{text}'")
    return TileOptions((int(width), int(height)), overlap)


def plan_tiles(options: TileOptions, spec: InputSpec, width: int, height: int) -> tuple[Tile, ...]:
    """Return the whole image, and the tiles it is cut into unless it is hardly larger than one.

    Tiles have equal sizes and are evenly spaced from border to border, so that they overlap by at
    least `overlap`.

    Args:
        options: Size and overlap of the tiles.
        spec: Input of the model.
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Raises:
        UsageError: If there were more than `MAX_TILES`.
    """
    sides = options.size or (round(AUTO_FACTOR * spec.width), round(AUTO_FACTOR * spec.height))
    whole = Tile(0, 0, width, height)
    if width <= MIN_EXCESS * sides[0] and height <= MIN_EXCESS * sides[1]:
        return (whole,)
    tile_width, tile_height = min(sides[0], width), min(sides[1], height)
    columns = _positions(width, tile_width, options.overlap)
    rows = _positions(height, tile_height, options.overlap)
    count = len(columns) * len(rows)
    if count > MAX_TILES:
        raise UsageError(
            f"an image of {width}x{height} pixels would be cut into {count} tiles, more than "
            f"{MAX_TILES}; increase `tile` or reduce `overlap`"
        )
    tiles = [
        Tile(
            *(x, y, tile_width, tile_height),
            inner=(x > 0, y > 0, x + tile_width < width, y + tile_height < height),
        )
        for y in rows
        for x in columns
    ]
    return (whole, *tiles)


def _positions(length: int, tile: int, overlap: float) -> list[int]:
    """Return where tiles of a length start, evenly spaced from border to border."""
    if tile >= length:
        return [0]
    step = max(1.0, tile * (1 - overlap))
    count = ceil((length - tile) / step) + 1
    # Even positions do not cut through the chroma samples of decoded video.
    inner = [round(k * (length - tile) / (count - 1) / 2) * 2 for k in range(1, count - 1)]
    return [0, *inner, length - tile]


def merge_tiles(
    tiles: Sequence[Tile], detected: Sequence[Detections], thresholds: Thresholds
) -> Detections:
    """Merge the detections of the whole image and of its tiles by NMS.

    Two kinds of boxes of tiles are dropped first, because they mostly show parts of objects:

    - boxes that touch an inner border of their tile. An object up to the size of the overlap is
      complete in a neighboring tile, a larger one in the whole image;
    - boxes that are large both in their tile and in the image (`LARGE_IN_TILE`,
      `LARGE_IN_IMAGE`), which are left to the whole image.

    Args:
        tiles: The whole image, then the tiles.
        detected: Detections of each of them, in its pixels.
        thresholds: `iou_threshold` and `agnostic_nms`, as for a single image.

    Returns:
        Detections in pixels of the image: score descending, then tile, then order in the tile.
    """
    whole = tiles[0]
    selected = [
        item[_is_complete(item, tile) & ~_is_large(item, tile, whole)] if number else item
        for number, (item, tile) in enumerate(zip(detected, tiles, strict=True))
    ]
    boxes = np.concatenate(
        [
            item.boxes + np.array([tile.x, tile.y] * 2, np.float32)
            for item, tile in zip(selected, tiles, strict=True)
        ]
    )
    scores = np.concatenate([item.scores for item in selected])
    classes = np.concatenate([item.class_ids for item in selected])
    order = np.argsort(-scores, kind="stable")
    groups = np.zeros_like(classes) if thresholds.agnostic_nms else classes
    kept = []
    for group in np.unique(groups):
        rows = order[groups[order] == group]
        kept.append(rows[_suppress(boxes[rows], thresholds.iou_threshold)])
    final = np.sort(np.concatenate([np.zeros(0, np.int64), *kept]))
    final = final[np.argsort(-scores[final], kind="stable")]
    return Detections(boxes[final], scores[final], classes[final], detected[0].labels)


def _is_complete(detected: Detections, tile: Tile) -> NDArray[np.bool_]:
    """Return which boxes do not touch an inner border of their tile."""
    size = np.array([tile.width, tile.height], np.float32)
    margin = size * np.float32(BORDER)
    low, high = detected.boxes[:, :2] <= margin, detected.boxes[:, 2:] >= size - margin
    return ~np.asarray((np.concatenate([low, high], axis=1) & np.array(tile.inner)).any(axis=1))


def _is_large(detected: Detections, tile: Tile, whole: Tile) -> NDArray[np.bool_]:
    limit = max(
        LARGE_IN_TILE**2 * tile.width * tile.height,
        LARGE_IN_IMAGE**2 * whole.width * whole.height,
    )
    return np.asarray(area(detected.boxes) > limit)


def _suppress(boxes: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Return the indices of the boxes of a group that NMS keeps; they arrive best first."""
    remaining = np.arange(len(boxes))
    kept = []
    while len(remaining):
        best, remaining = remaining[0], remaining[1:]
        kept.append(best)
        overlaps = iou(boxes[best][None], boxes[remaining])[0]
        remaining = remaining[overlaps <= np.float32(threshold)]
    return np.array(kept, np.int64)
