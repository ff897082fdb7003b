"""House fronts with windows, shops and balconies, and the bridge at the end of the street."""

from __future__ import annotations

import numpy as np

from realtime_ssd.synthetic.canvas import Canvas, Wall
from realtime_ssd.synthetic.projection import Array
from realtime_ssd.synthetic.street_plan import Street

__all__ = ["draw_bridge", "draw_houses", "draw_skyline"]

_WALLS = np.array([
    [112, 140, 178], [120, 160, 206], [150, 176, 204], [92, 108, 156], [176, 186, 196],
    [140, 150, 160], [160, 186, 214], [98, 124, 168], [186, 196, 200], [132, 128, 150],
    [146, 158, 140], [170, 164, 148],
], np.float64)  # fmt: skip
_AWNINGS = np.array(
    [[60, 60, 190], [150, 100, 40], [70, 130, 60], [50, 150, 220], [120, 60, 110]], np.float64
)
_BORDER = np.array([-0.1, -0.05, 0.1, 0.1])
_WARM = np.array([120.0, 205.0, 255.0])


def draw_skyline(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw distant towers in every direction the camera may face."""
    for distance, tall, count in ((320.0, 55.0, 46), (230.0, 34.0, 40)):
        angles = np.sort(rng.uniform(-2.2, 2.2, count))
        for angle in angles:
            wide, high = rng.uniform(12, 30), rng.uniform(0.35, 1.0) * tall
            away = np.array([np.sin(angle), 0.0, np.cos(angle)])
            along = np.array([away[2], 0.0, -away[0]])
            wall = Wall(distance * away - wide / 2 * along, along, -away)
            tone = rng.uniform(110, 160) * np.array([1.0, 0.97, 0.94])
            canvas.quads(wall.quads(np.array([0, -4, wide, high])), tone, wall.normal)


def draw_houses(canvas: Canvas, rng: np.random.Generator, street: Street, end: float) -> None:
    """Draw rows of houses on both sides up to z = `end` meters, far ones first."""
    plots: list[tuple[float, int, float, float]] = []
    for side in (-1, 1):
        z = -62.0
        while z < end:
            wide = rng.uniform(8.5, 16.0)
            if side != street.open_side:
                plots.append((abs(z + wide / 2), side, z, min(wide, end - z)))
            z += wide + (rng.uniform(3, 8) if rng.random() < 0.25 else 0.0)
    for _, side, z, wide in sorted(plots, key=lambda plot: -plot[0]):
        _draw_house(canvas, rng, (side * street.wall, z), wide, side)


def _draw_house(
    canvas: Canvas, rng: np.random.Generator, corner: tuple[float, float], wide: float, side: int
) -> None:
    x, z = corner
    floors, storey = int(rng.integers(1, 5)), rng.uniform(2.9, 3.3)
    high = 4.0 + floors * storey + 0.7
    color = _WALLS[int(rng.integers(len(_WALLS)))] * rng.uniform(0.85, 1.08)
    front = Wall(np.array([x, 0.0, z]), np.array([0.0, 0, 1]), np.array([-side, 0.0, 0]))
    for edge, normal in ((z, -1.0), (z + wide, 1.0)):
        gable = Wall(
            np.array([x, 0, edge]), np.array([float(side), 0, 0]), np.array([0, 0, normal])
        )
        if (canvas.view.camera.position[2] - edge) * normal > 0:
            canvas.quads(gable.quads(np.array([0, 0, 14, high])), color * 0.86, gable.normal)
    canvas.quads(front.quads(np.array([0, 0, wide, high])), color, front.normal)
    _draw_windows(canvas, rng, front, (wide, high), (floors, storey), color)
    _draw_shop(canvas, rng, front, wide, color)
    cornice = np.array([[-0.1, high - 0.45, wide + 0.1, high], [0, 3.75, wide, 4.0]])
    canvas.quads(front.forward(0.2).quads(cornice), color * 1.12, front.normal)


def _draw_windows(
    canvas: Canvas,
    rng: np.random.Generator,
    front: Wall,
    size: tuple[float, float],
    grid: tuple[int, float],
    color: Array,
) -> None:
    (wide, _), (floors, storey) = size, grid
    pitch, width, tall = rng.uniform(1.9, 2.9), rng.uniform(0.5, 0.68), rng.uniform(0.5, 0.66)
    columns = max(1, int((wide - 0.6) / pitch))
    left = (wide - columns * pitch) / 2
    u = left + pitch * (np.arange(columns) + 0.5)
    v = 4.25 + storey * (np.arange(floors) + 0.16)
    u, v = (grid.ravel() for grid in np.meshgrid(u, v))
    half, up = pitch * width / 2, storey * tall
    frame = np.column_stack([u - half - 0.1, v - 0.12, u + half + 0.1, v + up + 0.1])
    canvas.quads(
        front.quads(frame), np.minimum(color * rng.choice([0.72, 1.22]), 245), front.normal
    )
    glass = np.column_stack([u - half, v, u + half, v + up])
    _draw_panes(canvas, rng, front, glass)
    if rng.random() < 0.75:
        bar = np.column_stack([u - 0.04, v, u + 0.04, v + up])
        canvas.quads(front.quads(bar), np.array([190.0, 194, 196]), front.normal)
    if rng.random() < 0.3:
        rail = np.column_stack([u - half - 0.3, v - 0.2, u + half + 0.3, v + 0.75])
        chosen = rail[rng.random(len(rail)) < 0.6]
        if len(chosen):
            canvas.quads(front.forward(0.7).quads(chosen), color * 0.55, front.normal)


def _draw_panes(canvas: Canvas, rng: np.random.Generator, front: Wall, panes: Array) -> None:
    """Draw panes that reflect the sky, some of them lit from inside when lamps are on."""
    light, count = canvas.light, len(panes)
    mirror = rng.uniform(0.12, 0.5, (count, 1))
    day = np.array([[78.0, 62, 50]]) * light.ambient * (1 - mirror) + light.sky_low * mirror * 0.8
    warm = _WARM * rng.uniform(0.55, 1.0, (count, 1)) * rng.uniform([0.8, 0.9, 1], 1, (count, 3))
    lit = rng.random((count, 1)) < 0.55 * max(0.0, light.lamps - 0.05)
    canvas.quads(front.quads(panes), np.where(lit, warm, day), front.normal, 1.0)
    upper = panes * 1.0
    upper[:, 1] = upper[:, 3] - (upper[:, 3] - upper[:, 1]) * rng.uniform(0.15, 0.5, count)
    chosen = (rng.random(count) < 0.35) & ~lit[:, 0]
    if chosen.any():
        canvas.quads(front.quads(upper[chosen]), np.array([176.0, 184, 188]), front.normal)


def _draw_shop(
    canvas: Canvas, rng: np.random.Generator, front: Wall, wide: float, color: Array
) -> None:
    canvas.quads(front.quads(np.array([0, 0, wide, 0.5])), color * 0.6, front.normal)
    bays = max(2, int(wide / 3.4))
    step = wide / bays
    starts = np.arange(bays) * step
    panes = np.column_stack([starts + 0.3, np.full(bays, 0.5), starts + step - 0.3,
                             np.full(bays, 2.9)])  # fmt: skip
    door = int(rng.integers(bays))
    panes[door, 1] = 0.05
    canvas.quads(front.quads(panes + _BORDER), color * 0.5, front.normal)
    inside = np.array([96.0, 92, 88]) * canvas.light.ambient
    glow = _WARM * rng.uniform(0.75, 1.0) * (0.25 + 0.75 * canvas.light.lamps)
    shop = inside * (1 - canvas.light.lamps) + glow * canvas.light.lamps
    canvas.quads(front.quads(panes), shop * rng.uniform(0.75, 1.1, (bays, 1)), front.normal, 1.0)
    sign = _AWNINGS[int(rng.integers(len(_AWNINGS)))]
    if rng.random() < 0.6:
        _draw_awnings(canvas, front, panes, sign)
    board = np.array([0.4, 3.15, wide - 0.4, 3.65])
    canvas.quads(front.forward(0.1).quads(board), sign * 0.9, front.normal)
    text = starts + step / 2
    words = np.column_stack([text - 0.8, np.full(bays, 3.3), text + 0.8, np.full(bays, 3.5)])
    canvas.quads(front.forward(0.12).quads(words), np.array([225.0, 230, 232]), front.normal)


def _draw_awnings(canvas: Canvas, front: Wall, panes: Array, color: Array) -> None:
    stripes = 6
    for u0, _, u1, _ in panes:
        edges = np.linspace(u0 - 0.15, u1 + 0.15, stripes + 1)
        for k in range(stripes):
            top = front.quads(np.array([edges[k], 2.95, edges[k + 1], 2.95]))[0, :2]
            low = front.forward(1.1).quads(np.array([edges[k], 2.5, edges[k + 1], 2.5]))[0, :2]
            corners = np.array([low[0], low[1], top[1], top[0]])
            shade = color if k % 2 else np.array([226.0, 228, 230])
            tilt = front.normal * 0.5 + np.array([0.0, 0.87, 0])
            canvas.quads(corners[None], shade, tilt)


def draw_bridge(canvas: Canvas, rng: np.random.Generator, street: Street, end: float) -> None:
    """Draw a railway bridge across the street, with a dark underpass for traffic."""
    side = 90.0
    across = np.array([1.0, 0, 0])
    front = Wall(np.array([0.0, 0, end]), across, np.array([0.0, 0, -1]))
    tone = np.array([[98, 116, 150], [150, 152, 152], [96, 120, 96]][int(rng.integers(3))], float)
    deck = rng.uniform(5.6, 6.4)
    half = street.wall - 0.2
    canvas.quads(front.quads(np.array([-side, 0, side, deck + 2.6])), tone, front.normal)
    joints = np.arange(-60.0, 60.0, 3.0)
    seams = np.column_stack([joints, np.full(40, 0.0), joints + 0.08, np.full(40, deck + 2.2)])
    canvas.quads(front.quads(seams), tone * 0.82, front.normal)
    hole = canvas.light.underpass
    canvas.quads(front.quads(np.array([-half, 0, half, deck])), hole, front.normal, 1.0)
    lights = np.linspace(-half * 0.8, half * 0.8, 5)
    lamp = np.column_stack([lights - 0.3, np.full(5, deck - 0.35), lights + 0.3,
                            np.full(5, deck - 0.2)])  # fmt: skip
    canvas.quads(front.quads(lamp), np.array([170.0, 220, 240]), front.normal, 1.0)
    beam = np.array([[-half, deck, half, deck + 0.9], [-side, deck + 2.5, side, deck + 2.8]])
    canvas.quads(front.forward(0.2).quads(beam), tone * 0.7, front.normal)
    posts = np.arange(-58.0, 58.0, 1.6)
    rail = np.column_stack([posts, np.full(len(posts), deck + 2.8), posts + 0.1,
                            np.full(len(posts), deck + 3.9)])  # fmt: skip
    canvas.quads(front.quads(rail), np.array([70.0, 68, 66]), front.normal)
    bar = np.array([-side, deck + 3.85, side, deck + 3.98])
    canvas.quads(front.quads(bar), np.array([70.0, 68, 66]), front.normal)
