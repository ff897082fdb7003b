"""Everything that stands still: sky, houses, road, pavements, trees and lamps, painted once."""

from __future__ import annotations

import numpy as np

from realtime_ssd.demo.camera import Array, Camera, View
from realtime_ssd.demo.layout import Street
from realtime_ssd.demo.light import Light
from realtime_ssd.demo.shapes import fill
from realtime_ssd.frames import Image

__all__ = ["paint_background"]


def paint_background(
    rng: np.random.Generator, street: Street, light: Light, view: View, width: int, height: int
) -> Image:
    """Paint the still picture, `height` × `width` × 3 BGR."""
    image: Image = np.full((height, width, 3), light.sky_low, np.uint8)
    up = np.array([[0.0, 1.0, 0.0]])
    for x, colour in ((60.0, (70, 110, 90)), (street.wall, (150, 150, 150)), (street.kerb, (84, 82, 80))):
        ground = np.array([[-x, 0, -60], [x, 0, -60], [x, 0, 400], [-x, 0, 400]])
        points = view.polygon(ground)
        if points is not None:
            fill(image, points, light.shade(np.array([colour], np.float64), up)[0].tolist())
    return image
