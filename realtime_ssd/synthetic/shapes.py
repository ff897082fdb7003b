"""Rigid things built from convex polygons, and how they are projected and painted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.frames import Image
from realtime_ssd.synthetic.camera import NEAR, Array, View, clip_near
from realtime_ssd.synthetic.light import Light

__all__ = [
    "SHIFT",
    "Builder",
    "Outline",
    "Placed",
    "PlacedSketch",
    "Solid",
    "bounds_of",
    "fill",
    "fixed",
    "patch",
]

SHIFT = 4
"""Fractional bits of the coordinates given to OpenCV."""

Colour = Sequence[float]
Outline = list[NDArray[np.float32]]
"""Convex polygons in pixels whose union is the silhouette of a thing."""


def fixed(points: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
    """Convert pixels (0 is the left edge) to OpenCV's fixed point (0 is the first centre)."""
    return np.asarray(np.rint((points - 0.5) * (1 << SHIFT)), np.int32)


def bounds_of(points: NDArray[np.floating[Any]]) -> Array:
    """x1, y1, x2, y2 around N × 2 points."""
    box: Array = np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float64)
    return box


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
        following = np.arange(len(vertices)) + 1
        following[starts[1:] - 1] = starts[:-1]
        return Solid(
            vertices,
            starts,
            following,
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
        following: The next corner of each corner in its polygon.
        colours: Colour of each polygon, blue, green, red.
        normals: Unit normal of each polygon.
        lamps: Own light of each polygon, 0 to 1.
        parts: First and last+1 polygon of each convex part, in drawing order.
        split: Plane z = split where the drawing order of the parts turns round, or None.
        bounds: Smallest x, y, z and largest x, y, z.
    """

    vertices: Array
    starts: NDArray[np.int64]
    following: NDArray[np.int64]
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

    def sketch(self, view: View) -> PlacedSketch | None:
        """Project for one picture; None if the thing is behind the lens."""
        seen = view.camera.see(self.vertices)
        nearest = float(seen[:, 2].min())
        if nearest < NEAR and seen[:, 2].max() < NEAR:
            return None
        pixels = view.pixels(seen) if nearest >= NEAR else None
        starts = self.solid.starts
        outline: Outline = []
        for first, last in self.solid.parts:
            inside = slice(starts[first], starts[last])
            points = pixels[inside] if pixels is not None else self._cut(view, seen, inside)
            if len(points) >= 3:
                outline.append(cv2.convexHull(points.astype(np.float32)).reshape(-1, 2))
        if not outline:
            return None
        corners = pixels if pixels is not None else np.vstack(outline)
        return PlacedSketch(self, view, seen, pixels, outline, bounds_of(corners))

    def _cut(self, view: View, seen: Array, inside: slice) -> Array:
        """Corners in pixels of a convex part cut at the near plane."""
        here, there = seen[inside], seen[self.solid.following[inside]]
        crossing = (here[:, 2] >= NEAR) != (there[:, 2] >= NEAR)
        a, b = here[crossing], there[crossing]
        on_plane = a + (b - a) * ((NEAR - a[:, 2]) / (b[:, 2] - a[:, 2]))[:, None]
        return view.pixels(np.vstack([here[here[:, 2] >= NEAR], on_plane]))


@dataclass(frozen=True, slots=True, eq=False)
class PlacedSketch:
    """A `Placed` thing projected for one picture.

    Attributes:
        thing: The thing.
        view: The projection.
        seen: N × 3 corners as the camera sees them.
        pixels: N × 2 corners in pixels, or None if some are behind the near plane.
        outline: Silhouette.
        bounds: x1, y1, x2, y2 of the silhouette in pixels.
    """

    thing: Placed
    view: View
    seen: Array
    pixels: Array | None
    outline: Outline
    bounds: Array

    def paint(self, image: Image, light: Light, hidden: float = 0.0) -> None:
        """Paint the faces turned to the camera, far parts first; `hidden` as in `Light.fade`."""
        solid, eye = self.thing.solid, self.view.camera.position
        starts = solid.starts
        towards = eye - self.thing.vertices[starts[:-1]]
        facing = (np.einsum("ij,ij->i", towards, self.thing.normals) > 0).tolist()
        colours = self._lit(light, hidden).tolist()
        corners = fixed(self.pixels) if self.pixels is not None else None
        begin = starts.tolist()
        for first, last in self._ordered():
            for k in range(first, last):
                if not facing[k]:
                    continue
                if corners is not None:
                    points = corners[begin[k] : begin[k + 1]]
                else:
                    inside = clip_near(self.seen[begin[k] : begin[k + 1]])
                    if len(inside) < 3:
                        continue
                    points = fixed(self.view.pixels(inside))
                cv2.fillConvexPoly(image, points, colours[k], cv2.LINE_AA, SHIFT)

    def _ordered(self) -> Sequence[tuple[int, int]]:
        solid, thing = self.thing.solid, self.thing
        if solid.split is None:
            return solid.parts
        ahead = ((self.view.camera.position - thing.position) @ thing.turn)[2] > solid.split
        return solid.parts if ahead else solid.parts[::-1]

    def _lit(self, light: Light, hidden: float) -> Array:
        solid = self.thing.solid
        lit = light.shade(solid.colours, self.thing.normals)
        shine = (solid.lamps * (0.35 + 0.65 * light.lamps))[:, None]
        lit = lit * (1 - shine) + solid.colours * shine
        distance = float(np.linalg.norm(self.thing.position - self.view.camera.position))
        return light.fade(lit, distance, hidden)
