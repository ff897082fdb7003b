"""The synthetic street as ground truth: exact boxes with identities, and who crossed a line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.results import FrameResult
from realtime_ssd.processors import Shape
from realtime_ssd.synthetic import LABELS, StreetScene
from realtime_ssd.synthetic.projection import View

FPS = 30
CLASSES = ("background", *LABELS)
_CLEARANCE = 8.0
"""Objects that are nearer to the line than this, in meters, at the start or end do not count."""


@dataclass(frozen=True)
class Crossings:
    """Objects that cross a line on the ground.

    Attributes:
        line: The line on the picture, from left to right.
        away: Classes of those that move away from the camera, by track id.
        toward: Classes of those that move toward it.
        ignored: Track ids of objects near the line at the start or end.
    """

    line: Shape
    away: dict[int, str]
    toward: dict[int, str]
    ignored: frozenset[int]


def results(
    scene: StreetScene, frames: int, ignored: frozenset[int] = frozenset()
) -> list[FrameResult]:
    """Return true boxes of whole objects, also of their hidden parts, with true track ids."""
    image = np.zeros((scene.height, scene.width, 3), np.uint8)
    found = []
    for number in range(frames):
        boxes, ids, classes = [], [], []
        for actor, projection in scene._project(number)[1]:
            if actor.label and actor.track_id not in ignored:
                boxes.append(projection.bounds)
                ids.append(actor.track_id)
                classes.append(CLASSES.index(actor.label))
        detections = Detections(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.ones(len(boxes), np.float32),
            np.array(classes, np.int32),
            CLASSES,
            np.array(ids, np.int64),
        )
        frame = Frame(image, number, "street", number, Fraction(1, FPS))
        found.append(FrameResult(frame, detections))
    return found


def crossings(scene: StreetScene, frames: int, z: float) -> Crossings:
    """Return who crosses the line at a distance along the road, from the positions in meters."""
    start, end = _first_and_last(scene, frames)
    view = View(scene.camera, scene._static_matrix)
    ends = view.project(np.array([[-14.0, 0.0, z], [14.0, 0.0, z]])).round().astype(int)
    _, *clipped = cv2.clipLine((0, 0, scene.width, scene.height), *ends.tolist())
    away: dict[int, str] = {}
    toward: dict[int, str] = {}
    ignored: set[int] = set()
    for number, before in start.items():
        after = end[number]
        near = min(abs(before.z - z), abs(after.z - z)) < _CLEARANCE
        column = float(view.project(np.array([[before.x, 0.0, z]]))[0, 0])
        if near or not 0.12 < column / scene.width < 0.88:
            ignored.add(number)
        elif (before.z < z) != (after.z < z):
            (away if after.z > z else toward)[number] = before.label
    points = tuple((float(u), float(v)) for u, v in clipped)
    return Crossings(Shape("gate", points), away, toward, frozenset(ignored))


def total(classes: dict[int, str]) -> Counter[str]:
    return Counter(classes.values())


def camera_points(scene: StreetScene) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Return pixels of the ground and their positions in meters."""
    ground = [(-6.0, 14.0), (6.0, 14.0), (6.0, 40.0), (-6.0, 40.0)]
    world = np.array([[x, 0.0, z] for x, z in ground])
    pixels: NDArray[np.float64] = View(scene.camera, scene._static_matrix).project(world)
    return [((float(u), float(v)), at) for (u, v), at in zip(pixels, ground, strict=True)]


@dataclass(frozen=True)
class _Place:
    label: str
    x: float
    z: float


def _first_and_last(scene: StreetScene, frames: int) -> tuple[dict[int, _Place], dict[int, _Place]]:
    """Return the places where each object is first and last, seen or not."""
    first: dict[int, _Place] = {}
    last: dict[int, _Place] = {}
    for number in (*range(0, frames, 3), frames - 1):
        for actor in scene._traffic.actors(number / scene.fps, lambda *_: True):
            if actor.heading and actor.label:
                x1, z1, x2, z2 = actor.footprint
                place = _Place(actor.label, (x1 + x2) / 2, (z1 + z2) / 2)
                first.setdefault(actor.track_id, place)
                last[actor.track_id] = place
    return first, last
