"""Rigid things built from convex polygons, and how they are projected and painted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.demo.camera import NEAR, Array, View, clip_near
from realtime_ssd.demo.light import Light
from realtime_ssd.frames import Image

__all__ = ["SHIFT", "Builder", "Outline", "Solid", "fill", "fixed", "patch"]

SHIFT = 4
"""Fractional bits of the coordinates given to OpenCV."""

Colour = Sequence[float]
Outline = list[NDArray[np.float32]]
"""Convex polygons in pixels whose union is the silhouette of a thing."""


def fixed(points: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
    """Convert pixels (0 is the left edge) to OpenCV's fixed point (0 is the first centre)."""
    scaled = np.clip((points - 0.5) * (1 << SHIFT), -4e6, 4e6)
    return np.asarray(np.rint(scaled), np.int32)


def fill(image: NDArray[np.uint8], points: NDArray[np.floating[Any]], colour: Colour) -> None:
    """Fill one convex polygon, anti-aliased."""
    cv2.fillConvexPoly(image, fixed(points), tuple(colour), cv2.LINE_AA, SHIFT)


def patch(quad: Array, u0: float, u1: float, v0: float, v1: float) -> Array:
    """Cut a rectangle out of a quadrilateral by bilinear interpolation.

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
    """Collects the faces of a thing, part by part, in local metres (x right, y up, z forward)."""

    points: list[Array] = field(default_factory=list)
    colours: list[Colour] = field(default_factory=list)
    normals: list[Array] = field(default_factory=list)
    lamps: list[float] = field(default_factory=list)
    parts: list[tuple[int, int]] = field(default_factory=list)

    def face(
        self, points: Array, colour: Colour, normal: Array | None = None, lamp: float = 0.0
    ) -> None:
        """Add a convex polygon; `lamp` above 0 makes it shine by itself when lamps burn."""
        if normal is None:
            normal = np.cross(points[1] - points[0], points[2] - points[0])
            normal = normal / (np.linalg.norm(normal) or 1.0)
        self.points.append(np.asarray(points, np.float64))
        self.colours.append(colour)
        self.normals.append(normal)
        self.lamps.append(lamp)

    def end_part(self) -> None:
        """Close a convex part: its faces so far are drawn together."""
        start = self.parts[-1][1] if self.parts else 0
        self.parts.append((start, len(self.points)))

    def prism(self, profile: Sequence[tuple[float, float, float]], colour: Colour) -> list[Array]:
        """Add a side profile pulled to both sides.

        Args:
            profile: Convex (z, y, half width) seen with forward to the right, anticlockwise.
            colour: Blue, green, red.

        Returns:
            One quadrilateral an edge of the profile, then the left and the right side.
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
        middle = np.vstack([left, right]).mean(axis=0)
        for points in (*quads, *sides):
            self.face(points, colour, _outward(points, middle))
        return [*quads, *sides]

    def solid(self, split: float | None = None) -> Solid:
        """Finish.

        Args:
            split: Plane z = split between the rear parts (added first) and the front parts.
        """
        if not self.parts or self.parts[-1][1] != len(self.points):
            self.end_part()
        starts = np.cumsum([0, *(len(p) for p in self.points)])
        vertices = np.vstack(self.points)
        return Solid(
            vertices,
            starts,
            np.array(self.colours, np.float64),
            np.array(self.normals),
            np.array(self.lamps),
            tuple(self.parts),
            split,
            np.array([*vertices.min(axis=0), *vertices.max(axis=0)]),
        )


def _outward(points: Array, middle: Array) -> Array:
    normal = np.cross(points[1] - points[0], points[2] - points[0])
    normal = normal / (np.linalg.norm(normal) or 1.0)
    return normal if normal @ (points.mean(axis=0) - middle) >= 0 else -normal


@dataclass(frozen=True, slots=True, eq=False)
class Solid:
    """A rigid thing in local metres.

    Attributes:
        vertices: N × 3, the polygons' corners one after the other.
        starts: Where each polygon begins, and N.
        colours: Colour of each polygon, blue, green, red.
        normals: Unit normal of each polygon.
        lamps: Own light of each polygon, 0 to 1.
        parts: First and last+1 polygon of each convex part, in drawing order.
        split: Plane z = split where the drawing order of the parts turns round, or None.
        bounds: Smallest x, y, z and largest x, y, z.
    """

    vertices: Array
    starts: NDArray[np.int64]
    colours: Array
    normals: Array
    lamps: Array
    parts: tuple[tuple[int, int], ...]
    split: float | None
    bounds: Array

    def placed(self, position: Array, turn: Array) -> Placed:
        """Put the thing into the world at a position with a 3 × 3 turn (local to world)."""
        return Placed(
            self, self.vertices @ turn.T + position, self.normals @ turn.T, position, turn
        )


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A `Solid` somewhere in the world."""

    solid: Solid
    vertices: Array
    normals: Array
    position: Array
    turn: Array

    def outline(self, view: View) -> Outline:
        """Silhouette: the hull of each convex part, cut at the near plane."""
        seen = view.camera.see(self.vertices)
        starts = self.solid.starts
        result: Outline = []
        for first, last in self.solid.parts:
            points = seen[starts[first] : starts[last]]
            if points[:, 2].min() < NEAR:
                faces = [clip_near(seen[starts[k] : starts[k + 1]]) for k in range(first, last)]
                points = np.vstack(faces)
            if len(points) >= 3:
                hull = cv2.convexHull(view.pixels(points).astype(np.float32))
                result.append(hull.reshape(-1, 2))
        return result

    def paint(self, image: Image, view: View, light: Light, hidden: float = 0.0) -> None:
        """Paint the faces turned to the camera, far parts first; `hidden` as in `Light.fade`."""
        starts = self.solid.starts
        colours = self._lit(view, light, hidden).tolist()
        seen = view.camera.see(self.vertices)
        towards = view.camera.position - self.vertices[starts[:-1]]
        facing = np.einsum("ij,ij->i", towards, self.normals) > 0
        whole = bool(seen[:, 2].min() >= NEAR)
        pixels = fixed(view.pixels(seen)) if whole else None
        for first, last in self._ordered(view):
            for k in range(first, last):
                if not facing[k]:
                    continue
                if pixels is not None:
                    corners = pixels[starts[k] : starts[k + 1]]
                else:
                    cut = clip_near(seen[starts[k] : starts[k + 1]])
                    if len(cut) < 3:
                        continue
                    corners = fixed(view.pixels(cut))
                cv2.fillConvexPoly(image, corners, colours[k], cv2.LINE_AA, SHIFT)

    def _ordered(self, view: View) -> Sequence[tuple[int, int]]:
        if self.solid.split is None:
            return self.solid.parts
        ahead = ((view.camera.position - self.position) @ self.turn)[2] > self.solid.split
        return self.solid.parts if ahead else self.solid.parts[::-1]

    def _lit(self, view: View, light: Light, hidden: float) -> Array:
        lit = light.shade(self.solid.colours, self.normals)
        shine = (self.solid.lamps * (0.35 + 0.65 * light.lamps))[:, None]
        lit = lit * (1 - shine) + self.solid.colours * shine
        distance = float(np.linalg.norm(self.position - view.camera.position))
        return light.fade(lit, distance, hidden)
