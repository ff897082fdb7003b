"""Geometry of traffic lights: heads with three lenses, poles and arms."""

from __future__ import annotations

import math

import numpy as np

from realtime_ssd.synthetic.projection import Array
from realtime_ssd.synthetic.shapes import Builder, Solid

__all__ = ["HEAD_HALF_WIDTH", "HEAD_HEIGHT", "head", "pole", "state_at"]

HEAD_HALF_WIDTH, HEAD_HEIGHT = 0.38, 1.5
_LIT = ((40, 40, 255), (30, 180, 255), (140, 255, 60))
_OFF = ((30, 26, 74), (24, 54, 80), (42, 66, 30))
_FORWARD = np.array([0.0, 0.0, 1.0])
_STEEL = (92, 90, 86)


def state_at(time: float, offset: float) -> int:
    """Return the lit lens at a time in seconds: 0 red, 1 amber, 2 green; the cycle is 14 s."""
    phase = (time + offset) % 14.0
    return 0 if phase < 6.0 else 2 if phase < 12.0 else 1


def _disc(y: float, z: float, radius: float) -> Array:
    angle = np.arange(12) * (math.pi / 6)
    return np.column_stack([radius * np.cos(angle), y + radius * np.sin(angle), np.full(12, z)])


def _slab(build: Builder, half: float, y: tuple[float, float], z: tuple[float, float],
          color: tuple[int, int, int]) -> None:  # fmt: skip
    build.prism(
        [(z[0], y[0], half), (z[1], y[0], half), (z[1], y[1], half), (z[0], y[1], half)], color
    )


def head(state: int) -> Solid:
    """Return a head with a white-rimmed backboard that faces forward, its base at the origin."""
    build = Builder()
    _slab(build, HEAD_HALF_WIDTH, (0.0, HEAD_HEIGHT), (-0.06, 0.0), (212, 214, 212))
    rim = np.array([[-1, 0, 0], [1, 0, 0], [1, 1, 0], [-1, 1, 0]], np.float64)
    inside = rim * [HEAD_HALF_WIDTH - 0.05, HEAD_HEIGHT - 0.1, 0] + [0, 0.05, 0.004]
    build.face(inside, (34, 34, 32), _FORWARD)
    build.end_part()
    _slab(build, 0.23, (0.12, HEAD_HEIGHT - 0.12), (0.0, 0.2), (46, 46, 42))
    for lens in range(3):
        y = HEAD_HEIGHT - 0.34 - 0.41 * lens
        lit = lens == state
        build.face(_disc(y, 0.205, 0.185), (22, 22, 20), _FORWARD)
        color = _LIT[lens] if lit else _OFF[lens]
        build.face(_disc(y, 0.21, 0.155), color, _FORWARD, 1.0 if lit else 0.0)
        if lit:
            core = tuple(min(255, c + 90) for c in color)
            build.face(_disc(y, 0.215, 0.08), core, _FORWARD, 1.0)
    build.end_part()
    return build.solid()


def pole(height: float, arm: float) -> Solid:
    """Return a pole.

    Args:
        height: Height in meters.
        arm: Length of the arm in meters; positive to the right, negative to the left.
    """
    build = Builder()
    _slab(build, 0.08, (0.0, height), (-0.16, -0.02), _STEEL)
    build.end_part()
    _slab(build, 0.14, (0.0, 0.7), (-0.22, 0.04), (70, 68, 66))
    build.end_part()
    if arm:
        corners = [(min(arm, 0.0), height - 0.12), (max(arm, 0.0), height)]
        (x0, y0), (x1, y1) = corners
        for z, normal in ((-0.02, _FORWARD), (-0.16, -_FORWARD)):
            beam = np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]])
            build.face(beam, _STEEL, normal)
        under = np.array([[x0, y0, -0.16], [x1, y0, -0.16], [x1, y0, -0.02], [x0, y0, -0.02]])
        build.face(under, (60, 58, 56), np.array([0.0, -1.0, 0.0]))
        build.end_part()
    return build.solid()
