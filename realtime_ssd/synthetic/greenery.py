"""Trees and street lamps along the pavement."""

from __future__ import annotations

import math

import numpy as np

from realtime_ssd.synthetic.canvas import UP, Canvas
from realtime_ssd.synthetic.projection import Array, vec
from realtime_ssd.synthetic.street_plan import Street

__all__ = ["draw_street_furniture", "lamp_positions", "tree_positions"]

_LEAVES = np.array(
    [
        [52, 118, 74],
        [44, 104, 88],
        [60, 130, 110],
        [40, 92, 60],
        [50, 122, 84],
        [56, 132, 96],
        [46, 120, 150],
    ],
    np.float64,
)
_BARK = np.array([48.0, 62, 80])


def lamp_positions(street: Street) -> list[tuple[float, float]]:
    """Return x and z of the street lamps in meters."""
    return [
        (side * street.trees, z)
        for side in (-1, 1)
        if side != street.open_side
        for z in (-12.0, 12.0, 36.0)
    ]


def tree_positions(
    rng: np.random.Generator, street: Street, end: float
) -> list[tuple[float, float]]:
    """Return x and z of the trees in meters."""
    positions = []
    for side in (-1, 1):
        pitch, share = rng.uniform(8.0, 12.0), rng.uniform(0.4, 0.9)
        for z in np.arange(-30.0, end - 4.0, pitch):
            if side != street.open_side and rng.random() < share:
                positions.append((side * street.trees, float(z + rng.uniform(2.0, 4.0))))
    return positions


def draw_street_furniture(
    canvas: Canvas, rng: np.random.Generator, street: Street, trees: list[tuple[float, float]]
) -> None:
    """Draw trees and lamps from far to near."""
    eye = canvas.view.camera.position
    leaves = _LEAVES[rng.integers(len(_LEAVES), size=2)]
    items = [(x, z, "tree") for x, z in trees] + [(x, z, "lamp") for x, z in lamp_positions(street)]
    items.sort(key=lambda item: -math.hypot(item[0] - eye[0], item[1] - eye[2]))
    for x, z, kind in items:
        foot = np.array([x, 0.0, z])
        if kind == "tree":
            tone = leaves[int(rng.integers(2))] * rng.uniform(0.85, 1.1)
            _draw_tree(canvas, rng, foot, tone)
        elif math.hypot(x - eye[0], z - eye[2]) > 3.0:
            _draw_lamp(canvas, foot, -1.0 if x > 0 else 1.0)


def _draw_tree(canvas: Canvas, rng: np.random.Generator, foot: Array, tone: Array) -> None:
    light = canvas.light
    distance = float(np.linalg.norm(foot - canvas.view.camera.position))
    trunk, crown, wide = rng.uniform(2.4, 3.0), rng.uniform(2.6, 3.8), rng.uniform(1.3, 1.8)
    count = 46
    ball = rng.normal(size=(count, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    ball *= rng.uniform(0.35, 1.0, (count, 1)) ** 0.5
    centers = foot + vec(0, trunk + crown / 2, 0) + ball * [wide, crown / 2, wide]
    radii = rng.uniform(0.35, 0.7, count)
    camera = canvas.view.camera
    if distance < 5.0 or camera.to_camera(foot[None])[0, 2] < 4.0:
        return
    _draw_post(canvas, foot, 0.14, trunk + 0.8, _BARK)
    facing = np.clip(0.5 + 0.5 * ball @ (light.direction * 0.7 + UP * 0.5), 0, 1)[:, None]
    grain = rng.uniform(0.9, 1.1, (count, 1))
    base = tone * grain * (light.ambient * (0.45 + 0.5 * facing) + light.sun * facing * 1.1)
    depth = camera.to_camera(centers)[:, 2]
    order = np.argsort(-(depth - 0.5 * ball[:, 1]), kind="stable")
    canvas.discs(centers[order], radii[order], np.clip(base[order], 0, 255), distance)
    outer = ball[::2] * 1.02
    tips = foot + vec(0, trunk + crown / 2, 0) + outer * [wide, crown / 2, wide]
    bright = np.clip(base[::2] * 1.16, 0, 255)
    near = camera.to_camera(tips)[:, 2] < camera.to_camera(foot[None])[0, 2]
    if near.any():
        canvas.discs(tips[near], radii[::2][near] * 0.42, bright[near], distance)


def _draw_post(canvas: Canvas, foot: Array, half: float, high: float, color: Array) -> None:
    """Draw a round post as a flat strip that faces the camera, with a highlight."""
    towards = canvas.view.camera.position - foot
    across = np.array([towards[2], 0.0, -towards[0]]) / math.hypot(towards[0], towards[2])
    for left, right, tone in ((-1.0, 1.0, 0.8), (-0.5, 0.35, 1.05)):
        strip = np.array([
            foot + across * half * left, foot + across * half * right,
            foot + across * half * right * 0.7 + UP * high,
            foot + across * half * left * 0.7 + UP * high,
        ])  # fmt: skip
        canvas.quads(strip[None], color * tone, UP)


def _draw_lamp(canvas: Canvas, foot: Array, inward: float) -> None:
    steel = np.array([74.0, 72, 68])
    _draw_post(canvas, foot, 0.09, 6.8, steel)
    arm = foot + UP * 6.8
    tip = arm + np.array([inward * 1.8, 0.25, 0])
    beam = np.array([arm, tip, tip + UP * 0.09, arm + UP * 0.09])
    canvas.quads(beam[None], steel, UP)
    box = np.array([tip + vec(-0.35, -0.06, 0), tip + vec(0.35, -0.06, 0), tip + vec(0.35, 0.1, 0),
                    tip + vec(-0.35, 0.1, 0)])  # fmt: skip
    canvas.quads(box[None], steel * 0.8, UP)
    glass = box.copy()
    glass[2:, 1] = glass[:2, 1] + 0.05
    brightness = 0.3 + 0.7 * canvas.light.lamps
    canvas.quads(glass[None], np.array([170.0, 226, 255]), UP, brightness)
