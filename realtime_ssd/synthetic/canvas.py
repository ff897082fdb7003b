"""Canvas that draws world geometry onto the static background."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from realtime_ssd.core.frames import Image
from realtime_ssd.synthetic.lighting import Light
from realtime_ssd.synthetic.projection import NEAR, Array, View
from realtime_ssd.synthetic.shapes import SHIFT, to_fixed_point

__all__ = ["UP", "Canvas", "Wall"]

UP = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True, slots=True, eq=False)
class Wall:
    """A vertical plane with coordinates in meters: u along the plane, v up.

    Attributes:
        origin: World coordinates of (0, 0).
        along: Unit vector of u.
        normal: Unit normal.
    """

    origin: Array
    along: Array
    normal: Array

    def quads(self, rectangles: Array) -> Array:
        """Return N × 4 × 3 world corners of N × 4 rectangles (u0, v0, u1, v1)."""
        u0, v0, u1, v1 = np.atleast_2d(rectangles).T
        u = np.stack([u0, u1, u1, u0], axis=1)[..., None]
        v = np.stack([v0, v0, v1, v1], axis=1)[..., None]
        return np.asarray(self.origin + u * self.along + v * UP)

    def forward(self, distance: float) -> Wall:
        """Return the plane moved by `distance` meters along its normal."""
        return Wall(self.origin + distance * self.normal, self.along, self.normal)


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """An image to draw world geometry on.

    Attributes:
        image: H × W × 3 BGR.
        view: Projection.
        light: Lighting of the scene.
    """

    image: Image
    view: View
    light: Light

    def quads(self, corners: Array, colors: Array, normal: Array, lamp: float = 0.0) -> None:
        """Draw N × 4 × 3 quadrilaterals with one color or N × 3 colors and a common normal.

        `lamp` is the emissive fraction of the colors: 1 leaves them unshaded.
        """
        corners = corners.reshape(-1, corners.shape[-2], 3)
        colors = np.broadcast_to(np.asarray(colors, np.float64), (len(corners), 3))
        lit = self.light.shade(colors, normal[None])
        lit = lit * (1 - lamp) + colors * lamp
        flat = corners.reshape(-1, 3)
        camera_corners = self.view.camera.to_camera(flat).reshape(corners.shape)
        distance = np.linalg.norm(camera_corners.mean(axis=1), axis=1)
        for k in np.flatnonzero(camera_corners[:, :, 2].max(axis=1) >= NEAR):
            shade = self.light.fade(lit[k], float(distance[k]))
            points = self.view.polygon(corners[k])
            if points is not None:
                cv2.fillConvexPoly(
                    self.image, to_fixed_point(points), shade.tolist(), cv2.LINE_AA, SHIFT
                )

    def ground(self, x: tuple[float, float], z: tuple[float, float], color: Array) -> None:
        """Draw a rectangle on the ground in meters, in strips that fade with distance."""
        cuts = [z[0], *(c for c in (0.0, 25.0, 60.0, 120.0, 240.0) if z[0] < c < z[1]), z[1]]
        strips = [
            [[x[0], 0, a], [x[1], 0, a], [x[1], 0, b], [x[0], 0, b]] for a, b in pairwise(cuts)
        ]
        self.quads(np.array(strips, np.float64), np.asarray(color), UP)

    def discs(self, centers: Array, radii: Array, colors: Array, distance: float) -> None:
        """Draw N spheres as discs with N × 3 shaded colors, faded by a distance in meters."""
        points = self.view.camera.to_camera(centers)
        if points[:, 2].min() < NEAR:
            return
        pixels = to_fixed_point(self.view.pixels(points))
        pixel_radii = np.rint(radii * self.view.scale / points[:, 2] * (1 << SHIFT)).astype(int)
        shades = self.light.fade(colors, distance)
        for center, radius, shade in zip(pixels.tolist(), pixel_radii, shades, strict=True):
            cv2.circle(self.image, center, int(radius), shade.tolist(), -1, cv2.LINE_AA, SHIFT)

    def darken(self, polygons: list[Array], strength: float, softness: float) -> None:
        """Multiply the image inside world polygons by 1 - strength, with soft edges.

        `softness` is the blur as a fraction of the image height.
        """
        rows, columns = self.image.shape[:2]
        mask = np.full((rows, columns), 255, np.uint8)
        tone = round(255 * (1 - strength))
        for polygon in polygons:
            points = self.view.polygon(polygon)
            if points is not None:
                cv2.fillConvexPoly(mask, to_fixed_point(points), tone, cv2.LINE_AA, SHIFT)
        size = 2 * round(softness * rows / 2) + 1
        mask = cv2.blur(mask, (size, size))
        cv2.multiply(self.image, cv2.merge([mask] * 3), dst=self.image, scale=1 / 255)
