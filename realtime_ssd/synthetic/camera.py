"""Where the camera stands, how it sways, and how metres become pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["MARGIN", "NEAR", "Camera", "Sway", "View", "clip_near", "vec"]

Array = NDArray[np.float64]

NEAR = 0.6
"""Distance in metres in front of the lens below which nothing is painted."""
MARGIN = 0.12
"""How far the cached background reaches beyond the frame, as a share of it on each side."""


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A pinhole camera in the world: x to the right of the road, y up, z along the road.

    Attributes:
        position: x, y, z in metres.
        rotation: 3 × 3, rows are the camera's right, down and forward directions.
        focal: Focal length in units of the frame's size (the root of height × 9/16 width).
    """

    position: Array
    rotation: Array
    focal: float

    @classmethod
    def look(cls, position: Array, yaw: float, pitch: float, focal: float) -> Camera:
        """Make a camera turned right by `yaw` and down by `pitch` radians."""
        sin_y, cos_y, sin_p, cos_p = math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)
        right = (cos_y, 0.0, -sin_y)
        down = (-sin_y * sin_p, -cos_p, -cos_y * sin_p)
        forward = (sin_y * cos_p, -sin_p, cos_y * cos_p)
        return cls(position, np.array([right, down, forward]), focal)

    def see(self, points: Array) -> Array:
        """Turn N × 3 world points into N × 3 camera points (right, down, forward)."""
        return (points - self.position) @ self.rotation.T

    def pixels_per_slope(self, width: int, height: int) -> float:
        """Pixels by which a point moves when its direction changes by a slope of one."""
        return self.focal * math.sqrt(width * 9 / 16 * height)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The projection of one picture: slopes to pixels.

    Attributes:
        camera: The camera.
        matrix: 2 × 3, maps (right/forward, down/forward, 1) to pixels.
    """

    camera: Camera
    matrix: Array

    @property
    def scale(self) -> float:
        """Pixels per slope."""
        return math.hypot(self.matrix[0, 0], self.matrix[1, 0])

    def pixels(self, seen: Array) -> Array:
        """Project N × 3 camera points in front of the lens to N × 2 pixels."""
        return (seen[:, :2] / seen[:, 2:]) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def project(self, points: Array) -> Array:
        """Project N × 3 world points in front of the lens to N × 2 pixels."""
        return self.pixels(self.camera.see(points))

    def hull(self, points: Array) -> Array | None:
        """Project the hull of world points; None if any is behind the near plane."""
        seen = self.camera.see(points)
        if seen[:, 2].min() < NEAR:
            return None
        hull = cv2.convexHull(self.pixels(seen).astype(np.float32))
        return np.asarray(hull.reshape(-1, 2), np.float64)

    def polygon(self, points: Array) -> Array | None:
        """Project a world polygon, cut at the near plane; None if it is behind the lens."""
        seen = clip_near(self.camera.see(points))
        return self.pixels(seen) if len(seen) >= 3 else None


@dataclass(frozen=True, slots=True, eq=False)
class Sway:
    """Slow pan, breathing zoom and the tremble of a hand or a mast in the wind.

    Attributes:
        amplitude: 6 amplitudes of x and y in units of slope, three each.
        rate: 6 frequencies in hertz.
        phase: 6 phases in radians.
        roll: Amplitude of the roll in radians.
        zoom: Amplitude of the zoom as a share.
    """

    amplitude: Array
    rate: Array
    phase: Array
    roll: float
    zoom: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Sway:
        """Draw a gentle sway."""
        size = rng.uniform(0.3, 1.0) * np.array([0.022, 0.004, 0.0009, 0.008, 0.003, 0.0009])
        rate = np.array([0.05, 0.31, 1.7, 0.07, 0.37, 2.1]) * rng.uniform(0.7, 1.4, 6)
        phase = rng.uniform(0, 2 * math.pi, 6)
        return cls(size, rate, phase, rng.uniform(0.001, 0.006), rng.uniform(0.0, 0.02))

    def matrix(self, still: Array, time: float) -> Array:
        """The 2 × 3 projection at a time, from that of the camera standing still."""
        waves = self.amplitude * np.sin(2 * math.pi * self.rate * time + self.phase)
        angle = self.roll * math.sin(2 * math.pi * self.rate[1] * time + self.phase[3])
        zoom = 1.02 + self.zoom * math.sin(2 * math.pi * self.rate[0] * time + self.phase[4])
        turn = zoom * np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        shift = turn @ np.array([waves[:3].sum(), waves[3:].sum()])
        linear = still[:, :2] @ turn
        return np.column_stack([linear, still[:, 2] + still[:, :2] @ shift])


def vec(x: float, y: float, z: float) -> Array:
    """A point or direction in metres."""
    return np.array([x, y, z], np.float64)


def clip_near(polygon: Array) -> Array:
    """Cut a polygon of N × 3 camera points at the near plane (Sutherland and Hodgman 1974)."""
    depth = polygon[:, 2]
    if depth.min() >= NEAR:
        return polygon
    kept: list[Array] = []
    for here, there in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if here[2] >= NEAR:
            kept.append(here)
        if (here[2] >= NEAR) != (there[2] >= NEAR):
            kept.append(here + (there - here) * ((NEAR - here[2]) / (there[2] - here[2])))
    return np.array(kept).reshape(-1, 3)
