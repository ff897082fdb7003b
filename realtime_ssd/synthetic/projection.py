"""Camera pose, camera motion and projection from meters to pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["MARGIN", "NEAR", "Camera", "Sway", "View", "clip_near", "vec"]

Array = NDArray[np.float64]

NEAR = 0.6
"""Distance of the near plane from the camera in meters."""
MARGIN = 0.12
"""Margin of the cached background on each side, as a fraction of the frame size."""


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A pinhole camera in world coordinates: x to the right of the road, y up, z along the road.

    Attributes:
        position: x, y, z in meters.
        rotation: 3 × 3, rows are the camera's right, down and forward directions.
        focal: Focal length in units of the frame size (square root of height × 9/16 width).
    """

    position: Array
    rotation: Array
    focal: float

    @classmethod
    def from_angles(cls, position: Array, yaw: float, pitch: float, focal: float) -> Camera:
        """Create a camera turned right by `yaw` and down by `pitch` radians."""
        sin_y, cos_y, sin_p, cos_p = math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)
        right = (cos_y, 0.0, -sin_y)
        down = (-sin_y * sin_p, -cos_p, -cos_y * sin_p)
        forward = (sin_y * cos_p, -sin_p, cos_y * cos_p)
        return cls(position, np.array([right, down, forward]), focal)

    def to_camera(self, points: Array) -> Array:
        """Convert N × 3 world points to N × 3 camera points (right, down, forward)."""
        converted: Array = (points - self.position) @ self.rotation.T
        return converted

    def pixels_per_slope(self, width: int, height: int) -> float:
        """Return the focal length in pixels."""
        return self.focal * math.sqrt(width * 9 / 16 * height)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The projection of one frame, from slopes to pixels.

    Attributes:
        camera: The camera.
        matrix: 2 × 3 matrix from (right / forward, down / forward, 1) to pixels.
    """

    camera: Camera
    matrix: Array

    @property
    def scale(self) -> float:
        """Pixels per slope."""
        return math.hypot(self.matrix[0, 0], self.matrix[1, 0])

    def pixels(self, points: Array) -> Array:
        """Project N × 3 camera points in front of the camera to N × 2 pixels."""
        slopes = points[:, :2] / points[:, 2:]
        pixels: Array = slopes @ self.matrix[:, :2].T + self.matrix[:, 2]
        return pixels

    def project(self, points: Array) -> Array:
        """Project N × 3 world points in front of the camera to N × 2 pixels."""
        return self.pixels(self.camera.to_camera(points))

    def hull(self, points: Array) -> Array | None:
        """Return the hull of world points in pixels; None if any is behind the near plane."""
        camera_points = self.camera.to_camera(points)
        if camera_points[:, 2].min() < NEAR:
            return None
        hull = cv2.convexHull(self.pixels(camera_points).astype(np.float32))
        return np.asarray(hull.reshape(-1, 2), np.float64)

    def polygon(self, points: Array) -> Array | None:
        """Project a world polygon clipped at the near plane; None if it is behind the camera."""
        clipped = clip_near(self.camera.to_camera(points))
        return self.pixels(clipped) if len(clipped) >= 3 else None


@dataclass(frozen=True, slots=True, eq=False)
class Sway:
    """Camera motion: slow pan, roll, zoom and high-frequency shake.

    Attributes:
        amplitude: 6 amplitudes as slopes, three for x and three for y.
        rate: 6 frequencies in hertz.
        phase: 6 phases in radians.
        roll: Amplitude of the roll in radians.
        zoom: Amplitude of the zoom as a fraction.
    """

    amplitude: Array
    rate: Array
    phase: Array
    roll: float
    zoom: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Sway:
        """Sample a gentle motion."""
        size = rng.uniform(0.3, 1.0) * np.array([0.022, 0.004, 0.0009, 0.008, 0.003, 0.0009])
        rate = np.array([0.05, 0.31, 1.7, 0.07, 0.37, 2.1]) * rng.uniform(0.7, 1.4, 6)
        phase = rng.uniform(0, 2 * math.pi, 6)
        return cls(size, rate, phase, rng.uniform(0.001, 0.006), rng.uniform(0.0, 0.02))

    def matrix(self, static: Array, time: float) -> Array:
        """Return the 2 × 3 projection matrix at a time in seconds, from that without motion."""
        waves = self.amplitude * np.sin(2 * math.pi * self.rate * time + self.phase)
        angle = self.roll * math.sin(2 * math.pi * self.rate[1] * time + self.phase[3])
        zoom = 1.02 + self.zoom * math.sin(2 * math.pi * self.rate[0] * time + self.phase[4])
        turn = zoom * np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        shift = turn @ np.array([waves[:3].sum(), waves[3:].sum()])
        linear = static[:, :2] @ turn
        return np.column_stack([linear, static[:, 2] + static[:, :2] @ shift])


def vec(x: float, y: float, z: float) -> Array:
    """Return a point or direction in meters."""
    return np.array([x, y, z], np.float64)


def clip_near(polygon: Array) -> Array:
    """Clip a polygon of N × 3 camera points at the near plane (Sutherland and Hodgman 1974)."""
    depth = polygon[:, 2]
    if depth.min() >= NEAR:
        return polygon
    kept: list[Array] = []
    for current, following in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if current[2] >= NEAR:
            kept.append(current)
        if (current[2] >= NEAR) != (following[2] >= NEAR):
            kept.append(
                current
                + (following - current) * ((NEAR - current[2]) / (following[2] - current[2]))
            )
    return np.array(kept).reshape(-1, 3)
