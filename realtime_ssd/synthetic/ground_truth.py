"""Ground truth of a frame: bounding boxes of the visible parts of objects.

An object is listed if the height of its visible part is at least `MIN_LISTED_HEIGHT` of the frame
height, unless the part is small and less than `MIN_LISTED_VISIBLE` of the silhouette. It is marked
as *difficult* (ignored by metrics, as in PASCAL VOC) if it is lower than `MIN_HEIGHT` of the frame
height, narrower than `MIN_WIDTH` of the frame width, or if less than `MIN_VISIBLE` of its
silhouette is visible because of occlusion, the dark underpass or truncation. A box is the tight
bounding box of the visible part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.synthetic.people import ProjectedFigure
from realtime_ssd.synthetic.projection import Array
from realtime_ssd.synthetic.shapes import SHIFT, Outline, ProjectedSolid, to_fixed_point
from realtime_ssd.synthetic.traffic import Actor

__all__ = [
    "ProjectedActor",
    "TruthBox",
    "depth_order",
    "id_mask",
    "visible_boxes",
]

MIN_HEIGHT = 0.06
MIN_WIDTH = 0.02
MIN_VISIBLE = 0.4
MIN_LISTED_HEIGHT = 0.012
MIN_LISTED_VISIBLE = 0.08
_MIN_MASK_ROWS = 400

ProjectedActor = tuple[Actor, ProjectedSolid | ProjectedFigure]
"""An actor and its projection."""


@dataclass(frozen=True, slots=True)
class TruthBox:
    """Ground truth of one object in one frame.

    Attributes:
        label: One of `LABELS`.
        box: Bounding box of the visible part: x1, y1, x2, y2 in pixels of the frame.
        visibility: Visible fraction of the whole silhouette, 0 to 1.
        track_id: Identifies the object in all frames of the scene.
        difficult: Whether the object is too small or too occluded to count in metrics.
    """

    label: str
    box: tuple[float, float, float, float]
    visibility: float
    track_id: int
    difficult: bool = False


def depth_order(footprints: Sequence[tuple[float, float, float, float]], eye: Array) -> list[int]:
    """Return the drawing order of actors, from far to near.

    Footprints are disjoint axis-aligned rectangles, so an axis-parallel line separates any two of
    them. The one on the camera's side of the line is the nearer one.

    Args:
        footprints: Minimum x, z and maximum x, z of each actor in meters.
        eye: Position of the camera.

    Returns:
        Indices into `footprints`.
    """
    if not footprints:
        return []
    box = np.array(footprints)
    x, z = float(eye[0]), float(eye[2])
    nearer = _nearer(box[:, 0], box[:, 2], x) | _nearer(box[:, 1], box[:, 3], z)
    farther = nearer.T & ~nearer
    distance = np.hypot(
        np.maximum(np.maximum(box[:, 0] - x, x - box[:, 2]), 0),
        np.maximum(np.maximum(box[:, 1] - z, z - box[:, 3]), 0),
    )
    remaining = np.argsort(-distance, kind="stable").tolist()
    behind = [set(np.flatnonzero(farther[:, k]).tolist()) for k in range(len(box))]
    order: list[int] = []
    while remaining:
        undrawn = set(remaining)
        farthest = next((k for k in remaining if not behind[k] & undrawn), remaining[0])
        remaining.remove(farthest)
        order.append(farthest)
    return order


def _nearer(low: Array, high: Array, eye: float) -> NDArray[np.bool_]:
    """Return N × N: whether a line separates i from j, with i on the camera's side."""
    tolerance = 1e-6
    below = (high[:, None] <= low[None, :] + tolerance) & (eye <= low[None, :] + tolerance)
    above = (low[:, None] >= high[None, :] - tolerance) & (eye >= high[None, :] - tolerance)
    return below | above


def id_mask(outlines: Sequence[Outline], width: int, height: int, scale: int) -> NDArray[np.uint8]:
    """Return a mask of the silhouettes 1, 2, ... from far to near, `scale` times the frame size."""
    mask = np.zeros((height * scale, width * scale), np.uint8)
    for number, outline in enumerate(outlines, start=1):
        for polygon in outline:
            cv2.fillConvexPoly(
                mask, to_fixed_point(polygon * float(scale)), number, cv2.LINE_8, SHIFT
            )
    return mask


def visible_boxes(actors: Sequence[ProjectedActor], width: int, height: int) -> list[TruthBox]:
    """Measure the visible parts of all objects.

    Args:
        actors: Actors with their projections, from far to near.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.

    Returns:
        The listed objects from far to near.
    """
    scale = max(1, -(-_MIN_MASK_ROWS // height))
    mask = id_mask([projection.outline for _, projection in actors], width, height, scale)
    boxes = []
    for number, (actor, projection) in enumerate(actors, start=1):
        visible = _visible_part(mask, number, projection, scale) if actor.label else None
        truth = _truth_box(actor, *visible, width, height) if visible is not None else None
        if truth is not None:
            boxes.append(truth)
    return boxes


def _visible_part(
    mask: NDArray[np.uint8], number: int, projection: ProjectedSolid | ProjectedFigure, scale: int
) -> tuple[Array, float] | None:
    """Return the visible box in pixels of the frame and the visible fraction of the silhouette."""
    exact = projection.bounds
    rows, columns = mask.shape
    x0, y0 = np.maximum(np.floor(exact[:2] * scale).astype(int) - 2, 0)
    x1, y1 = np.minimum(np.ceil(exact[2:] * scale).astype(int) + 2, [columns, rows])
    if x1 <= x0 or y1 <= y0:
        return None
    visible = cv2.compare(mask[y0:y1, x0:x1], number, cv2.CMP_EQ)
    area = cv2.countNonZero(visible)
    if not area:
        return None
    left, top, width, height = cv2.boundingRect(visible)
    box = np.array([x0 + left, y0 + top, x0 + left + width, y0 + top + height]) / scale
    size = np.array([columns, rows, columns, rows]) / scale
    # Edges that nothing hides snap to their exact position.
    clipped = np.clip(exact, 0, size)
    box = np.where(np.abs(box - clipped) <= 1.6 / scale, clipped, box)
    return box, min(1.0, area / max(1.0, _silhouette_area(projection.outline, exact, scale)))


def _silhouette_area(outline: Outline, exact: Array, scale: int) -> float:
    """Return the area of the whole silhouette in mask pixels, including hidden parts."""
    if len(outline) == 1:
        return float(cv2.contourArea(outline[0])) * scale * scale
    extent = max(float((exact[2:] - exact[:2]).max()), 1e-6)
    zoom = 64.0 / extent
    small = np.zeros((68, 68), np.uint8)
    for polygon in outline:
        points = to_fixed_point((polygon - exact[:2]) * zoom + 2.0)
        cv2.fillConvexPoly(small, points, 1, cv2.LINE_8, SHIFT)
    return cv2.countNonZero(small) * (scale / zoom) ** 2


def _truth_box(
    actor: Actor, box: Array, visibility: float, frame_width: int, frame_height: int
) -> TruthBox | None:
    width, height = (box[2] - box[0]) / frame_width, (box[3] - box[1]) / frame_height
    small = height < MIN_HEIGHT or width < MIN_WIDTH
    if (
        (visibility < MIN_LISTED_VISIBLE and small)
        or height < MIN_LISTED_HEIGHT
        or actor.hidden > 0.8
    ):
        return None
    difficult = bool(small or visibility < MIN_VISIBLE or actor.hidden > 0.3)
    x1, y1, x2, y2 = (float(v) for v in box)
    return TruthBox(actor.label, (x1, y1, x2, y2), round(visibility, 3), actor.track_id, difficult)
