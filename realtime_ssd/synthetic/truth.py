"""Which objects of a frame count, and where exactly they are seen.

The rule. An object is listed when its visible part is at least `LISTED` of the frame high, unless
less than `SEEN` of its silhouette is visible and that part is small. It is marked *difficult*
(neither a hit nor a miss, as in PASCAL VOC) when it is smaller than `MIN_HEIGHT` of the frame's
height or `MIN_WIDTH` of its width, or when less than `MIN_VISIBLE` of its silhouette is visible,
be it hidden by something nearer, by the darkness under the bridge or cut off by the frame. A box
is the smallest one around the visible part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.synthetic.camera import Array
from realtime_ssd.synthetic.figures import FigureSketch
from realtime_ssd.synthetic.shapes import SHIFT, Outline, PlacedSketch, fixed
from realtime_ssd.synthetic.traffic import Actor

__all__ = [
    "MIN_HEIGHT",
    "MIN_VISIBLE",
    "MIN_WIDTH",
    "Shown",
    "TruthBox",
    "depth_order",
    "id_mask",
    "observe",
]

MIN_HEIGHT = 0.06
MIN_WIDTH = 0.02
MIN_VISIBLE = 0.4
LISTED = 0.012
SEEN = 0.08
_FINE_ROWS = 400

Shown = tuple[Actor, PlacedSketch | FigureSketch]
"""A thing in the picture and its projection."""


@dataclass(frozen=True, slots=True)
class TruthBox:
    """One object as it is seen in one frame.

    Attributes:
        label: One of `LABELS`.
        box: x1, y1, x2, y2 in pixels of the frame: the smallest box around what is visible.
        visibility: Visible share of the whole silhouette, 0 to 1.
        track_id: The same number for the same object in every frame of the scene.
        difficult: Too small or too hidden to be asked for.
    """

    label: str
    box: tuple[float, float, float, float]
    visibility: float
    track_id: int
    difficult: bool = False


def depth_order(footprints: Sequence[tuple[float, float, float, float]], eye: Array) -> list[int]:
    """Order of things from far to near, so that a later one may hide an earlier one.

    Footprints are disjoint rectangles along the axes, so a line along an axis parts any two of
    them; the one on the eye's side of that line is the nearer one.

    Args:
        footprints: Smallest x, z and largest x, z of each thing in metres.
        eye: Position of the camera.

    Returns:
        Indices into `footprints`.
    """
    if not footprints:
        return []
    box = np.array(footprints)
    x, z = float(eye[0]), float(eye[2])
    nearer = _before(box[:, 0], box[:, 2], x) | _before(box[:, 1], box[:, 3], z)
    farther = nearer.T & ~nearer
    reach = np.hypot(
        np.maximum(np.maximum(box[:, 0] - x, x - box[:, 2]), 0),
        np.maximum(np.maximum(box[:, 1] - z, z - box[:, 3]), 0),
    )
    waiting = np.argsort(-reach, kind="stable").tolist()
    behind = [set(np.flatnonzero(farther[:, k]).tolist()) for k in range(len(box))]
    result: list[int] = []
    while waiting:
        rest = set(waiting)
        chosen = next((k for k in waiting if not behind[k] & rest), waiting[0])
        waiting.remove(chosen)
        result.append(chosen)
    return result


def _before(low: Array, high: Array, eye: float) -> NDArray[np.bool_]:
    """Whether thing i lies on the eye's side of a line that parts it from thing j."""
    gap = 1e-6
    below = (high[:, None] <= low[None, :] + gap) & (eye <= low[None, :] + gap)
    above = (low[:, None] >= high[None, :] - gap) & (eye >= high[None, :] - gap)
    return below | above


def id_mask(outlines: Sequence[Outline], width: int, height: int, fine: int) -> NDArray[np.uint8]:
    """Paint silhouettes 1, 2, ... from far to near, `fine` times larger than the frame."""
    mask = np.zeros((height * fine, width * fine), np.uint8)
    for number, outline in enumerate(outlines, start=1):
        for polygon in outline:
            cv2.fillConvexPoly(mask, fixed(polygon * float(fine)), number, cv2.LINE_8, SHIFT)
    return mask


def observe(shown: Sequence[Shown], width: int, height: int) -> list[TruthBox]:
    """Measure what is visible of every thing.

    Args:
        shown: Things with their sketches, from far to near.
        width: Of the frame in pixels.
        height: Of the frame in pixels.

    Returns:
        The objects that count, nearest last.
    """
    fine = max(1, -(-_FINE_ROWS // height))
    mask = id_mask([sketch.outline for _, sketch in shown], width, height, fine)
    found = []
    for number, (actor, sketch) in enumerate(shown, start=1):
        seen = _visible(mask, number, sketch, fine) if actor.label else None
        truth = _judge(actor, *seen, width, height) if seen is not None else None
        found += [truth] if truth is not None else []
    return found


def _visible(
    mask: NDArray[np.uint8], number: int, sketch: PlacedSketch | FigureSketch, fine: int
) -> tuple[Array, float] | None:
    """Visible box in pixels of the frame and visible share of the silhouette."""
    exact = sketch.bounds
    rows, columns = mask.shape
    x0, y0 = np.maximum(np.floor(exact[:2] * fine).astype(int) - 2, 0)
    x1, y1 = np.minimum(np.ceil(exact[2:] * fine).astype(int) + 2, [columns, rows])
    if x1 <= x0 or y1 <= y0:
        return None
    own = cv2.compare(mask[y0:y1, x0:x1], number, cv2.CMP_EQ)
    area = cv2.countNonZero(own)
    if not area:
        return None
    left, top, wide, high = cv2.boundingRect(own)
    box = np.array([x0 + left, y0 + top, x0 + left + wide, y0 + top + high]) / fine
    size = np.array([columns, rows, columns, rows]) / fine
    inside = np.clip(exact, 0, size)
    box = np.where(np.abs(box - inside) <= 1.6 / fine, inside, box)
    return box, min(1.0, area / max(1.0, _whole_area(sketch.outline, exact, fine)))


def _whole_area(outline: Outline, exact: Array, fine: int) -> float:
    """Area of the silhouette in mask pixels, also outside the frame and behind others."""
    if len(outline) == 1:
        return float(cv2.contourArea(outline[0])) * fine * fine
    extent = max(float((exact[2:] - exact[:2]).max()), 1e-6)
    zoom = 64.0 / extent
    small = np.zeros((68, 68), np.uint8)
    for polygon in outline:
        points = fixed((polygon - exact[:2]) * zoom + 2.0)
        cv2.fillConvexPoly(small, points, 1, cv2.LINE_8, SHIFT)
    return cv2.countNonZero(small) * (fine / zoom) ** 2


def _judge(actor: Actor, box: Array, visibility: float, width: int, height: int) -> TruthBox | None:
    wide, high = (box[2] - box[0]) / width, (box[3] - box[1]) / height
    small = high < MIN_HEIGHT or wide < MIN_WIDTH
    if (visibility < SEEN and small) or high < LISTED or actor.hidden > 0.8:
        return None
    difficult = bool(small or visibility < MIN_VISIBLE or actor.hidden > 0.3)
    x1, y1, x2, y2 = (float(v) for v in box)
    return TruthBox(actor.label, (x1, y1, x2, y2), round(visibility, 3), actor.track_id, difficult)
