"""Rigid solids of convex polygons, their projection and rendering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.frames import Image
from realtime_ssd.synthetic.lighting import Light
from realtime_ssd.synthetic.projection import NEAR, Array, View, clip_near

__all__ = [
    "SHIFT",
    "Builder",
    "Outline",
    "PlacedSolid",
    "ProjectedSolid",
    "Solid",
    "bounds_of",
    "fill",
    "patch",
    "to_fixed_point",
]

SHIFT = 4
"""Fractional bits of OpenCV's fixed-point coordinates."""

Color = Sequence[float]
Outline = list[NDArray[np.float32]]
"""Convex polygons in pixels whose union is a silhouette."""


def to_fixed_point(points: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
    """Convert pixels (0 is the left edge) to OpenCV's fixed point (0 is the first pixel center)."""
    return np.asarray(np.rint((points - 0.5) * (1 << SHIFT)), np.int32)


def bounds_of(points: NDArray[np.floating[Any]]) -> Array:
    """Return the bounding box x1, y1, x2, y2 of N × 2 points."""
    box: Array = np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float64)
    return box


def fill(image: NDArray[np.uint8], points: NDArray[np.floating[Any]], color: Color) -> None:
    """Fill a convex polygon with anti-aliasing."""
    cv2.fillConvexPoly(image, to_fixed_point(points), tuple(color), cv2.LINE_AA, SHIFT)


def patch(quad: Array, u0: float, u1: float, v0: float, v1: float) -> Array:
    """Return a rectangle in the parameter space of a quadrilateral, bilinearly interpolated.

    Args:
        quad: 4 × 3 corners: (u, v) = (0, 0), (1, 0), (1, 1), (0, 1).
        u0: Left end, 0 to 1.
        u1: Right end.
        v0: Lower end.
        v1: Upper end.

    Returns:
        4 × 3 corners in the same order.
    """
    u = np.array([u0, u1, u1, u0])[:, None]
    v = np.array([v0, v0, v1, v1])[:, None]
    low = quad[0] * (1 - u) + quad[1] * u
    high = quad[3] * (1 - u) + quad[2] * u
    result: Array = low * (1 - v) + high * v
    return result


@dataclass(slots=True)
class Builder:
    """Collects the faces of a solid, part by part, in local meters (x right, y up, z forward)."""

    points: list[Array] = field(default_factory=list)
    colors: list[Color] = field(default_factory=list)
    normals: list[Array] = field(default_factory=list)
    lamps: list[float] = field(default_factory=list)
    parts: list[tuple[int, int]] = field(default_factory=list)

    def face(
        self, points: Array, color: Color, normal: Array | None = None, lamp: float = 0.0
    ) -> None:
        """Add a convex polygon; `lamp` is its emissive fraction when lamps are on."""
        if normal is None:
            normal = np.cross(points[1] - points[0], points[2] - points[0])
            normal = normal / (np.linalg.norm(normal) or 1.0)
        self.points.append(np.asarray(points, np.float64))
        self.colors.append(color)
        self.normals.append(normal)
        self.lamps.append(lamp)

    def end_part(self) -> None:
        """Finish a convex part, made of the faces since the last one."""
        start = self.parts[-1][1] if self.parts else 0
        self.parts.append((start, len(self.points)))

    def prism(self, profile: Sequence[tuple[float, float, float]], color: Color) -> list[Array]:
        """Add a side profile extruded to both sides.

        Args:
            profile: Convex polygon of (z, y, half width), anticlockwise with forward to the right.
            color: Blue, green, red.

        Returns:
            One quadrilateral per edge of the profile, then the left and the right side.
        """
        z, y, half = np.array(profile).T
        right = np.column_stack([half, y, z])
        left = np.column_stack([-half, y, z])
        following = np.roll(np.arange(len(z)), -1)
        quads = [
            np.array([left[i], right[i], right[j], left[j]])
            for i, j in zip(range(len(z)), following, strict=True)
        ]
        sides = [left[::-1], right]
        center = np.vstack([left, right]).mean(axis=0)
        for points in (*quads, *sides):
            self.face(points, color, _outward_normal(points, center))
        return [*quads, *sides]

    def solid(self, split: float | None = None) -> Solid:
        """Return the solid.

        Args:
            split: Plane z = split between the rear parts (added first) and the front parts.
        """
        if not self.parts or self.parts[-1][1] != len(self.points):
            self.end_part()
        starts = np.cumsum([0, *(len(p) for p in self.points)])
        vertices = np.vstack(self.points)
        following = np.arange(len(vertices)) + 1
        following[starts[1:] - 1] = starts[:-1]
        return Solid(
            vertices,
            starts,
            following,
            np.array(self.colors, np.float64),
            np.array(self.normals),
            np.array(self.lamps),
            tuple(self.parts),
            split,
            np.array([*vertices.min(axis=0), *vertices.max(axis=0)]),
        )


def _outward_normal(points: Array, center: Array) -> Array:
    normal = np.cross(points[1] - points[0], points[2] - points[0])
    normal = normal / (np.linalg.norm(normal) or 1.0)
    return normal if normal @ (points.mean(axis=0) - center) >= 0 else -normal


@dataclass(frozen=True, slots=True, eq=False)
class Solid:
    """A rigid solid in local meters.

    Attributes:
        vertices: N × 3 corners of all polygons.
        starts: Index of the first corner of each polygon, then N.
        following: Index of the next corner in the polygon, for each corner.
        colors: Color of each polygon: blue, green, red.
        normals: Unit normal of each polygon.
        lamps: Emissive fraction of each polygon, 0 to 1.
        parts: Range of polygons of each convex part, in drawing order.
        split: Plane z = split at which the drawing order of the parts reverses, or None.
        bounds: Minimum x, y, z and maximum x, y, z.
    """

    vertices: Array
    starts: NDArray[np.int64]
    following: NDArray[np.int64]
    colors: Array
    normals: Array
    lamps: Array
    parts: tuple[tuple[int, int], ...]
    split: float | None
    bounds: Array

    def place(self, position: Array, rotation: Array) -> PlacedSolid:
        """Place the solid in the world with a position and a 3 × 3 rotation (local to world)."""
        return PlacedSolid(
            self,
            self.vertices @ rotation.T + position,
            self.normals @ rotation.T,
            position,
            rotation,
        )


@dataclass(frozen=True, slots=True, eq=False)
class PlacedSolid:
    """A `Solid` in world coordinates."""

    solid: Solid
    vertices: Array
    normals: Array
    position: Array
    rotation: Array

    def project(self, view: View) -> ProjectedSolid | None:
        """Project the solid for one frame; None if it is behind the near plane."""
        points = view.camera.to_camera(self.vertices)
        nearest = float(points[:, 2].min())
        if nearest < NEAR and points[:, 2].max() < NEAR:
            return None
        pixels = view.pixels(points) if nearest >= NEAR else None
        starts = self.solid.starts
        outline: Outline = []
        for first, last in self.solid.parts:
            part = slice(starts[first], starts[last])
            corners = pixels[part] if pixels is not None else self._clip(view, points, part)
            if len(corners) >= 3:
                outline.append(cv2.convexHull(corners.astype(np.float32)).reshape(-1, 2))
        if not outline:
            return None
        bounds = bounds_of(pixels if pixels is not None else np.vstack(outline))
        return ProjectedSolid(self, view, points, pixels, outline, bounds)

    def _clip(self, view: View, points: Array, part: slice) -> Array:
        """Return the corners in pixels of a convex part clipped at the near plane."""
        starts, ends = points[part], points[self.solid.following[part]]
        crossing = (starts[:, 2] >= NEAR) != (ends[:, 2] >= NEAR)
        a, b = starts[crossing], ends[crossing]
        on_plane = a + (b - a) * ((NEAR - a[:, 2]) / (b[:, 2] - a[:, 2]))[:, None]
        return view.pixels(np.vstack([starts[starts[:, 2] >= NEAR], on_plane]))


@dataclass(frozen=True, slots=True, eq=False)
class ProjectedSolid:
    """A `PlacedSolid` projected for one frame.

    Attributes:
        placed: The solid in the world.
        view: The projection.
        points: N × 3 corners in camera coordinates.
        pixels: N × 2 corners in pixels; None if any is behind the near plane.
        outline: Silhouette.
        bounds: x1, y1, x2, y2 of the silhouette in pixels.
    """

    placed: PlacedSolid
    view: View
    points: Array
    pixels: Array | None
    outline: Outline
    bounds: Array

    def draw(self, image: Image, light: Light, hidden: float = 0.0) -> None:
        """Draw the front faces, far parts first; `hidden` as in `Light.fade`."""
        solid, eye = self.placed.solid, self.view.camera.position
        starts = solid.starts
        towards = eye - self.placed.vertices[starts[:-1]]
        facing = (np.einsum("ij,ij->i", towards, self.placed.normals) > 0).tolist()
        colors = self._shaded_colors(light, hidden).tolist()
        corners = to_fixed_point(self.pixels) if self.pixels is not None else None
        offsets = starts.tolist()
        for first, last in self._ordered_parts():
            for k in range(first, last):
                if not facing[k]:
                    continue
                if corners is not None:
                    points = corners[offsets[k] : offsets[k + 1]]
                else:
                    inside = clip_near(self.points[offsets[k] : offsets[k + 1]])
                    if len(inside) < 3:
                        continue
                    points = to_fixed_point(self.view.pixels(inside))
                cv2.fillConvexPoly(image, points, colors[k], cv2.LINE_AA, SHIFT)

    def _ordered_parts(self) -> Sequence[tuple[int, int]]:
        solid, placed = self.placed.solid, self.placed
        if solid.split is None:
            return solid.parts
        ahead = ((self.view.camera.position - placed.position) @ placed.rotation)[2] > solid.split
        return solid.parts if ahead else solid.parts[::-1]

    def _shaded_colors(self, light: Light, hidden: float) -> Array:
        solid = self.placed.solid
        lit = light.shade(solid.colors, self.placed.normals)
        emission = (solid.lamps * (0.35 + 0.65 * light.lamps))[:, None]
        lit = lit * (1 - emission) + solid.colors * emission
        distance = float(np.linalg.norm(self.placed.position - self.view.camera.position))
        return light.fade(lit, distance, hidden)
